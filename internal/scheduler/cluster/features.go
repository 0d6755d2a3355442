package cluster

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	versionutil "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/component-helpers/nodedeclaredfeatures/features"

	"skiff.dev/skiff/internal/version"
)

// declarable are the features that nodes of a cluster of this version may lack, by name.
var declarable = slices.DeleteFunc(slices.Clone(features.AllFeatures), func(f nodedeclaredfeatures.Feature) bool {
	return f.MaxVersion() != nil && versionutil.MustParse(version.Kubernetes).GreaterThan(f.MaxVersion())
})

// featuresOf are the features that a node must declare to run a pod (KEP-5328), in the order of their names; nil for nearly all pods.
func featuresOf(p *corev1.Pod) (list []string) {
	if !p.Spec.HostNetwork && plain(p.Spec.InitContainers) && plain(p.Spec.Containers) {
		return nil
	}
	info := &nodedeclaredfeatures.PodInfo{Spec: &p.Spec}
	for _, f := range declarable {
		if f.InferForScheduling(info) {
			list = append(list, f.Name())
		}
	}
	return list
}

// plain says that no container has anything that a feature is about, besides the host's network. The library is not asked about such, which would cost every pod a
// sixth of what it costs to sum its requests up.
func plain(containers []corev1.Container) bool {
	for i := range containers {
		c := &containers[i]
		if len(c.RestartPolicyRules) > 0 {
			return false
		}
		for k := range c.VolumeMounts {
			if len(c.VolumeMounts[k].BindMountOptions) > 0 {
				return false
			}
		}
	}
	return true
}
