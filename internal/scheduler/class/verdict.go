package class

import (
	"maps"
	"slices"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

// rule is why a rule about other pods refuses a node, and what might help.
type rule struct {
	filter.Refusal
	helps cluster.Change
}

const others = cluster.Added | cluster.Labels | cluster.Taints | cluster.Freed | cluster.Joined | cluster.Spaces

var (
	unlabelled = &rule{filter.Refusal{Reasons: []string{"node(s) didn't match pod topology spread constraints (missing required label)"}, Final: true}, others}
	skewed     = &rule{filter.Refusal{Reasons: []string{"node(s) didn't match pod topology spread constraints"}}, others}
	alone      = &rule{filter.Refusal{Reasons: []string{"node(s) didn't match pod affinity rules"}, Final: true}, others}
	crowded    = &rule{filter.Refusal{Reasons: []string{"node(s) didn't match pod anti-affinity rules"}}, others}
	lacking    = &rule{*filter.Featureless, filter.Last.Helps}
	unwelcome  = &rule{filter.Refusal{Reasons: []string{"node(s) didn't satisfy existing pods anti-affinity rules"}}, others}
)

// judge decides for a group what other pods have a say in: PodTopologySpread, then InterPodAffinity; and after these what comes last.
func (c *Class) judge(g *group) *rule {
	if r, _ := c.decide(func(a *axis) (int64, int64) { return a.value(g), 0 }); r != nil {
		return r
	}
	if c.kinds[g.key[0]][kindUndeclared] != 0 {
		return lacking
	}
	return nil
}

// decide takes, for each axis, the count in a node's domain and how much less it and its topology would have without some pods. With the rule
// that is broken comes the axis on which it is.
func (c *Class) decide(of func(a *axis) (value, less int64)) (*rule, *axis) {
	for _, s := range c.hard {
		value, less := of(s.axis)
		if value == missing {
			return unlabelled, s.axis
		}
		lowest, domains := s.least()
		lowest = min(lowest, value-less)
		if int64(domains) < s.minDomains {
			lowest = 0
		}
		if value-less+s.self-lowest > s.maxSkew {
			return skewed, s.axis
		}
	}
	var unmet *axis
	left := int64(0)
	for _, a := range c.together {
		value, less := of(a)
		if value == missing {
			return alone, a
		}
		if value-less <= 0 {
			unmet = a
		}
		left += a.total - less
	}
	if unmet != nil && (left > 0 || !c.selfAffine) { // the first of a series that want to be together may go anywhere
		return alone, unmet
	}
	for _, a := range c.apart {
		if value, less := of(a); value-less > 0 {
			return crowded, a
		}
	}
	for _, a := range c.shunned {
		if value, less := of(a); value-less > 0 {
			return unwelcome, a
		}
	}
	return nil, nil
}

// Others is another number, in all likelihood, once what rules about other pods count has changed.
func (c *Class) Others() (sum uint64) {
	note := func(v int64) { sum = sum*1_000_003 + uint64(v) }
	for _, s := range c.hard {
		lowest, domains := s.least()
		note(s.total)
		note(lowest)
		note(int64(domains))
	}
	for _, list := range [][]*axis{c.together, c.apart, c.shunned} {
		for _, a := range list {
			note(a.total)
		}
	}
	return sum
}

// Bound says that the class is of one pod only, bound to nodes by name, and not to be kept.
func (c *Class) Bound() bool { return c.bound }

// asked says that a bound class is bound to node i, among others.
func (c *Class) asked(i int) bool { return slices.Contains(c.only, i) }

// Why says why node i won't do, nil if it will, and which changes might help.
func (c *Class) Why(i int) (*filter.Refusal, cluster.Change) {
	if c.bound && !c.asked(i) {
		return filter.Unasked, cluster.Added
	}
	switch r, by := c.byItself(i); {
	case r == nil:
	case by < len(filter.Static):
		return r, filter.Static[by].Helps
	default:
		return r, filter.Load[by-len(filter.Static)].Helps
	}
	if g := c.in[i]; g != nil {
		if r := c.judge(g); r != nil {
			return &r.Refusal, r.helps
		}
	}
	return nil, 0
}

// byItself says why node i won't do whoever else is anywhere, and by which plug-in: its position in Static, or in Load after that.
func (c *Class) byItself(i int) (r *filter.Refusal, by int) {
	for k, check := range c.static {
		if check != nil && c.must&^c.facts[i]&(2<<k) != 0 {
			return check(i), k
		}
	}
	for k, check := range c.load {
		if check == nil {
			continue
		}
		if r := check(i); r != nil {
			return r, len(filter.Static) + k
		}
	}
	return nil, 0
}

// Verdict sums up why no node will do. It is shared: not to be changed.
type Verdict struct {
	Nodes   int
	Reasons map[string]int // how many nodes for each reason
	Helps   cluster.Change // what might alter it
	Final   int            // nodes that won't do even if every pod left them
}

// Clone is a copy that may be added to.
func (v *Verdict) Clone() *Verdict {
	own := *v
	own.Reasons = maps.Clone(v.Reasons)
	return &own
}

// count adds a refusal of so many nodes.
func (v *Verdict) count(r *filter.Refusal, nodes int) {
	for _, reason := range r.Reasons {
		if v.Reasons[reason] += nodes; v.Reasons[reason] == 0 {
			delete(v.Reasons, reason)
		}
	}
	if r.Final {
		v.Final += nodes
	}
}

// Verdict is worked out once for all pods of the class that ask between two changes, and costs what changed: nodes that are in no group count as the
// tally has them, those of a group all alike.
func (c *Class) Verdict() *Verdict {
	if c.verdict != nil && c.verdictAt == c.nodes.Now() {
		return c.verdict
	}
	v := &Verdict{Nodes: c.nodes.Count(), Reasons: map[string]int{}, Helps: cluster.Added}
	if c.bound {
		c.askOnly(v)
	} else {
		c.Repair()
		c.brush()
		maps.Copy(v.Reasons, c.tally.sum.Reasons)
		v.Final = c.tally.sum.Final
		v.Helps |= c.tally.helps()
		for _, g := range c.list {
			if r := c.judge(g); r != nil {
				v.count(&r.Refusal, len(g.heap))
				v.Helps |= r.helps
			}
		}
	}
	c.verdict, c.verdictAt = v, c.nodes.Now()
	return v
}

// askOnly is for a class that is bound by name: the nodes it names are asked, and all others are refused for that.
func (c *Class) askOnly(v *Verdict) {
	for _, i := range c.only {
		if r, helps := c.Why(i); r != nil {
			v.count(r, 1)
			v.Helps |= helps
		}
	}
	if rest := v.Nodes - len(c.only); rest > 0 {
		v.count(filter.Unasked, rest)
	}
}

// Against is Why without what might help, from what is known already; Verdict was asked since the last change.
func (c *Class) Against(i int) *filter.Refusal {
	if c.bound || c.in[i] != nil {
		r, _ := c.Why(i)
		return r
	}
	return c.tally.against[i].Refusal
}

// tally is what nodes that are in no group have against the class. Invariant, once brushed up: sum and by are the sums over against.
type tally struct {
	at      uint64 // position in the nodes' history
	known   bool
	against []objection // by node
	sum     Verdict
	by      [len(filter.Static) + len(filter.Load)]int // nodes, by who refuses them
}

// objection is a refusal and the plug-in it is from: its position in Static, or in Load after that.
type objection struct {
	*filter.Refusal
	by uint8
}

func (t *tally) helps() (helps cluster.Change) {
	for k, nodes := range t.by {
		switch {
		case nodes == 0:
		case k < len(filter.Static):
			helps |= filter.Static[k].Helps
		default:
			helps |= filter.Load[k-len(filter.Static)].Helps
		}
	}
	return helps
}

// brush brings the tally up to date with the class.
func (c *Class) brush() {
	t := &c.tally
	changes, near := c.nodes.Since(t.at)
	if !t.known || !near {
		*t = tally{known: true, against: resized(t.against[:0], c.nodes.Len()), sum: Verdict{Reasons: map[string]int{}}}
		clear(t.against)
		for i := range t.against {
			t.set(i, c.objection(i))
		}
	} else {
		was := len(t.against)
		t.against = resized(t.against, c.nodes.Len())
		clear(t.against[was:])
		for _, ch := range changes {
			t.set(int(ch.Node), c.objection(int(ch.Node)))
		}
	}
	t.at = c.nodes.Now()
}

func (t *tally) set(i int, o objection) {
	old := t.against[i]
	if old == o {
		return
	}
	if old.Refusal != nil {
		t.sum.count(old.Refusal, -1)
		t.by[old.by]--
	}
	if o.Refusal != nil {
		t.sum.count(o.Refusal, 1)
		t.by[o.by]++
	}
	t.against[i] = o
}

// objection is what node i has against the class by itself; none if it is in a group, or is no node.
func (c *Class) objection(i int) objection {
	if c.in[i] != nil || c.nodes.Node[i] == nil {
		return objection{}
	}
	r, by := c.byItself(i)
	return objection{r, uint8(by)}
}
