package api

import corev1 "k8s.io/api/core/v1"

// gates are features that are off in 1.37 unless somebody turns them on, by their fields in pods. Skiff has none of them. Those that can be asked for are in optional.go.
type gates uint8

const (
	emptyDirVolumeMode gates = 1 << iota
	atomicWriteVolumeUserFields
	volumeBindMountOptions
	h2cContainerProbe
	grpcContainerProbeTLS
	evictionRequestAPI
)

// DropAlpha drops what of a new object only a feature that is off gives a meaning, as upstream does: it would promise what nobody keeps. What old has already,
// where somebody had turned the feature on, stays.
func DropAlpha(obj, old Object) {
	if c, is := obj.(*corev1.PersistentVolumeClaim); is {
		was, _ := old.(*corev1.PersistentVolumeClaim)
		dropForeignSource(c, was)
		return
	}
	spec := podSpec(obj)
	if spec == nil {
		return
	}
	has := gated(spec, 0)
	if has == 0 {
		return
	}
	if old != nil {
		has &^= gated(podSpec(old), 0)
	}
	gated(spec, has)
}

// dropForeignSource drops a source in another namespace (CrossNamespaceVolumeDataSource).
func dropForeignSource(c, old *corev1.PersistentVolumeClaim) {
	foreign := c.Spec.DataSourceRef != nil && value(c.Spec.DataSourceRef.Namespace) != ""
	if foreign && (old == nil || old.Spec.DataSourceRef == nil) {
		c.Spec.DataSourceRef = nil
	}
}

// gated says of which features a pod has fields, and takes those of drop away.
func gated(s *corev1.PodSpec, drop gates) (has gates) {
	if s == nil {
		return 0
	}
	if s.EvictionResponders != nil {
		has |= evictionRequestAPI
		clearIf(&s.EvictionResponders, drop&evictionRequestAPI)
	}
	for i := range s.Volumes {
		has |= gatedVolume(&s.Volumes[i].VolumeSource, drop)
	}
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			has |= gatedContainer(&list[i], drop)
		}
	}
	for i := range s.EphemeralContainers {
		has |= gatedContainer((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon), drop)
	}
	return has
}

func clearIf[T any](field *T, drop gates) {
	if drop != 0 {
		*field = *new(T)
	}
}

func gatedContainer(c *corev1.Container, drop gates) (has gates) {
	for i := range c.VolumeMounts {
		if m := &c.VolumeMounts[i]; m.BindMountOptions != nil {
			has |= volumeBindMountOptions
			clearIf(&m.BindMountOptions, drop&volumeBindMountOptions)
		}
	}
	protocol := func(h *corev1.HTTPGetAction) {
		if h != nil && h.Protocol != nil {
			has |= h2cContainerProbe
			clearIf(&h.Protocol, drop&h2cContainerProbe)
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p == nil {
			continue
		}
		protocol(p.HTTPGet)
		if p.GRPC != nil && p.GRPC.Mode != nil {
			has |= grpcContainerProbeTLS
			clearIf(&p.GRPC.Mode, drop&grpcContainerProbeTLS)
		}
	}
	if l := c.Lifecycle; l != nil {
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil {
				protocol(h.HTTPGet)
			}
		}
	}
	return has
}

func gatedVolume(v *corev1.VolumeSource, drop gates) (has gates) {
	user := func(id **int64) {
		if *id != nil {
			has |= atomicWriteVolumeUserFields
			clearIf(id, drop&atomicWriteVolumeUserFields)
		}
	}
	keys := func(list []corev1.KeyToPath) {
		for i := range list {
			user(&list[i].User)
		}
	}
	downward := func(list []corev1.DownwardAPIVolumeFile) {
		for i := range list {
			user(&list[i].User)
		}
	}
	switch {
	case v.EmptyDir != nil && v.EmptyDir.Mode != nil:
		has |= emptyDirVolumeMode
		clearIf(&v.EmptyDir.Mode, drop&emptyDirVolumeMode)
	case v.Secret != nil:
		user(&v.Secret.DefaultUser)
		keys(v.Secret.Items)
	case v.ConfigMap != nil:
		user(&v.ConfigMap.DefaultUser)
		keys(v.ConfigMap.Items)
	case v.DownwardAPI != nil:
		user(&v.DownwardAPI.DefaultUser)
		downward(v.DownwardAPI.Items)
	case v.Projected != nil:
		user(&v.Projected.DefaultUser)
		for i := range v.Projected.Sources {
			s := &v.Projected.Sources[i]
			if s.Secret != nil {
				keys(s.Secret.Items)
			}
			if s.ConfigMap != nil {
				keys(s.ConfigMap.Items)
			}
			if s.DownwardAPI != nil {
				downward(s.DownwardAPI.Items)
			}
			if s.ServiceAccountToken != nil {
				user(&s.ServiceAccountToken.User)
			}
			if s.ClusterTrustBundle != nil {
				user(&s.ClusterTrustBundle.User)
			}
			if s.PodCertificate != nil {
				user(&s.PodCertificate.User)
			}
		}
	}
	return has
}
