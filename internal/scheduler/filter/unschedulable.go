package filter

import (
	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var unschedulableRefusal = &Refusal{[]string{"node(s) were unschedulable"}, true}

// nodeUnschedulable keeps pods off cordoned nodes, unless they tolerate the taint a cordon means.
func nodeUnschedulable(p *cluster.Pod, n *cluster.Nodes) Check {
	taint := &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	if helpers.TolerationsTolerateTaint(klog.Background(), p.Spec.Tolerations, taint, true) {
		return nil
	}
	return func(i int) *Refusal {
		if n.Node[i].Spec.Unschedulable {
			return unschedulableRefusal
		}
		return nil
	}
}
