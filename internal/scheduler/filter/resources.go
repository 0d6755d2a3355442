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

// Names of the basic resources.
var Names = [cluster.Basic]corev1.ResourceName{
	cluster.CPU: corev1.ResourceCPU, cluster.Memory: corev1.ResourceMemory, cluster.Ephemeral: corev1.ResourceEphemeralStorage,
	cluster.Pods: corev1.ResourcePods,
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
	return func(i int) *Refusal {
		if HasRoom(p, n, i) {
			return nil
		}
		refusal := &Refusal{}
		for _, l := range Lacks(p, n, i) {
			refusal.Reasons = append(refusal.Reasons, l.reason)
			refusal.Final = refusal.Final || l.Asked > l.Allocatable
		}
		return refusal
	}
}

// Lack is a resource of which a node has not enough left: CPU in milli, all else in whole units.
type Lack struct {
	Name                     corev1.ResourceName
	Asked, Free, Allocatable int64
	reason                   string
}

// Lacks is what node i has not enough of for a pod, in the order in which it is told.
func Lacks(p *cluster.Pod, n *cluster.Nodes, i int) (list []Lack) {
	for _, r := range order {
		if want, free := p.Requests[r], n.Allocatable[r][i]-n.Requested[r][i]; want > 0 && want > free {
			list = append(list, Lack{Names[r], want, free, n.Allocatable[r][i], insufficient[r]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Extended)) {
		if want, free := p.Extended[name], Left(n, name, i); want > 0 && want > free {
			allocatable := int64(0)
			if column := n.Extended[name]; column != nil {
				allocatable = column.Allocatable[i]
			}
			list = append(list, Lack{name, want, free, allocatable, "Insufficient " + string(name)})
		}
	}
	return list
}

// Left is what node i has left of an extended resource.
func Left(n *cluster.Nodes, name corev1.ResourceName, i int) int64 {
	column := n.Extended[name]
	if column == nil {
		return 0
	}
	return column.Allocatable[i] - column.Requested[i]
}
