package score

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Affinity returns the sum of the weights of the preferred terms a node meets, the pod's and its profile's; nil if nothing is preferred.
func Affinity(p *cluster.Pod) func(node *corev1.Node) int64 {
	own := affinity(p.Pod)
	if p.Profile == nil || p.Profile.Preferred == nil {
		return own
	}
	if own == nil {
		return p.Profile.Preferred.Score
	}
	return func(node *corev1.Node) int64 { return own(node) + p.Profile.Preferred.Score(node) }
}

func affinity(p *corev1.Pod) func(node *corev1.Node) int64 {
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
