package class

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

// A class takes memory for every node. The least used are given up when there are more than fewest and all together describe more than
// mostEntries nodes.
const (
	fewest      = 160
	mostEntries = 2_000_000
)

// Table finds the class of a pod.
type Table struct {
	nodes    *cluster.Nodes
	siblings func(*corev1.Pod) labels.Selector
	classes  map[string]*Class
	bound    *Class // the last one that was made for a pod bound by name; there is only one, on columns that are used again
	scratch  columns
	clock    uint64
	text     []byte
}

// NewTable returns a table without classes. siblings selects the pods that serve with a pod that has no spread constraints of its own, nil if
// there are none; when its answers change, cluster.Nodes.ForgetMemos is to be called.
func NewTable(n *cluster.Nodes, siblings func(*corev1.Pod) labels.Selector) *Table {
	return &Table{nodes: n, siblings: siblings, classes: map[string]*Class{}}
}

// Of returns the pod's class, repaired. A class that is bound by name is good until the next call only.
func (t *Table) Of(p *cluster.Pod) *Class {
	c := t.find(p)
	c.Repair()
	return c
}

func (t *Table) find(p *cluster.Pod) *Class {
	if names, bound := filter.Named(p); bound && p.Profile.Runs("NodeAffinity") {
		return t.ofBound(p, names)
	}
	t.clock++
	set := t.nodes.SetOf(p)
	t.text = appendSpec(t.text[:0], p)
	if c, known := set.Memo[string(t.text)].(*Class); known && !c.Dead {
		c.used = t.clock
		return c
	}
	var own []*cluster.Term // known before the plan is made: the pod's own terms may select it
	for r := range p.Rules {
		own = append(own, t.nodes.Term(&p.Rules[r]))
	}
	pl := planFor(p, set, t.nodes, t.siblings)
	pl.terms = t.withOwn(set, own)
	var b strings.Builder
	b.Write(t.text)
	pl.signature(&b)
	c := t.classes[b.String()]
	if c == nil {
		c = newClass(p, t.nodes)
		c.count(&pl)
		c.key = b.String()
		t.evict()
		t.classes[c.key] = c
		c.columns = &columns{}
	}
	for _, term := range own {
		t.nodes.Drop(term)
	}
	c.used = t.clock
	set.Memo[string(t.text)] = c
	return c
}

// withOwn are the terms that select a set's pods once the pod is placed that brings its own.
func (t *Table) withOwn(set *cluster.LabelSet, own []*cluster.Term) []*cluster.Term {
	var terms []*cluster.Term
	for _, term := range own {
		if !term.Active && t.nodes.Matches(&term.Matcher, set) {
			terms = append(terms, term)
		}
	}
	if len(terms) == 0 {
		return set.Terms
	}
	return slices.Compact(cluster.InOrder(append(terms, set.Terms...)))
}

// ofBound makes a class for one pod. If it has no rules about others, only the nodes it names are looked at, and the columns
// are cleared only where they were used: a DaemonSet's pods, one a node, must not cost all nodes each.
func (t *Table) ofBound(p *cluster.Pod, names []string) *Class {
	if t.bound != nil {
		t.bound.retire()
	}
	c := newClass(p, t.nodes)
	c.bound = true
	for _, name := range names {
		if i, known := t.nodes.Index(name); known && t.nodes.Node[i] != nil && !slices.Contains(c.only, i) {
			c.only = append(c.only, i)
		}
	}
	siblings := t.siblings
	if one := len(slices.Compact(names)) == 1; one && (p.Profile == nil || p.Profile.System) {
		siblings = nil // upstream's constraints keep nobody off, and there is nothing to choose
	}
	pl := planFor(p, t.nodes.SetOf(p), t.nodes, siblings)
	c.count(&pl)
	c.columns = &t.scratch
	if len(c.axes) == 0 {
		if c.groups == nil {
			c.clear(t.nodes.Len())
		}
		c.grow(t.nodes.Len())
		c.arrange()
		for _, i := range c.only {
			c.update(i, true)
		}
		c.built, c.seen = true, t.nodes.Now()
	}
	t.bound = c
	return c
}

// retire leaves the shared columns as if the class had not been.
func (c *Class) retire() {
	if len(c.axes) > 0 {
		c.clear(c.nodes.Len())
	}
	for _, i := range c.only {
		c.leave(i)
		c.facts[i] = 0
	}
	c.kinds, c.plain = c.kinds[:0], -1
	clear(c.known)
	c.release()
}

// evict gives up the class that was not used for longest if there are too many.
func (t *Table) evict() {
	if len(t.classes) < fewest || len(t.classes)*t.nodes.Len() < mostEntries {
		return
	}
	var oldest *Class
	for _, c := range t.classes {
		if oldest == nil || c.used < oldest.used {
			oldest = c
		}
	}
	delete(t.classes, oldest.key)
	oldest.release()
}

// appendSpec writes what of a pod's spec decides where it may go, so that equal texts are equal specs.
func appendSpec(b []byte, p *cluster.Pod) []byte {
	str := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	num := func(v int64) { b = binary.AppendVarint(b, v) }
	number := 0
	if p.Profile != nil {
		number = p.Profile.Number
	}
	num(int64(number))
	for _, q := range p.Requests {
		num(q)
	}
	for _, q := range p.Estimate {
		num(q)
	}
	amounts := func(list map[corev1.ResourceName]int64) {
		num(int64(len(list)))
		if len(list) == 0 {
			return // most; not even an iterator is made for them
		}
		for _, name := range slices.Sorted(maps.Keys(list)) {
			str(string(name))
			num(list[name])
		}
	}
	amounts(p.Extended)
	amounts(p.Ignored)
	num(int64(len(p.Backed)))
	for _, name := range p.Backed {
		str(string(name))
	}
	num(int64(len(p.Ports)))
	for _, port := range p.Ports {
		str(port.IP)
		str(string(port.Protocol))
		num(int64(port.Number))
	}
	num(int64(len(p.Features)))
	for _, name := range p.Features {
		str(name)
	}
	s := &p.Spec
	str(s.NodeName)
	num(int64(len(s.NodeSelector)))
	for _, key := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		str(key)
		str(s.NodeSelector[key])
	}
	num(int64(len(s.Tolerations)))
	for i := range s.Tolerations {
		t := &s.Tolerations[i]
		str(t.Key)
		str(string(t.Operator))
		str(t.Value)
		str(string(t.Effect)) // how long it is tolerated is the node life cycle's affair
	}
	encoded := func(m interface{ Marshal() ([]byte, error) }) {
		raw, err := m.Marshal()
		if err != nil { // it was decoded from this form
			panic(err)
		}
		str(string(raw))
	}
	if s.Affinity != nil {
		encoded(s.Affinity)
	}
	num(int64(len(s.TopologySpreadConstraints)))
	for i := range s.TopologySpreadConstraints {
		encoded(&s.TopologySpreadConstraints[i])
	}
	if len(s.TopologySpreadConstraints) == 0 {
		if owner := metav1.GetControllerOfNoCopy(p); owner != nil { // its selector makes the default constraints
			str(owner.Kind)
			str(owner.Name)
		}
	}
	if p.Volumes != nil {
		str(p.Volumes.Key)
	}
	num(int64(len(s.InitContainers)))
	for i := range s.InitContainers {
		str(s.InitContainers[i].Image)
	}
	for i := range s.Containers {
		str(s.Containers[i].Image)
	}
	for i := range s.Volumes {
		if image := s.Volumes[i].Image; image != nil {
			str(image.Reference)
		}
	}
	return b
}
