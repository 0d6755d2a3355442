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
	unwelcome  = &rule{filter.Refusal{Reasons: []string{"node(s) didn't satisfy existing pods anti-affinity rules"}}, others}
)

// judge decides for a group what other pods have a say in: PodTopologySpread, then InterPodAffinity.
func (c *Class) judge(g *group) *rule {
	r, _ := c.decide(func(a *axis) (int64, int64) { return a.value(g), 0 })
	return r
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

// Bound says that the class is of one pod only, bound to nodes by name, and not to be kept.
func (c *Class) Bound() bool { return c.bound }

// asked says that a bound class is bound to node i, among others.
func (c *Class) asked(i int) bool { return slices.Contains(c.only, i) }

// Why says why node i won't do, nil if it will, and which changes might help.
func (c *Class) Why(i int) (*filter.Refusal, cluster.Change) {
	if c.bound && !c.asked(i) {
		return filter.Unasked, cluster.Added
	}
	for k, check := range c.static {
		if check != nil && c.facts[i]&(2<<k) == 0 {
			return check(i), filter.Static[k].Helps
		}
	}
	for k, check := range c.load {
		if check == nil {
			continue
		}
		if r := check(i); r != nil {
			return r, filter.Load[k].Helps
		}
	}
	if g := c.in[i]; g != nil {
		if r := c.judge(g); r != nil {
			return &r.Refusal, r.helps
		}
	}
	return nil, 0
}

// Verdict sums up why no node will do.
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

// Verdict is worked out once for all pods of the class that ask between two changes.
func (c *Class) Verdict() *Verdict {
	if c.verdict != nil && c.verdictAt == c.nodes.Now() {
		return c.verdict
	}
	v := &Verdict{Nodes: c.nodes.Count(), Reasons: map[string]int{}, Helps: cluster.Added}
	weigh := func(i int) {
		r, helps := c.Why(i)
		if r == nil {
			return
		}
		for _, reason := range r.Reasons {
			v.Reasons[reason]++
		}
		v.Helps |= helps
		if r.Final {
			v.Final++
		}
	}
	if c.bound {
		for _, i := range c.only {
			weigh(i)
		}
		if rest := v.Nodes - len(c.only); rest > 0 {
			v.Reasons[filter.Unasked.Reasons[0]] = rest
			v.Final += rest
		}
	} else {
		for i := range c.nodes.Len() {
			if c.nodes.Node[i] != nil {
				weigh(i)
			}
		}
	}
	c.verdict, c.verdictAt = v, c.nodes.Now()
	return v
}

// Helps is what might give the class a node, or more than that: what it was for nodes that have not changed since it was last asked, and what it is for
// those that have. It costs what changed, where Verdict costs all nodes.
func (c *Class) Helps() cluster.Change {
	changes, near := c.nodes.Since(c.helpsAt)
	if c.helps == 0 || !near || len(changes) > c.nodes.Count() {
		c.helps = c.Verdict().Helps
	} else {
		for _, ch := range changes {
			if i := int(ch.Node); c.nodes.Node[i] != nil {
				_, helps := c.Why(i)
				c.helps |= helps
			}
		}
	}
	if len(c.axes) > 0 {
		c.helps |= others // a change elsewhere may have had one of these rules refuse the node
	}
	c.helpsAt = c.nodes.Now()
	return c.helps
}
