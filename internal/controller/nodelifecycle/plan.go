package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reported are the conditions only a kubelet can know.
var reported = []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}

// lost is what a node's conditions become when it is silent.
func lost(conditions []corev1.NodeCondition, now time.Time) (after []corev1.NodeCondition, changed bool) {
	after = slices.Clone(conditions)
	for _, kind := range reported {
		i := slices.IndexFunc(after, func(c corev1.NodeCondition) bool { return c.Type == kind })
		switch {
		case i < 0:
			after = append(after, corev1.NodeCondition{
				Type: kind, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastTransitionTime: metav1.NewTime(now),
			})
			changed = true
		case after[i].Status != corev1.ConditionUnknown:
			after[i].Status, after[i].Reason, after[i].Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			after[i].LastTransitionTime = metav1.NewTime(now)
			changed = true
		}
	}
	return after, changed
}

func findCondition(n *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == kind {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// readiness of a node; "" if it never said.
func readiness(n *corev1.Node) corev1.ConditionStatus {
	if c := findCondition(n, corev1.NodeReady); c != nil {
		return c.Status
	}
	return ""
}

// byCondition are the taints that follow from a condition being True.
var byCondition = []struct {
	condition corev1.NodeConditionType
	taint     string
}{
	{corev1.NodeMemoryPressure, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.TaintNodeNetworkUnavailable},
}

// ours says whether this controller decides about a taint.
func ours(t corev1.Taint) bool {
	switch t.Key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable:
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	case corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure,
		corev1.TaintNodeNetworkUnavailable:
		return t.Effect == corev1.TaintEffectNoSchedule
	}
	return false
}

// wantedTaints keeps all foreign taints and those of ours that are due, with the time since when they hold. A node that has not said
// anything yet gets no pods, but loses none either.
func wantedTaints(n *corev1.Node, now time.Time) (taints []corev1.Taint, changed bool) {
	due := map[corev1.Taint]bool{}
	add := func(key string, effects ...corev1.TaintEffect) {
		for _, e := range effects {
			due[corev1.Taint{Key: key, Effect: e}] = true
		}
	}
	switch readiness(n) {
	case corev1.ConditionFalse:
		add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)
	case corev1.ConditionUnknown:
		add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)
	case "":
		add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule)
	}
	for _, b := range byCondition {
		if c := findCondition(n, b.condition); c != nil && c.Status == corev1.ConditionTrue {
			add(b.taint, corev1.TaintEffectNoSchedule)
		}
	}
	if n.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	for _, t := range n.Spec.Taints {
		key := corev1.Taint{Key: t.Key, Effect: t.Effect}
		if ours(t) && !due[key] {
			changed = true
			continue
		}
		delete(due, key)
		taints = append(taints, t)
	}
	kept := len(taints)
	at := metav1.NewTime(now)
	for t := range due {
		t.TimeAdded = &at
		taints = append(taints, t)
		changed = true
	}
	slices.SortFunc(taints[kept:], func(a, b corev1.Taint) int { return compareTaints(a, b) })
	return taints, changed
}

func compareTaints(a, b corev1.Taint) int {
	switch {
	case a.Key+string(a.Effect) < b.Key+string(b.Effect):
		return -1
	case a.Key+string(a.Effect) > b.Key+string(b.Effect):
		return 1
	}
	return 0
}
