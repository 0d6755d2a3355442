// Package class knows, for every class of pods, on which nodes they may run and which is best.
//
// Pods that are alike for every rule form a class. What a class found out about the nodes is kept, and repaired for those that changed since
// (package cluster tells which), so the next pod of a ReplicaSet costs what has changed and not what there is. Nodes are kept in groups: those
// of one group differ for the class in nothing but their load, so that rules about domains are decided, and figures compared among
// all feasible nodes, once a group; within a group a heap has the best node on top.
//
// Invariant: after repair, facts, groups and counts are what a class built from nothing would have. Only the scheduler's own goroutine uses it.
package class

import (
	"encoding/binary"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
	"skiff.dev/skiff/internal/scheduler/profile"
	"skiff.dev/skiff/internal/scheduler/score"
)

// What is known of a node: bit k+1 says that static filter k lets it pass. Spreading asks by which nodes it counts also where a profile has that filter off.
const (
	present   = uint8(1)
	tolerated = uint8(2 << filter.Taints)
	affine    = uint8(2 << filter.Affinity)
	everyFact = uint8(2<<len(filter.Static) - 1)
)

// Class is all pods that are alike as far as nodes are concerned.
type Class struct {
	Dead bool // given up; its pods have to be classed again

	nodes  *cluster.Nodes
	pod    *cluster.Pod // one of them
	scale  *profile.Weights
	bound  bool // to the nodes in only, by name
	only   []int
	must   uint8 // the facts without which a node won't do: those of the plug-ins that the profile runs
	static [len(filter.Static)]filter.Check
	load   [len(filter.Load)]filter.Check
	last   filter.Check
	prefer func(i int) int64 // node affinity's preference
	stored func(i int) int64 // what storage a node has for the pod's claims is worth
	images []string

	axes                            []*axis
	hard, soft                      []spread
	together, apart, shunned, likes []*axis
	every, selfAffine               bool
	topologies                      []*cluster.Topology
	flips                           uint64
	counters                        []*cluster.Counter
	terms                           []*cluster.Term
	key                             string
	used                            uint64
	seen                            uint64
	built                           bool
	parts                           int // of a group's key
	buffer                          []int64
	text                            []byte
	feasible                        []*group
	mark                            uint32
	*columns
	verdict   *Verdict // as of verdictAt
	verdictAt uint64
	tally     tally
}

// columns are indexed by node.
type columns struct {
	facts  []uint8
	kind   []int32
	rank   []uint64
	in     []*group // nil: the node alone won't do
	at     []int32  // position in the group's heap
	kinds  [][]int64
	known  map[string]int32 // kinds
	plain  int32            // the kind that is nothing special; -1 while no node is of it
	groups map[string]*group
	list   []*group
}

func (c *columns) clear(size int) {
	c.facts, c.kind, c.rank, c.in, c.at = resized(c.facts, size), resized(c.kind, size), resized(c.rank, size), resized(c.in, size), resized(c.at, size)
	clear(c.facts)
	clear(c.in)
	c.kinds, c.list = c.kinds[:0], c.list[:0]
	c.plain = -1
	c.known, c.groups = map[string]int32{}, map[string]*group{}
}

func (c *columns) grow(size int) {
	was := len(c.facts)
	c.facts, c.kind, c.rank, c.in, c.at = resized(c.facts, size), resized(c.kind, size), resized(c.rank, size), resized(c.in, size), resized(c.at, size)
	clear(c.facts[was:])
	clear(c.in[was:])
}

func newClass(p *cluster.Pod, n *cluster.Nodes) *Class {
	c := &Class{nodes: n, pod: p, scale: p.Profile.Scale(), must: everyFact}
	if c.scale.ImageLocality > 0 {
		c.images = score.Images(p.Pod)
	}
	for k := range filter.Static {
		runs := p.Profile.Runs(filter.Static[k].Name)
		if !runs {
			c.must &^= 2 << k
		}
		if runs || k == filter.Taints || k == filter.Affinity {
			c.static[k] = filter.Static[k].Prepare(p, n)
		}
	}
	if p.Profile.Runs(filter.Last.Name) {
		c.last = filter.Last.Prepare(p, n)
	}
	for k := range filter.Load {
		if p.Profile.Runs(filter.Load[k].Name) {
			c.load[k] = filter.Load[k].Prepare(p, n)
		}
	}
	if prefer := score.Affinity(p); prefer != nil && c.scale.NodeAffinity > 0 {
		c.prefer = func(i int) int64 { return prefer(n.Node[i]) }
	}
	if c.scale.VolumeBinding > 0 {
		c.stored = score.Storage(p, n)
	}
	return c
}

// Independent says that whether a node will do depends on that node alone.
func (c *Class) Independent() bool { return len(c.axes) == 0 && !c.bound && c.pod.Volumes == nil }

// Repair brings the class up to date with the nodes.
func (c *Class) Repair() {
	if c.built && c.currentFlips() == c.flips {
		if changes, ok := c.nodes.Since(c.seen); ok {
			if c.nodes.Len() > len(c.facts) {
				c.growAll()
			}
			for _, ch := range changes {
				c.update(int(ch.Node), ch.Object)
			}
			c.seen = c.nodes.Now()
			return
		}
	}
	c.build()
}

func (c *Class) currentFlips() (sum uint64) {
	for _, t := range c.topologies {
		sum += t.Flips
	}
	return sum
}

func (c *Class) growAll() {
	was := len(c.facts)
	c.grow(c.nodes.Len())
	for _, a := range c.axes {
		a.at, a.where = resized(a.at, c.nodes.Len()), resized(a.where, c.nodes.Len())
		for i := was; i < len(a.at); i++ {
			a.at[i], a.where[i] = 0, cluster.NoDomain
		}
	}
}

// build finds everything out from nothing.
func (c *Class) build() {
	size := c.nodes.Len()
	c.clear(size)
	for _, a := range c.axes {
		a.reset(size)
	}
	c.arrange()
	for i := range size {
		c.update(i, true)
	}
	c.built, c.seen, c.flips, c.verdict, c.tally.known = true, c.nodes.Now(), c.currentFlips(), nil, false
}

// arrange decides what the parts of a group's key are: the kind, a domain for each topology that nodes share, a value for each axis otherwise.
func (c *Class) arrange() {
	c.parts = 1
	shared := map[string]int{}
	for _, a := range c.axes {
		if !a.direct {
			if part, there := shared[a.topology.Key]; there {
				a.part = part
				continue
			}
			shared[a.topology.Key] = c.parts
		}
		a.part = c.parts
		c.parts++
	}
	c.buffer = resized(c.buffer, c.parts)
}

// update finds out anew what there is to know about node i; object says that the node itself changed.
func (c *Class) update(i int, object bool) {
	if object {
		c.examine(i)
	}
	for _, a := range c.axes {
		a.update(i, c.facts[i])
	}
	if !c.passes(i) || !c.loadable(i) {
		c.leave(i)
		return
	}
	better := rank(score.Load(c.pod, c.nodes, i), c.nodes.Touched[i])
	key := c.buffer
	key[0] = int64(c.kind[i])
	for _, a := range c.axes {
		key[a.part] = a.keyPart(i)
	}
	if g := c.in[i]; g != nil && slices.Equal(g.key, key) {
		c.rank[i] = better
		c.fix(g, int(c.at[i]))
		return
	}
	c.leave(i)
	c.rank[i] = better
	c.join(i, key)
}

// passes says that no static filter has anything against node i.
func (c *Class) passes(i int) bool { return c.facts[i]&c.must == c.must }

func (c *Class) loadable(i int) bool {
	if ports := c.load[filter.Ports]; ports != nil && ports(i) != nil {
		return false
	}
	return (c.load[filter.Room] == nil || filter.HasRoom(c.pod, c.nodes, i)) && (c.pod.Volumes == nil || filter.VolumesWithout(c.pod, c.nodes, i, nil) == nil)
}

// examine looks at the node alone.
func (c *Class) examine(i int) {
	node := c.nodes.Node[i]
	if node == nil {
		c.facts[i] = 0
		return
	}
	facts := present
	marked := c.nodes.Marked[i]
	for k, check := range c.static {
		if check == nil || !marked && (k == filter.Unschedulable || k == filter.Taints) || check(i) == nil {
			facts |= 2 << k
		}
	}
	c.facts[i] = facts
	if c.passes(i) {
		c.kind[i] = c.kindOf(i, node)
	}
}

// What the numbers of a kind are; those of images follow.
const (
	kindTaints = iota
	kindPreference
	kindStorage
	kindUndeclared // 1 where the node lacks a feature
	kindImages
)

// kindOf numbers what makes a node good by itself. Nodes without taints and images, which nothing prefers, are all of one kind.
func (c *Class) kindOf(i int, node *corev1.Node) int32 {
	if c.plain >= 0 && !c.nodes.Marked[i] && c.prefer == nil && c.stored == nil && c.last == nil && len(c.nodes.Images[i]) == 0 {
		return c.plain
	}
	kind := make([]int64, kindImages, kindImages+len(c.images))
	kind[kindTaints] = score.Taints(c.pod.Spec.Tolerations, node)
	if c.prefer != nil {
		kind[kindPreference] = c.prefer(i)
	}
	if c.stored != nil {
		kind[kindStorage] = c.stored(i)
	}
	if c.last != nil && c.last(i) != nil {
		kind[kindUndeclared] = 1
	}
	for _, image := range c.images {
		kind = append(kind, c.nodes.Images[i][image])
	}
	c.write(kind)
	number, known := c.known[string(c.text)]
	if !known {
		number = int32(len(c.kinds))
		c.known[string(c.text)] = number
		c.kinds = append(c.kinds, kind)
	}
	if !slices.ContainsFunc(kind, func(v int64) bool { return v != 0 }) {
		c.plain = number
	}
	return number
}

// write puts numbers into text, as the key of a map.
func (c *Class) write(numbers []int64) {
	c.text = c.text[:0]
	for _, v := range numbers {
		c.text = binary.LittleEndian.AppendUint64(c.text, uint64(v))
	}
}

// release gives back what the class had counted for it.
func (c *Class) release() {
	c.Dead = true
	for _, counter := range c.counters {
		c.nodes.Uncount(counter)
	}
	for _, t := range c.terms {
		c.nodes.Drop(t)
	}
	for _, t := range c.topologies {
		c.nodes.Release(t)
	}
}
