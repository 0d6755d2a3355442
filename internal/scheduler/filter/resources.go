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
		if want > 0 && want > Left(n, name, i) && !ByDevices(p, n, name, i) {
			return false
		}
	}
	return true
}

// ByDevices says that node i has to give a pod an extended resource by devices, which is DynamicResources' affair: a class of devices stands for it, and
// the node has none of it by a plug-in.
func ByDevices(p *cluster.Pod, n *cluster.Nodes, name corev1.ResourceName, i int) bool {
	return slices.Contains(p.Backed, name) && (n.Extended[name] == nil || n.Extended[name].Allocatable[i] <= 0)
}

// nodeResourcesFit compares what a pod requests with what a node has left. All that is missing is told, not only the first. Nodes that lack the same share
// a refusal, of which a class keeps one a node.
func nodeResourcesFit(p *cluster.Pod, n *cluster.Nodes) Check {
	type lack struct {
		missing uint64 // bits: the basic resources, then the extended ones by name
		final   bool
	}
	known, names := map[lack]*Refusal{}, slices.Sorted(maps.Keys(p.Extended))
	return func(i int) *Refusal {
		if HasRoom(p, n, i) {
			return nil
		}
		var of lack
		each(p, n, i, nil, names, func(k int, asked, _, allocatable int64) {
			of.missing |= 1 << min(k, 63)
			of.final = of.final || hopeless(k, asked, allocatable)
		})
		refusal := known[of]
		if refusal == nil || of.missing>>63 != 0 {
			refusal = refused(Lacks(p, n, i))
			known[of] = refusal
		}
		return refusal
	}
}

// Freed is what pods of a node that are imagined away give back.
type Freed struct {
	Basic    [cluster.Basic]int64
	Extended map[corev1.ResourceName]int64
}

// Add counts a pod as gone, or with the sign -1 as there again.
func (f *Freed) Add(p *cluster.Pod, sign int64) {
	for r, q := range p.Requests {
		f.Basic[r] += sign * q
	}
	if len(p.Extended) > 0 && f.Extended == nil {
		f.Extended = map[corev1.ResourceName]int64{}
	}
	for name, q := range p.Extended {
		f.Extended[name] += sign * q
	}
}

// RoomWithout says what node i lacks for a pod even with what was freed; nil if nothing.
func RoomWithout(p *cluster.Pod, n *cluster.Nodes, i int, freed *Freed) *Refusal {
	if list := lacks(p, n, i, freed); len(list) > 0 {
		return refused(list)
	}
	return nil
}

// refused is for all that a node lacks.
func refused(list []Lack) *Refusal {
	r := &Refusal{}
	for _, l := range list {
		r.Reasons, r.Final = append(r.Reasons, l.reason), r.Final || l.final
	}
	return r
}

// hopeless says that it would not help if all pods left the node; that there are too many of them never is so, not even where none may be. k is as each tells it.
func hopeless(k int, asked, allocatable int64) bool {
	return asked > allocatable && (k >= len(order) || order[k] != cluster.Pods)
}

// each tells of what node i has not enough of for a pod, also with what was freed, if that isn't nil: k is its place in order, or among the names after that.
func each(p *cluster.Pod, n *cluster.Nodes, i int, freed *Freed, names []corev1.ResourceName, tell func(k int, asked, free, allocatable int64)) {
	if freed == nil {
		freed = &Freed{}
	}
	for k, r := range order {
		if want, free := p.Requests[r], n.Allocatable[r][i]-n.Requested[r][i]+freed.Basic[r]; want > 0 && want > free {
			tell(k, want, free, n.Allocatable[r][i])
		}
	}
	for k, name := range names {
		want, free := p.Extended[name], Left(n, name, i)+freed.Extended[name]
		if want <= 0 || want <= free || ByDevices(p, n, name, i) {
			continue
		}
		allocatable := int64(0)
		if column := n.Extended[name]; column != nil {
			allocatable = column.Allocatable[i]
		}
		tell(len(order)+k, want, free, allocatable)
	}
}

// Lack is a resource of which a node has not enough left: CPU in milli, all else in whole units.
type Lack struct {
	Name                     corev1.ResourceName
	Asked, Free, Allocatable int64
	reason                   string
	final                    bool
}

// Lacks is what node i has not enough of for a pod, in the order in which it is told.
func Lacks(p *cluster.Pod, n *cluster.Nodes, i int) []Lack { return lacks(p, n, i, nil) }

func lacks(p *cluster.Pod, n *cluster.Nodes, i int, freed *Freed) (list []Lack) {
	names := slices.Sorted(maps.Keys(p.Extended))
	each(p, n, i, freed, names, func(k int, asked, free, allocatable int64) {
		l := Lack{Asked: asked, Free: free, Allocatable: allocatable, final: hopeless(k, asked, allocatable)}
		if k < len(order) {
			l.Name, l.reason = Names[order[k]], insufficient[order[k]]
		} else {
			l.Name = names[k-len(order)]
			l.reason = "Insufficient " + string(l.Name)
		}
		list = append(list, l)
	})
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
