package score

import "skiff.dev/skiff/internal/scheduler/cluster"

// ownerSpread prefers nodes with few pods of the same owner.
func ownerSpread(p *cluster.Pod, n *cluster.Nodes, nodes []int) []int64 {
	together := n.Together(p.Owner)
	if len(together) == 0 {
		return nil
	}
	raw := make([]int64, len(nodes))
	for k, i := range nodes {
		raw[k] = int64(together[i])
	}
	return scale(raw, true)
}
