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

	AttachLimits map[string]map[string]int // by node, then driver: those that are installed

	On      [][]*Pod // the pods on a node, in no order
	Marked  []bool   // the node is cordoned or has taints
	Touched []uint64 // when a node changed last, by the history's clock

	index      map[string]int
	names      []string
	free       []int
	count      int
	book       map[types.UID]placed
	having     map[string]int // nodes by image
	priorities map[int32]int  // placed pods by priority

	history
	topologies map[string]*Topology
	counters   map[string]*Counter
	terms      map[string]*Term
	sets       map[string]*LabelSet
	spaces     map[string]*space
	serial     uint64
	claims     map[string][]*Pod  // placed pods by claim
	attached   map[Attachment]int // by how many placed pods, and VolumeAttachments
	told       map[string]map[string]Attachment
	sweepAt    int
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
	Images                         // of a node
	Freed                          // a pod left a node
	Joined                         // a pod came to a node, or its labels changed
	Spaces                         // a namespace's labels
	Stored                         // a volume, a claim, or what they are made by
	Devices                        // a device, a resource claim, or a class of devices
	Features                       // that a node declares
	Mapped                         // what extended resources stand for
)

// Words names the changes of a set.
func (c Change) Words() (list []string) {
	for k, word := range [...]string{
		"a node is added", "a node's allocatable", "a node's labels", "a node's taints", "a node is uncordoned", "a node's images",
		"a pod leaves a node", "a pod comes to a node", "a namespace's labels",
		"a volume, a claim or a storage class", "a device, a resource claim or a device class",
		"a node's declared features",
		"a device class stands for an extended resource",
	} {
		if c&(1<<k) != 0 {
			list = append(list, word)
		}
	}
	return list
}

// Any is every change.
const Any = ^Change(0)

// New returns an empty picture.
func New() *Nodes {
	return &Nodes{
		Extended: map[corev1.ResourceName]*Column{}, index: map[string]int{}, book: map[types.UID]placed{},
		having: map[string]int{}, priorities: map[int32]int{}, topologies: map[string]*Topology{}, counters: map[string]*Counter{},
		terms: map[string]*Term{}, sets: map[string]*LabelSet{}, spaces: map[string]*space{}, sweepAt: 1024,
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
		n.names[i] = name
	} else {
		n.names = append(n.names, name)
		n.On = append(n.On, nil)
		n.Touched = append(n.Touched, 0)
		n.Marked = append(n.Marked, false)
		for _, t := range n.topologies {
			t.Of = append(t.Of, NoDomain)
		}
		for _, c := range n.counters {
			c.On = append(c.On, 0)
		}
		for _, t := range n.terms {
			t.On = append(t.On, 0)
		}
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
	n.Marked[i] = node.Spec.Unschedulable || len(node.Spec.Taints) > 0
	changed := differences(old, node)
	if old == nil {
		n.count++
	}
	if changed&(Added|Capacity) != 0 {
		n.setAllocatable(i, node.Status.Allocatable)
	}
	if n.setImages(i, old, node) {
		changed |= Images
	}
	if changed&(Added|Labels) != 0 {
		for _, t := range n.topologies {
			t.move(i, node)
		}
	}
	if changed != 0 {
		n.note(i, true)
	}
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
	if !slices.Equal(old.Status.DeclaredFeatures, node.Status.DeclaredFeatures) {
		changed |= Features
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

// setImages says whether the images differ.
func (n *Nodes) setImages(i int, old, node *corev1.Node) bool {
	if old != nil && slices.EqualFunc(old.Status.Images, node.Status.Images, func(a, b corev1.ContainerImage) bool {
		return a.SizeBytes == b.SizeBytes && slices.Equal(a.Names, b.Names)
	}) {
		return false
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
	return old != nil || len(images) > 0
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
	for _, t := range n.topologies {
		t.move(i, nil)
	}
	n.note(i, true)
	n.release(i)
}

// release gives an index free that neither a node nor a pod needs.
func (n *Nodes) release(i int) {
	if n.Node[i] == nil && len(n.On[i]) == 0 {
		delete(n.index, n.names[i])
		n.free = append(n.free, i)
	}
}

// Name of the node at an index, also while only its pods are known.
func (n *Nodes) Name(i int) string { return n.names[i] }
