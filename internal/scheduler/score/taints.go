package score

import (
	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
)

// Taints counts the PreferNoSchedule taints of a node that are not tolerated.
func Taints(tolerations []corev1.Toleration, node *corev1.Node) (count int64) {
	for t := range node.Spec.Taints {
		taint := &node.Spec.Taints[t]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule && !helpers.TolerationsTolerateTaint(klog.Background(), tolerations, taint, true) {
			count++
		}
	}
	return count
}
