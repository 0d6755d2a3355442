package api

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A pod's volumes: each of one source, and that source as its kind must be.

// volumesByName are the volumes of a pod that can be mounted.
type volumesByName map[string]*corev1.VolumeSource

// validateVolumes also returns the volumes by their names. pod is what the pod is called, "" for a template.
func validateVolumes(list []corev1.Volume, pod string, p *field.Path) (names volumesByName, errs field.ErrorList) {
	names = make(volumesByName, len(list))
	for i := range list {
		v, at := &list[i], p.Index(i)
		_, taken := names[v.Name]
		switch {
		case v.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case taken:
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		case !plainLabel(v.Name):
			errs = append(errs, dnsLabel(v.Name, at.Child("name"))...)
		}
		names[v.Name] = &v.VolumeSource
		errs = append(errs, validateVolume(v, pod, at)...)
	}
	return names, errs
}

func validateVolume(v *corev1.Volume, pod string, p *field.Path) (errs field.ErrorList) {
	switch sources := volumeSources(&v.VolumeSource); {
	case len(sources) == 0:
		return field.ErrorList{field.Required(p, "must specify a volume type")}
	case len(sources) > 1:
		for _, name := range sources[1:] {
			errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 volume type"))
		}
		return errs
	}
	switch {
	case v.Projected != nil:
		return projectedVolume(v.Projected, p.Child("projected"))
	case v.ConfigMap != nil:
		at := p.Child("configMap")
		return append(required(v.ConfigMap.Name, at.Child("name")), keyPaths(v.ConfigMap.Items, v.ConfigMap.DefaultMode, at)...)
	case v.Secret != nil:
		at := p.Child("secret")
		return append(required(v.Secret.SecretName, at.Child("secretName")), keyPaths(v.Secret.Items, v.Secret.DefaultMode, at)...)
	case v.EmptyDir != nil:
		if v.EmptyDir.SizeLimit != nil && v.EmptyDir.SizeLimit.Sign() < 0 {
			return field.ErrorList{field.Forbidden(p.Child("emptyDir", "sizeLimit"), "SizeLimit field must be a valid resource quantity")}
		}
		return nil
	case v.HostPath != nil:
		return hostPath(v.HostPath, p.Child("hostPath"))
	case v.PersistentVolumeClaim != nil:
		return required(v.PersistentVolumeClaim.ClaimName, p.Child("persistentVolumeClaim", "claimName"))
	case v.DownwardAPI != nil:
		at := p.Child("downwardAPI")
		return append(fileMode(v.DownwardAPI.DefaultMode, at, "defaultMode"), downwardFiles(v.DownwardAPI.Items, at)...)
	case v.Ephemeral != nil:
		return ephemeralVolume(v, pod, p.Child("ephemeral"))
	case v.CSI != nil:
		return inlineCSI(v.CSI, p.Child("csi"))
	case v.Image != nil:
		at := p.Child("image")
		return append(required(v.Image.Reference, at.Child("reference")),
			oneOf(v.Image.PullPolicy, at.Child("pullPolicy"), corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	}
	return networkVolume(&v.VolumeSource, p)
}

// networkVolume checks the sources that name a disk or a share somewhere else.
func networkVolume(v *corev1.VolumeSource, p *field.Path) field.ErrorList {
	switch {
	case v.NFS != nil:
		return nfs(v.NFS, p.Child("nfs"))
	case v.ISCSI != nil:
		s, at := v.ISCSI, p.Child("iscsi")
		return iscsi(s.TargetPortal, s.IQN, s.Lun, (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil, at)
	case v.FC != nil:
		return fibreChannel(v.FC, p.Child("fc"))
	case v.GCEPersistentDisk != nil:
		at := p.Child("gcePersistentDisk")
		return append(required(v.GCEPersistentDisk.PDName, at.Child("pdName")), partition(v.GCEPersistentDisk.Partition, at.Child("partition"))...)
	case v.AWSElasticBlockStore != nil:
		at := p.Child("awsElasticBlockStore")
		return append(required(v.AWSElasticBlockStore.VolumeID, at.Child("volumeID")), partition(v.AWSElasticBlockStore.Partition, at.Child("partition"))...)
	case v.GitRepo != nil:
		at := p.Child("gitRepo")
		return append(required(v.GitRepo.Repository, at.Child("repository")), localPath(v.GitRepo.Directory, at.Child("directory"))...)
	case v.Glusterfs != nil:
		at := p.Child("glusterfs")
		return append(required(v.Glusterfs.EndpointsName, at.Child("endpoints")), required(v.Glusterfs.Path, at.Child("path"))...)
	case v.RBD != nil:
		at := p.Child("rbd")
		return append(someOf(len(v.RBD.CephMonitors), at.Child("monitors")), required(v.RBD.RBDImage, at.Child("image"))...)
	case v.CephFS != nil:
		return someOf(len(v.CephFS.Monitors), p.Child("cephfs", "monitors"))
	case v.Cinder != nil:
		return required(v.Cinder.VolumeID, p.Child("cinder", "volumeID"))
	case v.FlexVolume != nil:
		return required(v.FlexVolume.Driver, p.Child("flexVolume", "driver"))
	case v.AzureFile != nil:
		at := p.Child("azureFile")
		return append(required(v.AzureFile.SecretName, at.Child("secretName")), required(v.AzureFile.ShareName, at.Child("shareName"))...)
	case v.AzureDisk != nil:
		at := p.Child("azureDisk")
		return append(required(v.AzureDisk.DiskName, at.Child("diskName")), required(v.AzureDisk.DataDiskURI, at.Child("diskURI"))...)
	case v.VsphereVolume != nil:
		return required(v.VsphereVolume.VolumePath, p.Child("vsphereVolume", "volumePath"))
	case v.PhotonPersistentDisk != nil:
		return required(v.PhotonPersistentDisk.PdID, p.Child("photonPersistentDisk", "pdID"))
	case v.PortworxVolume != nil:
		return required(v.PortworxVolume.VolumeID, p.Child("portworxVolume", "volumeID"))
	case v.Quobyte != nil:
		return append(required(v.Quobyte.Registry, p.Child("quobyte", "registry")), required(v.Quobyte.Volume, p.Child("quobyte", "volume"))...)
	case v.ScaleIO != nil:
		at := p.Child("scaleIO")
		return slices.Concat(required(v.ScaleIO.Gateway, at.Child("gateway")), required(v.ScaleIO.System, at.Child("system")), required(v.ScaleIO.VolumeName, at.Child("volumeName")))
	}
	return nil
}

// volumeSources names what a volume is made of, an emptyDir first: that is what a volume of nothing becomes.
func volumeSources(source any) (names []string) {
	for f, v := range reflect.ValueOf(source).Elem().Fields() {
		if v.Kind() != reflect.Pointer || v.IsNil() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "emptyDir" {
			names = slices.Insert(names, 0, name)
		} else {
			names = append(names, name)
		}
	}
	return names
}

func hostPath(h *corev1.HostPathVolumeSource, p *field.Path) field.ErrorList {
	if h.Path == "" {
		return field.ErrorList{field.Required(p.Child("path"), "")}
	}
	errs := noParent(h.Path, p.Child("path"))
	if value(h.Type) != corev1.HostPathUnset {
		errs = append(errs, oneOf(*h.Type, p.Child("type"), corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate,
			corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)...)
	}
	return errs
}

func nfs(s *corev1.NFSVolumeSource, p *field.Path) field.ErrorList {
	errs := append(required(s.Server, p.Child("server")), required(s.Path, p.Child("path"))...)
	if !strings.HasPrefix(s.Path, "/") {
		errs = append(errs, field.Invalid(p.Child("path"), s.Path, "must be an absolute path"))
	}
	return errs
}

func iscsi(portal, iqn string, lun int32, noSecret bool, p *field.Path) field.ErrorList {
	errs := append(required(portal, p.Child("targetPortal")), required(iqn, p.Child("iqn"))...)
	if iqn != "" && !strings.HasPrefix(iqn, "iqn") && !strings.HasPrefix(iqn, "eui") && !strings.HasPrefix(iqn, "naa") {
		errs = append(errs, field.Invalid(p.Child("iqn"), iqn, "must be valid format starting with iqn, eui, or naa"))
	}
	if noSecret {
		errs = append(errs, field.Required(p.Child("secretRef"), ""))
	}
	return append(errs, partition(lun, p.Child("lun"))...)
}

func fibreChannel(s *corev1.FCVolumeSource, p *field.Path) (errs field.ErrorList) {
	switch {
	case len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0:
		return field.ErrorList{field.Required(p.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both")}
	case len(s.TargetWWNs) > 0 && len(s.WWIDs) > 0:
		return field.ErrorList{field.Invalid(p.Child("targetWWNs"), s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")}
	case len(s.TargetWWNs) > 0 && s.Lun == nil:
		return field.ErrorList{field.Required(p.Child("lun"), "lun is required if targetWWNs is specified")}
	case s.Lun != nil:
		return partition(*s.Lun, p.Child("lun"))
	}
	return nil
}

// partition is a small number: that of a disk's partition or a target's unit.
func partition(n int32, p *field.Path) field.ErrorList {
	if n < 0 || n > 255 {
		return field.ErrorList{field.Invalid(p, n, "must be between 0 and 255, inclusive")}
	}
	return nil
}

func someOf(n int, p *field.Path) field.ErrorList {
	if n == 0 {
		return field.ErrorList{field.Required(p, "")}
	}
	return nil
}

func inlineCSI(s *corev1.CSIVolumeSource, p *field.Path) field.ErrorList {
	errs := driverName(s.Driver, p.Child("driver"))
	if s.NodePublishSecretRef != nil {
		errs = append(errs, required(s.NodePublishSecretRef.Name, p.Child("nodePublishSecretRef", "name"))...)
	}
	return errs
}

// ephemeralVolume checks the claim that a pod brings along: its name, pod-volume, and itself.
func ephemeralVolume(v *corev1.Volume, pod string, p *field.Path) field.ErrorList {
	t, at := v.Ephemeral.VolumeClaimTemplate, p.Child("volumeClaimTemplate")
	if t == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := append(metavalidation.ValidateLabels(t.Labels, at.Child("metadata", "labels")), apivalidation.ValidateAnnotations(t.Annotations, at.Child("metadata", "annotations"))...)
	if pod != "" {
		name := pod + "-" + v.Name
		for _, why := range apivalidation.NameIsDNSSubdomain(name, false) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), name, "PVC name "+strings.TrimSpace(`"`+name+`": `)+" "+why))
		}
	}
	return append(errs, claimSpec(&t.Spec, at.Child("spec"))...)
}

func projectedVolume(v *corev1.ProjectedVolumeSource, p *field.Path) field.ErrorList {
	errs := fileMode(v.DefaultMode, p, "defaultMode")
	taken := make(map[string]bool, len(v.Sources))
	for i := range v.Sources {
		s, at := &v.Sources[i], p.Child("sources").Index(i)
		if projections(s) > 1 {
			for _, name := range volumeSources(s)[1:] {
				errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
			}
		}
		paths := make([]string, 0, 4)
		errs = append(errs, projection(s, at, &paths)...)
		for _, file := range paths {
			if file != "" && taken[file] {
				errs = append(errs, field.Invalid(p, file, "conflicting duplicate paths"))
			}
			taken[file] = true
		}
	}
	return errs
}

// projections counts what a source of a projected volume is made of.
func projections(s *corev1.VolumeProjection) (n int) {
	for _, set := range [...]bool{s.Secret != nil, s.DownwardAPI != nil, s.ConfigMap != nil, s.ServiceAccountToken != nil, s.ClusterTrustBundle != nil, s.PodCertificate != nil} {
		if set {
			n++
		}
	}
	return n
}

// projection checks one source of a projected volume and says which files it makes.
func projection(s *corev1.VolumeProjection, p *field.Path, paths *[]string) (errs field.ErrorList) {
	keys := func(name string, items []corev1.KeyToPath, at *field.Path) {
		if name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		errs = append(errs, keyPaths(items, nil, at)...)
		for _, item := range items {
			*paths = append(*paths, item.Path)
		}
	}
	switch {
	case s.ServiceAccountToken != nil:
		t, at := s.ServiceAccountToken, p.Child("serviceAccountToken")
		if n := value(t.ExpirationSeconds); n < 600 {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), n, "may not specify a duration less than 10 minutes"))
		} else if n > 1<<32 {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), n, "may not specify a duration larger than 2^32 seconds"))
		}
		if !plainFile(t.Path) {
			errs = append(errs, relativePath(t.Path, at.Child("path"))...)
		}
		*paths = append(*paths, t.Path)
	case s.ConfigMap != nil:
		keys(s.ConfigMap.Name, s.ConfigMap.Items, p.Child("configMap"))
	case s.Secret != nil:
		keys(s.Secret.Name, s.Secret.Items, p.Child("secret"))
	case s.DownwardAPI != nil:
		errs = append(errs, downwardFiles(s.DownwardAPI.Items, p.Child("downwardAPI"))...)
		for i := range s.DownwardAPI.Items {
			*paths = append(*paths, s.DownwardAPI.Items[i].Path)
		}
	case s.ClusterTrustBundle != nil:
		errs = append(errs, bundleProjection(s.ClusterTrustBundle, p.Child("clusterTrustBundle"))...)
		*paths = append(*paths, s.ClusterTrustBundle.Path)
	case s.PodCertificate != nil:
		errs = append(errs, certificateProjection(s.PodCertificate, p.Child("podCertificate"))...)
		*paths = append(*paths, s.PodCertificate.CredentialBundlePath, s.PodCertificate.KeyPath, s.PodCertificate.CertificateChainPath)
	}
	return errs
}

func bundleProjection(s *corev1.ClusterTrustBundleProjection, p *field.Path) (errs field.ErrorList) {
	switch {
	case s.Name != nil && s.SignerName != nil:
		errs = append(errs, field.Invalid(p, s.Name, "only one of name and signerName may be used"))
	case s.Name != nil && *s.Name == "":
		errs = append(errs, field.Required(p.Child("name"), "must be a valid object name"))
	case s.SignerName != nil && *s.SignerName == "":
		errs = append(errs, field.Required(p.Child("signerName"), "must be a valid signer name"))
	case s.Name == nil && s.SignerName == nil:
		errs = append(errs, field.Required(p, "either name or signerName must be specified"))
	case s.Name != nil && s.LabelSelector != nil:
		errs = append(errs, field.Invalid(p.Child("labelSelector"), s.LabelSelector, "labelSelector must be unset if name is specified"))
	case s.LabelSelector != nil:
		errs = append(errs, labelSelector(s.LabelSelector, p.Child("labelSelector"))...)
	}
	return append(errs, relativePath(s.Path, p.Child("path"))...)
}

// shortestCertificate and longestCertificate are the seconds a pod may ask a certificate to be good for.
const shortestCertificate, longestCertificate = 3600, 91 * 24 * 3600

func certificateProjection(s *corev1.PodCertificateProjection, p *field.Path) field.ErrorList {
	errs := append(required(s.SignerName, p.Child("signerName")), oneOf(s.KeyType, p.Child("keyType"), "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096")...)
	if n := s.MaxExpirationSeconds; n != nil && *n < shortestCertificate {
		errs = append(errs, field.Invalid(p.Child("maxExpirationSeconds"), *n, "if provided, maxExpirationSeconds must be >= 3600"))
	} else if n != nil && *n > longestCertificate {
		errs = append(errs, field.Invalid(p.Child("maxExpirationSeconds"), *n, "if provided, maxExpirationSeconds must be <= 7862400"))
	}
	if s.CredentialBundlePath == "" && s.KeyPath == "" && s.CertificateChainPath == "" {
		errs = append(errs, field.Required(p, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	for _, f := range []struct{ name, path string }{{"credentialBundlePath", s.CredentialBundlePath}, {"keyPath", s.KeyPath}, {"certificateChainPath", s.CertificateChainPath}} {
		errs = append(errs, localPath(f.path, p.Child(f.name))...)
	}
	return errs
}

func downwardFiles(items []corev1.DownwardAPIVolumeFile, p *field.Path) (errs field.ErrorList) {
	for i := range items {
		f := &items[i]
		if !plainFile(f.Path) {
			errs = append(errs, relativePath(f.Path, p.Child("path"))...)
		}
		switch {
		case f.FieldRef != nil:
			errs = append(errs, fieldRef(f.FieldRef, volumeFieldPaths, p.Child("fieldRef"))...)
			if f.ResourceFieldRef != nil {
				errs = append(errs, field.Invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
			}
		case f.ResourceFieldRef != nil:
			if f.ResourceFieldRef.ContainerName == "" {
				errs = append(errs, field.Required(p.Child("resourceFieldRef", "containerName"), ""))
			}
			errs = append(errs, resourceFieldRef(f.ResourceFieldRef, p.Child("resourceFieldRef"))...)
		default:
			errs = append(errs, field.Required(p, "one of fieldRef and resourceFieldRef is required"))
		}
		errs = append(errs, fileMode(f.Mode, p, "mode")...)
	}
	return errs
}

func keyPaths(items []corev1.KeyToPath, mode *int32, p *field.Path) (errs field.ErrorList) {
	errs = append(errs, fileMode(mode, p, "defaultMode")...)
	for i, item := range items {
		if item.Key != "" && plainFile(item.Path) && item.Mode == nil {
			continue
		}
		at := p.Child("items").Index(i)
		errs = append(errs, required(item.Key, at.Child("key"))...)
		errs = append(errs, relativePath(item.Path, at.Child("path"))...)
		errs = append(errs, fileMode(item.Mode, at, "mode")...)
	}
	return errs
}

// fileMode is that of the field called name below p.
func fileMode(m *int32, p *field.Path, name string) field.ErrorList {
	if m != nil && (*m < 0 || *m > 0o777) {
		return field.ErrorList{field.Invalid(p.Child(name), *m, "must be a number between 0 and 0777 (octal), both inclusive")}
	}
	return nil
}

// plainFile is a path that no rule could mind.
func plainFile(s string) bool { return s != "" && s[0] != '/' && !strings.Contains(s, "..") }

// relativePath must be there, and lead to something below where it starts; ..data and its like are the kubelet's own.
func relativePath(s string, p *field.Path) field.ErrorList {
	return append(required(s, p), localPath(s, p)...)
}

// localPath is a relativePath that may be missing.
func localPath(s string, p *field.Path) (errs field.ErrorList) {
	if strings.HasPrefix(s, "/") {
		errs = append(errs, field.Invalid(p, s, "must be a relative path"))
	}
	errs = append(errs, noParent(s, p)...)
	if strings.HasPrefix(s, "..") && s != ".." && !strings.HasPrefix(s, "../") {
		errs = append(errs, field.Invalid(p, s, "must not start with '..'"))
	}
	return errs
}

func noParent(s string, p *field.Path) field.ErrorList {
	if strings.Contains(s, "..") && slices.Contains(strings.Split(s, "/"), "..") {
		return field.ErrorList{field.Invalid(p, s, "must not contain '..'")}
	}
	return nil
}
