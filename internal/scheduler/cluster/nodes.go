// Package cluster is the scheduler's picture of the nodes, in columns: one slice a quantity, indexed by node, so that a filter or score
// runs along memory instead of chasing objects.
//
// Invariants: a node keeps its index as long as it exists; requested is the sum over exactly the pods in the book; a pod is in the book once,
// on one node. It is changed by events and assumptions, never rebuilt, and only by the scheduler's own goroutine.
package cluster

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Resources every node has.
const (
	CPU = iota // milli
	Memory
	Ephemeral
	Pods
	Basic
)

// Nodes are the columns.
type Nodes struct {
	Node        []*corev1.Node      // immutable; nil: the index is free, or only pods are known
	Allocatable [Basic][]int64      // by resource, then node
	Requested   [Basic][]int64      // likewise
	Estimated   [Memory + 1][]int64 // requested CPU and memory, with a guess for pods that request none
	Ports       []map[Port]int      // host ports in use, and by how many pods
	Images      []map[string]int64  // sizes by name
	Extended    map[corev1.ResourceName]*Column

	index  map[string]int
	free   []int
	count  int
	book   map[types.UID]placed
	owners map[types.UID]map[int]int // pods by owner and node
	having map[string]int            // nodes by image
}

// Column is one more resource.
type Column struct{ Allocatable, Requested []int64 }

type placed struct {
	pod  *Pod
	node int
}

// Change is a set of facts that changed, by which waiting pods are chosen for another try.
type Change uint

// What may change.
const (
	Added       Change = 1 << iota // a node
	Capacity                       // allocatable
	Labels                         // of a node
	Taints                         // of a node
	Schedulable                    // spec.unschedulable
	Freed                          // a pod left a node
)

// New returns an empty picture.
func New() *Nodes {
	return &Nodes{
		Extended: map[corev1.ResourceName]*Column{}, index: map[string]int{}, book: map[types.UID]placed{},
		owners: map[types.UID]map[int]int{}, having: map[string]int{},
	}
}

// Len is one more than the highest index in use.
func (n *Nodes) Len() int { return len(n.Node) }

// Count is how many nodes there are.
func (n *Nodes) Count() int { return n.count }

// Index finds a node.
func (n *Nodes) Index(name string) (int, bool) {
	i, ok := n.index[name]
	return i, ok
}

// slot returns a node's index, making one for a node not seen yet: pods may be seen before their node.
func (n *Nodes) slot(name string) int {
	if i, ok := n.index[name]; ok {
		return i
	}
	i := len(n.Node)
	if last := len(n.free) - 1; last >= 0 {
		i = n.free[last]
		n.free = n.free[:last]
	} else {
		n.Node = append(n.Node, nil)
		n.Ports = append(n.Ports, nil)
		n.Images = append(n.Images, nil)
		for r := range n.Allocatable {
			n.Allocatable[r] = append(n.Allocatable[r], 0)
			n.Requested[r] = append(n.Requested[r], 0)
		}
		for r := range n.Estimated {
			n.Estimated[r] = append(n.Estimated[r], 0)
		}
		for _, c := range n.Extended {
			c.Allocatable, c.Requested = append(c.Allocatable, 0), append(c.Requested, 0)
		}
	}
	n.index[name] = i
	return i
}

func (n *Nodes) extended(name corev1.ResourceName) *Column {
	c := n.Extended[name]
	if c == nil {
		c = &Column{Allocatable: make([]int64, len(n.Node)), Requested: make([]int64, len(n.Node))}
		n.Extended[name] = c
	}
	return c
}

// Set takes a node in and says what changed about it that could let a pod in.
func (n *Nodes) Set(node *corev1.Node) Change {
	i := n.slot(node.Name)
	old := n.Node[i]
	n.Node[i] = node
	changed := differences(old, node)
	if old == nil {
		n.count++
	}
	if changed&(Added|Capacity) != 0 {
		n.setAllocatable(i, node.Status.Allocatable)
	}
	n.setImages(i, old, node)
	return changed
}

func differences(old, node *corev1.Node) (changed Change) {
	if old == nil {
		return Added
	}
	if !maps.EqualFunc(old.Status.Allocatable, node.Status.Allocatable, func(a, b resourceQuantity) bool { return a.Cmp(b) == 0 }) {
		changed |= Capacity
	}
	if !maps.Equal(old.Labels, node.Labels) {
		changed |= Labels
	}
	if !slices.EqualFunc(old.Spec.Taints, node.Spec.Taints, func(a, b corev1.Taint) bool { return a.MatchTaint(&b) && a.Value == b.Value }) {
		changed |= Taints
	}
	if old.Spec.Unschedulable != node.Spec.Unschedulable {
		changed |= Schedulable
	}
	return changed
}

func (n *Nodes) setAllocatable(i int, list corev1.ResourceList) {
	for r := range n.Allocatable {
		n.Allocatable[r][i] = 0
	}
	for _, c := range n.Extended {
		c.Allocatable[i] = 0
	}
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			n.Allocatable[CPU][i] = q.MilliValue()
		case corev1.ResourceMemory:
			n.Allocatable[Memory][i] = q.Value()
		case corev1.ResourceEphemeralStorage:
			n.Allocatable[Ephemeral][i] = q.Value()
		case corev1.ResourcePods:
			n.Allocatable[Pods][i] = q.Value()
		default:
			n.extended(name).Allocatable[i] = q.Value()
		}
	}
}

func (n *Nodes) setImages(i int, old, node *corev1.Node) {
	if old != nil && slices.EqualFunc(old.Status.Images, node.Status.Images, func(a, b corev1.ContainerImage) bool {
		return a.SizeBytes == b.SizeBytes && slices.Equal(a.Names, b.Names)
	}) {
		return
	}
	n.dropImages(i)
	images := make(map[string]int64, len(node.Status.Images))
	for _, image := range node.Status.Images {
		for _, name := range image.Names {
			images[name] = image.SizeBytes
		}
	}
	for name := range images {
		n.having[name]++
	}
	n.Images[i] = images
}

func (n *Nodes) dropImages(i int) {
	for name := range n.Images[i] {
		if n.having[name]--; n.having[name] <= 0 {
			delete(n.having, name)
		}
	}
	n.Images[i] = nil
}

// Having is how many nodes hold an image.
func (n *Nodes) Having(image string) int { return n.having[image] }

// Remove takes a node out. Its index is reused once its pods are gone too.
func (n *Nodes) Remove(name string) {
	i, ok := n.index[name]
	if !ok || n.Node[i] == nil {
		return
	}
	n.Node[i] = nil
	n.count--
	n.setAllocatable(i, nil)
	n.dropImages(i)
	n.release(i, name)
}

func (n *Nodes) release(i int, name string) {
	if n.Node[i] == nil && n.Requested[Pods][i] == 0 {
		delete(n.index, name)
		n.free = append(n.free, i)
	}
}
