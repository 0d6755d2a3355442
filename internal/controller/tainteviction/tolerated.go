package tainteviction

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

func noExecute(n *corev1.Node) []corev1.Taint {
	var taints []corev1.Taint
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			taints = append(taints, t)
		}
	}
	return taints
}

// tolerated says for how long a pod may stay under taints; limited is false if for ever. The shortest of all tolerations that match
// counts, and a taint that nothing tolerates allows no time at all.
func tolerated(taints []corev1.Taint, tolerations []corev1.Toleration) (patience time.Duration, limited bool) {
	for i := range taints {
		matched := false
		for j := range tolerations {
			t := &tolerations[j]
			if !t.ToleratesTaint(klog.Background(), &taints[i], true) {
				continue
			}
			matched = true
			if t.TolerationSeconds == nil {
				continue
			}
			if d := time.Duration(max(0, *t.TolerationSeconds)) * time.Second; !limited || d < patience {
				patience, limited = d, true
			}
		}
		if !matched {
			return 0, true
		}
	}
	return patience, limited
}
