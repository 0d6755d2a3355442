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

// balancedAllocation prefers nodes of which the pod makes CPU and memory used to degrees that are more alike, so that neither is left without the other. It has
// no opinion about pods that request nothing, or they would all go to one node.
func balancedAllocation(p *cluster.Pod, n *cluster.Nodes, i int) int64 {
	if p.Requests[cluster.CPU] == 0 && p.Requests[cluster.Memory] == 0 {
		return 0
	}
	cpu, memory := n.Allocatable[cluster.CPU][i], n.Allocatable[cluster.Memory][i]
	if cpu == 0 || memory == 0 {
		return improved(Best, Best)
	}
	even := func(c, m int64) int64 { return balance(degree(c, cpu) - degree(m, memory)) }
	c, m := n.Requested[cluster.CPU][i], n.Requested[cluster.Memory][i]
	return improved(even(c, m), even(c+p.Requests[cluster.CPU], m+p.Requests[cluster.Memory]))
}

// degree is how much of a capacity is used, 1 at most.
func degree(used, capacity int64) float64 { return min(1, float64(used)/float64(capacity)) }

// balance is the score of two degrees that differ by so much: each deviates by half of that from what is between them.
func balance(difference float64) int64 { return int64((1 - math.Abs(difference)/2) * Best) }

// improved is the score of a node that gets as evenly used as now from as before: three quarters of the best where that makes no difference.
func improved(before, now int64) int64 { return Best/2 + (Best/2+now-before)/2 }
