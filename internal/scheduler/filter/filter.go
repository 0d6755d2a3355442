// Package filter says on which nodes a pod may run. Each plug-in is a file, bears upstream's name, and gives upstream's reason.
//
// A plug-in is prepared once a pod: what it works out there is not worked out again for every node. Plug-ins read the columns and change
// nothing.
package filter

import (
	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Check says why node i won't do, nil if it will. The slice is shared: not to be changed.
type Check func(i int) (reasons []string)

// Plugin is one filter.
type Plugin struct {
	Name string
	// Prepare returns the check for a pod, nil if every node will do.
	Prepare func(p *cluster.Pod, n *cluster.Nodes) Check
	// Helps are the changes after which a node this plug-in refused might do.
	Helps cluster.Change
}

// Plugins in upstream's order; the first that refuses a node gives the reason.
var Plugins = []Plugin{
	{"NodeUnschedulable", nodeUnschedulable, cluster.Added | cluster.Schedulable},
	{"NodeName", nodeName, cluster.Added},
	{"TaintToleration", taintToleration, cluster.Added | cluster.Taints},
	{"NodeAffinity", nodeAffinity, cluster.Added | cluster.Labels},
	{"NodePorts", nodePorts, cluster.Added | cluster.Freed},
	{"NodeResourcesFit", nodeResourcesFit, cluster.Added | cluster.Capacity | cluster.Freed},
}

// Result of filtering.
type Result struct {
	Feasible []int          // indexes
	Reasons  map[string]int // why the others won't do, and how many nodes each
	Refused  cluster.Change // what might help
}

// Run filters all nodes; feasible is memory to reuse.
func Run(p *cluster.Pod, n *cluster.Nodes, feasible []int) Result {
	type prepared struct {
		check Check
		helps cluster.Change
	}
	checks := make([]prepared, 0, len(Plugins))
	for _, plugin := range Plugins {
		if check := plugin.Prepare(p, n); check != nil {
			checks = append(checks, prepared{check, plugin.Helps})
		}
	}
	result := Result{Feasible: feasible[:0], Refused: cluster.Added}
nodes:
	for i := range n.Len() {
		if n.Node[i] == nil {
			continue
		}
		for _, c := range checks {
			reasons := c.check(i)
			if reasons == nil {
				continue
			}
			if result.Reasons == nil {
				result.Reasons = map[string]int{}
			}
			for _, reason := range reasons {
				result.Reasons[reason]++
			}
			result.Refused |= c.helps
			continue nodes
		}
		result.Feasible = append(result.Feasible, i)
	}
	return result
}
