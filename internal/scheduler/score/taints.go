package score

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// taintToleration prefers nodes with few PreferNoSchedule taints the pod doesn't tolerate.
func taintToleration(p *cluster.Pod, n *cluster.Nodes, nodes []int) []int64 {
	raw := make([]int64, len(nodes))
	for k, i := range nodes {
		taints := n.Node[i].Spec.Taints
		for t := range taints {
			if taints[t].Effect == corev1.TaintEffectPreferNoSchedule && !tolerated(p, &taints[t]) {
				raw[k]++
			}
		}
	}
	return scale(raw, true)
}

func tolerated(p *cluster.Pod, taint *corev1.Taint) bool {
	for i := range p.Spec.Tolerations {
		if p.Spec.Tolerations[i].ToleratesTaint(klog.Background(), taint, true) {
			return true
		}
	}
	return false
}
