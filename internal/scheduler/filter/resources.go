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

// HasRoom says whether node i has left what a pod requests.
func HasRoom(p *cluster.Pod, n *cluster.Nodes, i int) bool {
	for r, want := range p.Requests {
		if want > 0 && want > n.Allocatable[r][i]-n.Requested[r][i] {
			return false
		}
	}
	for name, want := range p.Extended {
		if want > 0 && want > Left(n, name, i) {
			return false
		}
	}
	return true
}

// nodeResourcesFit compares what a pod requests with what a node has left. All that is missing is told, not only the first.
func nodeResourcesFit(p *cluster.Pod, n *cluster.Nodes) Check {
	names := slices.Sorted(maps.Keys(p.Extended))
	return func(i int) *Refusal {
		if HasRoom(p, n, i) {
			return nil
		}
		refusal := &Refusal{}
		for _, r := range order {
			if want := p.Requests[r]; want > 0 && want > n.Allocatable[r][i]-n.Requested[r][i] {
				refusal.Reasons = append(refusal.Reasons, insufficient[r])
				refusal.Final = refusal.Final || want > n.Allocatable[r][i]
			}
		}
		for _, name := range names {
			if want := p.Extended[name]; want > 0 && want > Left(n, name, i) {
				refusal.Reasons = append(refusal.Reasons, "Insufficient "+string(name))
				refusal.Final = refusal.Final || n.Extended[name] == nil || want > n.Extended[name].Allocatable[i]
			}
		}
		return refusal
	}
}

// Left is what node i has left of an extended resource.
func Left(n *cluster.Nodes, name corev1.ResourceName, i int) int64 {
	column := n.Extended[name]
	if column == nil {
		return 0
	}
	return column.Allocatable[i] - column.Requested[i]
}
