// Package score says which of the feasible nodes is best for a pod. Each plug-in is a file, bears upstream's name and gives every node 0 to
// 100; the weighted sum decides. Plug-ins read the columns and change nothing.
package score

import "skiff.dev/skiff/internal/scheduler/cluster"

// Best is what a plug-in gives at most.
const Best = 100

// Plugin is one opinion.
type Plugin struct {
	Name   string
	Weight int64
	// Score adds nothing to nodes of which it has no opinion: it may return nil for none at all. scores[k] belongs to nodes[k].
	Score func(p *cluster.Pod, n *cluster.Nodes, nodes []int) (scores []int64)
}

// Plugins with upstream's weights. OwnerSpread stands where upstream spreads by default constraints.
var Plugins = []Plugin{
	{"TaintToleration", 3, taintToleration},
	{"NodeAffinity", 2, nodeAffinity},
	{"NodeResourcesFit", 1, leastAllocated},
	{"NodeResourcesBalancedAllocation", 1, balancedAllocation},
	{"ImageLocality", 1, imageLocality},
	{"OwnerSpread", 2, ownerSpread},
}

// Choose returns the best of nodes, which must not be empty. Equals are taken in turn: the search starts at another place each time.
func Choose(p *cluster.Pod, n *cluster.Nodes, nodes []int, turn int) int {
	if len(nodes) == 1 {
		return nodes[0]
	}
	total := make([]int64, len(nodes))
	for _, plugin := range Plugins {
		for k, s := range plugin.Score(p, n, nodes) {
			total[k] += s * plugin.Weight
		}
	}
	best := turn % len(nodes)
	for step := range nodes {
		if k := (turn + step) % len(nodes); total[k] > total[best] {
			best = k
		}
	}
	return nodes[best]
}

// scale brings raw values to 0 … Best, the highest to Best; if reverse, the highest to 0.
func scale(raw []int64, reverse bool) []int64 {
	highest := int64(0)
	for _, v := range raw {
		highest = max(highest, v)
	}
	if highest == 0 {
		return nil // all alike: no opinion
	}
	for k, v := range raw {
		raw[k] = v * Best / highest
		if reverse {
			raw[k] = Best - raw[k]
		}
	}
	return raw
}
