package score

import (
	"math"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// leastAllocated prefers nodes with much left of CPU and memory after the pod is there.
func leastAllocated(p *cluster.Pod, n *cluster.Nodes, nodes []int) []int64 {
	scores := make([]int64, len(nodes))
	for k, i := range nodes {
		sum, kinds := int64(0), int64(0)
		for r := range n.Estimated {
			capacity := n.Allocatable[r][i]
			if capacity == 0 {
				continue
			}
			kinds++
			if used := n.Estimated[r][i] + p.Estimate[r]; used <= capacity {
				sum += (capacity - used) * Best / capacity
			}
		}
		if kinds > 0 {
			scores[k] = sum / kinds
		}
	}
	return scores
}

// balancedAllocation prefers nodes whose CPU and memory would be used to the same degree, so that neither is left without the other.
func balancedAllocation(p *cluster.Pod, n *cluster.Nodes, nodes []int) []int64 {
	scores := make([]int64, len(nodes))
	for k, i := range nodes {
		fraction := func(r int) float64 {
			if n.Allocatable[r][i] == 0 {
				return 1
			}
			return math.Min(1, float64(n.Requested[r][i]+p.Requests[r])/float64(n.Allocatable[r][i]))
		}
		deviation := math.Abs(fraction(cluster.CPU)-fraction(cluster.Memory)) / 2
		scores[k] = int64((1 - deviation) * Best)
	}
	return scores
}
