package scheduler

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// verdict is upstream's sentence about a pod that fits nowhere.
func verdict(nodes int, reasons map[string]int) string {
	if nodes == 0 {
		return "no nodes available to schedule pods"
	}
	parts := make([]string, 0, len(reasons))
	for reason, n := range reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(parts, ", "))
}

// unsupported names what a pod requires and this scheduler cannot give yet, "" if nothing. Such a pod waits and says so: to place it against
// its own rules would be worse.
func unsupported(p *corev1.Pod) string {
	const yet = ", which this scheduler does not support yet"
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil && len(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 {
			return "the pod requires inter-pod affinity (spec.affinity.podAffinity)" + yet
		}
		if a.PodAntiAffinity != nil && len(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 {
			return "the pod requires inter-pod anti-affinity (spec.affinity.podAntiAffinity)" + yet
		}
	}
	for _, c := range p.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == corev1.DoNotSchedule {
			return "the pod has a topology spread constraint with DoNotSchedule (spec.topologySpreadConstraints)" + yet
		}
	}
	for i := range p.Spec.Volumes {
		if v := &p.Spec.Volumes[i]; v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return fmt.Sprintf("the pod's volume %q needs a persistent volume claim%s", v.Name, yet)
		}
	}
	if len(p.Spec.ResourceClaims) > 0 {
		return "the pod uses resource claims (spec.resourceClaims)" + yet
	}
	return ""
}
