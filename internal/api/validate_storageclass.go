package api

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Upstream's limits of what goes to a driver as it is.
const (
	mostParameters     = 512
	mostParameterBytes = 256 << 10
	longestVolumeError = 1024
	longestNodeID      = 256
	longestDriverName  = 63
	shortestToken      = 10 * 60
	longestToken       = 1 << 32
	shortestRefresh    = 10
)

func validateStorageClass(o Object) field.ErrorList {
	c := o.(*storagev1.StorageClass)
	errs := provisioner(c.Provisioner, field.NewPath("provisioner"))
	errs = append(errs, parameters(c.Parameters, true, field.NewPath("parameters"))...)
	if p := value(c.ReclaimPolicy); p != "" {
		errs = append(errs, oneOf(p, field.NewPath("reclaimPolicy"), corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	errs = append(errs, oneOf(value(c.VolumeBindingMode), field.NewPath("volumeBindingMode"),
		storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	return append(errs, allowedTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

func provisioner(name string, p *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(p, name)}
	}
	return each(p, name, validation.IsQualifiedName(strings.ToLower(name)))
}

// parameters checks what a driver gets as it is; empty says whether there may be none.
func parameters(m map[string]string, empty bool, p *field.Path) (errs field.ErrorList) {
	if len(m) == 0 && !empty {
		return field.ErrorList{field.Required(p, "must contain at least one key/value pair")}
	}
	if len(m) > mostParameters {
		return field.ErrorList{field.TooLong(p, "", mostParameters)}
	}
	total := 0
	for k, v := range m {
		if k == "" {
			errs = append(errs, field.Invalid(p, k, "field can not be empty."))
		}
		total += len(k) + len(v)
	}
	if total > mostParameterBytes {
		errs = append(errs, field.TooLong(p, "", mostParameterBytes))
	}
	return errs
}

func allowedTopologies(terms []corev1.TopologySelectorTerm, p *field.Path) (errs field.ErrorList) {
	for i, term := range terms {
		seen := map[string]bool{}
		for j, e := range term.MatchLabelExpressions {
			at := p.Index(i).Child("matchLabelExpressions").Index(j)
			errs = append(errs, each(at.Child("key"), e.Key, validation.IsQualifiedName(e.Key))...)
			if seen[e.Key] {
				errs = append(errs, field.Duplicate(at.Child("key"), e.Key))
			}
			seen[e.Key] = true
			if len(e.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), ""))
			}
			for k, v := range e.Values {
				if slices.Contains(e.Values[:k], v) {
					errs = append(errs, field.Duplicate(at.Child("values").Index(k), v))
				}
			}
		}
		for earlier := range i {
			if equal(terms[earlier], term) {
				errs = append(errs, field.Duplicate(p.Index(i).Child("matchLabelExpressions"), ""))
			}
		}
	}
	return errs
}

func validateStorageClassUpdate(o, old Object) field.ErrorList {
	c, was := o.(*storagev1.StorageClass), old.(*storagev1.StorageClass)
	errs := validateStorageClass(o)
	for _, f := range []struct {
		name     string
		now, was any
	}{{"parameters", c.Parameters, was.Parameters}, {"provisioner", c.Provisioner, was.Provisioner}, {"reclaimPolicy", c.ReclaimPolicy, was.ReclaimPolicy}} {
		errs = append(errs, unchanged(f.name, f.now, f.was)...)
	}
	return append(errs, immutable(c.VolumeBindingMode, was.VolumeBindingMode, field.NewPath("volumeBindingMode"))...)
}

// unchanged refuses a change in the words that classes use.
func unchanged(name string, now, was any) field.ErrorList {
	if equal(now, was) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath(name), "updates to "+name+" are forbidden.")}
}

func driverName(name string, p *field.Path) (errs field.ErrorList) {
	if name == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	if len(name) > longestDriverName {
		errs = append(errs, field.TooLong(p, name, longestDriverName))
	}
	return append(errs, each(p, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

func validateVolumeAttachment(o Object) field.ErrorList {
	a, spec := o.(*storagev1.VolumeAttachment), field.NewPath("spec")
	errs := driverName(a.Spec.Attacher, spec.Child("attacher"))
	errs = append(errs, each(spec.Child("nodeName"), a.Spec.NodeName, validation.IsDNS1123Subdomain(a.Spec.NodeName))...)
	errs = append(errs, attachmentSource(&a.Spec.Source, spec.Child("source"))...)
	status := field.NewPath("status")
	errs = append(errs, parameters(a.Status.AttachmentMetadata, true, status.Child("attachmentMetadata"))...)
	errs = append(errs, volumeError(a.Status.AttachError, status.Child("attachError"))...)
	return append(errs, volumeError(a.Status.DetachError, status.Child("detachError"))...)
}

func attachmentSource(s *storagev1.VolumeAttachmentSource, p *field.Path) field.ErrorList {
	switch {
	case s.InlineVolumeSpec == nil && s.PersistentVolumeName == nil:
		return field.ErrorList{field.Required(p, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")}
	case s.InlineVolumeSpec != nil && s.PersistentVolumeName != nil:
		return field.ErrorList{field.Forbidden(p, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")}
	case s.InlineVolumeSpec != nil:
		return persistentVolumeSpec(s.InlineVolumeSpec, true, p.Child("inlineVolumeSpec"))
	case *s.PersistentVolumeName == "":
		return field.ErrorList{field.Required(p.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")}
	}
	return each(p.Child("persistentVolumeName"), *s.PersistentVolumeName, validation.IsDNS1123Subdomain(*s.PersistentVolumeName))
}

func volumeError(e *storagev1.VolumeError, p *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > longestVolumeError {
		errs = append(errs, field.TooLong(p.Child("message"), "", longestVolumeError))
	}
	if e.ErrorCode != nil && *e.ErrorCode < 0 {
		errs = append(errs, field.Invalid(p.Child("errorCode"), *e.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}

func validateVolumeAttachmentUpdate(o, old Object) field.ErrorList {
	a, was := o.(*storagev1.VolumeAttachment), old.(*storagev1.VolumeAttachment)
	errs := validateVolumeAttachment(o)
	if !equal(a.Spec, was.Spec) {
		errs = append(errs, field.Invalid(field.NewPath("spec"), a.Spec, "field is immutable"))
	}
	return errs
}

func validateCSIDriver(o Object) field.ErrorList {
	d, spec := o.(*storagev1.CSIDriver), field.NewPath("spec")
	errs := driverName(d.Name, field.NewPath("metadata", "name"))
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"attachRequired", d.Spec.AttachRequired != nil}, {"podInfoOnMount", d.Spec.PodInfoOnMount != nil},
		{"storageCapacity", d.Spec.StorageCapacity != nil}, {"seLinuxMount", d.Spec.SELinuxMount != nil},
	} {
		if !f.set {
			errs = append(errs, field.Required(spec.Child(f.name), ""))
		}
	}
	errs = append(errs, oneOf(value(d.Spec.FSGroupPolicy), spec.Child("fsGroupPolicy"),
		storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	errs = append(errs, tokenRequests(d.Spec.TokenRequests, spec.Child("tokenRequests"))...)
	for i, m := range d.Spec.VolumeLifecycleModes {
		errs = append(errs, oneOf(m, spec.Child("volumeLifecycleModes").Index(i), storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if n := d.Spec.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < shortestRefresh {
		errs = append(errs, field.Invalid(spec.Child("nodeAllocatableUpdatePeriodSeconds"), *n, fmt.Sprintf("must be greater than or equal to %d seconds", shortestRefresh)))
	}
	if d.Spec.ServiceAccountTokenInSecrets != nil && len(d.Spec.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(spec.Child("serviceAccountTokenInSecrets"), *d.Spec.ServiceAccountTokenInSecrets,
			"serviceAccountTokenInSecrets can only be set when tokenRequests is configured"))
	}
	return errs
}

func tokenRequests(list []storagev1.TokenRequest, p *field.Path) (errs field.ErrorList) {
	seen := map[string]bool{}
	for i, r := range list {
		at := p.Index(i)
		if seen[r.Audience] {
			errs = append(errs, field.Duplicate(at.Child("audience"), r.Audience))
		}
		seen[r.Audience] = true
		switch s := r.ExpirationSeconds; {
		case s == nil:
		case *s < shortestToken:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *s, "may not specify a duration less than 10 minutes"))
		case *s > longestToken:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *s, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}

func validateCSIDriverUpdate(o, old Object) field.ErrorList {
	d, was, spec := &o.(*storagev1.CSIDriver).Spec, &old.(*storagev1.CSIDriver).Spec, field.NewPath("spec")
	errs := validateCSIDriver(o)
	errs = append(errs, immutable(d.AttachRequired, was.AttachRequired, spec.Child("attachedRequired"))...)
	return append(errs, immutable(d.VolumeLifecycleModes, was.VolumeLifecycleModes, spec.Child("volumeLifecycleModes"))...)
}

func validateCSINode(o Object) (errs field.ErrorList) {
	seen := map[string]bool{}
	for i, d := range o.(*storagev1.CSINode).Spec.Drivers {
		at := field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, driverName(d.Name, at.Child("name"))...)
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen[d.Name] = true
		errs = append(errs, required(d.NodeID, at.Child("nodeID"))...)
		if len(d.NodeID) > longestNodeID {
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", longestNodeID)))
		}
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			errs = append(errs, nonNegative(int64(*d.Allocatable.Count), at.Child("allocatable", "count"))...)
		}
		for k, key := range d.TopologyKeys {
			errs = append(errs, each(at.Child("topologyKeys").Index(k), key, validation.IsQualifiedName(key))...)
			if slices.Contains(d.TopologyKeys[:k], key) {
				errs = append(errs, field.Duplicate(at.Child("topologyKeys").Index(k), key))
			}
		}
	}
	return errs
}

// validateCSINodeUpdate: a driver that is registered stays as it is, but for how many volumes it can take.
func validateCSINodeUpdate(o, old Object) field.ErrorList {
	errs := validateCSINode(o)
	drivers := o.(*storagev1.CSINode).Spec.Drivers
	for _, was := range old.(*storagev1.CSINode).Spec.Drivers {
		i := slices.IndexFunc(drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == was.Name })
		if i < 0 {
			continue
		}
		was.Allocatable = drivers[i].Allocatable
		if !equal(drivers[i], was) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "drivers").Index(i), drivers[i], "field is immutable"))
		}
	}
	return errs
}

func validateStorageCapacity(o Object) field.ErrorList {
	c := o.(*storagev1.CSIStorageCapacity)
	errs := required(c.StorageClassName, field.NewPath("storageClassName"))
	if len(errs) == 0 {
		errs = dnsSubdomain(c.StorageClassName, field.NewPath("storageClassName"))
	}
	if c.NodeTopology != nil {
		errs = append(errs, labelSelector(c.NodeTopology, field.NewPath("nodeTopology"))...)
	}
	if q := c.Capacity; q != nil && q.Sign() < 0 {
		errs = append(errs, field.Invalid(field.NewPath("capacity"), q.String(), "must be greater than or equal to 0"))
	}
	return errs
}

func validateStorageCapacityUpdate(o, old Object) field.ErrorList {
	c, was := o.(*storagev1.CSIStorageCapacity), old.(*storagev1.CSIStorageCapacity)
	errs := validateStorageCapacity(o)
	errs = append(errs, immutable(c.NodeTopology, was.NodeTopology, field.NewPath("nodeTopology"))...)
	return append(errs, immutable(c.StorageClassName, was.StorageClassName, field.NewPath("storageClassName"))...)
}

func validateAttributesClass(o Object) field.ErrorList {
	c := o.(*storagev1.VolumeAttributesClass)
	return append(provisioner(c.DriverName, field.NewPath("driverName")), parameters(c.Parameters, false, field.NewPath("parameters"))...)
}

func validateAttributesClassUpdate(o, old Object) field.ErrorList {
	c, was := o.(*storagev1.VolumeAttributesClass), old.(*storagev1.VolumeAttributesClass)
	errs := append(validateAttributesClass(o), unchanged("driverName", c.DriverName, was.DriverName)...)
	return append(errs, unchanged("parameters", c.Parameters, was.Parameters)...)
}
