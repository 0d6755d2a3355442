package filter

import (
	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var taintReason = []string{"node(s) had untolerated taint(s)"}

// taintToleration keeps pods off nodes with a NoSchedule or NoExecute taint they don't tolerate.
func taintToleration(p *cluster.Pod, n *cluster.Nodes) Check {
	return func(i int) []string {
		taints := n.Node[i].Spec.Taints
		for t := range taints {
			taint := &taints[t]
			if taint.Effect == corev1.TaintEffectPreferNoSchedule {
				continue
			}
			if !helpers.TolerationsTolerateTaint(klog.Background(), p.Spec.Tolerations, taint, true) {
				return taintReason
			}
		}
		return nil
	}
}
