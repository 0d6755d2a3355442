package filter

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var insufficient = [cluster.Basic]string{
	cluster.CPU: "Insufficient cpu", cluster.Memory: "Insufficient memory", cluster.Ephemeral: "Insufficient ephemeral-storage",
	cluster.Pods: "Too many pods",
}

// order in which upstream names what is missing.
var order = [...]int{cluster.Pods, cluster.CPU, cluster.Memory, cluster.Ephemeral}

// nodeResourcesFit compares what a pod requests with what a node has left. All that is missing is told, not only the first.
func nodeResourcesFit(p *cluster.Pod, n *cluster.Nodes) Check {
	names := slices.Sorted(maps.Keys(p.Extended))
	return func(i int) (reasons []string) {
		for _, r := range order {
			if want := p.Requests[r]; want > 0 && want > n.Allocatable[r][i]-n.Requested[r][i] {
				reasons = append(reasons, insufficient[r])
			}
		}
		for _, name := range names {
			if want := p.Extended[name]; want > 0 && want > left(n, name, i) {
				reasons = append(reasons, "Insufficient "+string(name))
			}
		}
		return reasons
	}
}

func left(n *cluster.Nodes, name corev1.ResourceName, i int) int64 {
	column := n.Extended[name]
	if column == nil {
		return 0
	}
	return column.Allocatable[i] - column.Requested[i]
}
