package filter

import (
	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var taintRefusal = &Refusal{[]string{"node(s) had untolerated taint(s)"}, true}

// taintToleration keeps pods off nodes with a NoSchedule or NoExecute taint they don't tolerate.
func taintToleration(p *cluster.Pod, n *cluster.Nodes) Check {
	tolerations := p.Spec.Tolerations
	return func(i int) *Refusal {
		taints := n.Node[i].Spec.Taints
		for t := range taints {
			taint := &taints[t]
			if taint.Effect != corev1.TaintEffectPreferNoSchedule && !helpers.TolerationsTolerateTaint(klog.Background(), tolerations, taint, true) {
				return taintRefusal
			}
		}
		return nil
	}
}
