package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/registry"
)

// taintNewNode (TaintNodesByCondition) keeps pods off a node that has not yet said it is ready; the node life cycle controller takes the taint away.
func taintNewNode(_ context.Context, a *registry.Attributes) error {
	node, ok := a.Object.(*corev1.Node)
	if !ok || !is(a, "", "nodes") || a.Operation != create {
		return nil
	}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
		node.Spec.Taints = append(node.Spec.Taints, taint)
	}
	return nil
}
