package score

import (
	"math"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Load is the weighted score of node i by what runs there.
func Load(p *cluster.Pod, n *cluster.Nodes, i int) int64 {
	if p.Profile != nil {
		return loadBy(p.Profile, p, n, i)
	}
	return leastAllocated(p, n, i) + balancedAllocation(p, n, i) // upstream's weights are one
}

// leastAllocated prefers nodes with much left of CPU and memory after the pod is there.
func leastAllocated(p *cluster.Pod, n *cluster.Nodes, i int) int64 {
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
	if kinds == 0 {
		return 0
	}
	return sum / kinds
}

// balancedAllocation prefers nodes whose CPU and memory would be used to the same degree, so that neither is left without the other. It has
// no opinion about pods that request nothing, or they would all go to one node.
func balancedAllocation(p *cluster.Pod, n *cluster.Nodes, i int) int64 {
	if p.Requests[cluster.CPU] == 0 && p.Requests[cluster.Memory] == 0 {
		return 0
	}
	cpu, memory := n.Allocatable[cluster.CPU][i], n.Allocatable[cluster.Memory][i]
	if cpu == 0 || memory == 0 {
		return Best
	}
	c := min(1, float64(n.Requested[cluster.CPU][i]+p.Requests[cluster.CPU])/float64(cpu))
	m := min(1, float64(n.Requested[cluster.Memory][i]+p.Requests[cluster.Memory])/float64(memory))
	return int64((1 - math.Abs(c-m)/2) * Best)
}
