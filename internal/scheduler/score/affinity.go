package score

import (
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// nodeAffinity sums the weights of the preferred terms a node meets.
func nodeAffinity(p *cluster.Pod, n *cluster.Nodes, nodes []int) []int64 {
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil ||
		len(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nil
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return nil // a preference that cannot be read binds nobody
	}
	raw := make([]int64, len(nodes))
	for k, i := range nodes {
		raw[k] = terms.Score(n.Node[i])
	}
	return scale(raw, false)
}
