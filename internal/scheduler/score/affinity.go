package score

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Affinity returns the sum of the weights of the preferred terms a node meets; nil if the pod prefers nothing.
func Affinity(p *corev1.Pod) func(node *corev1.Node) int64 {
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil ||
		len(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nil
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return nil // a preference that cannot be read binds nobody
	}
	return terms.Score
}
