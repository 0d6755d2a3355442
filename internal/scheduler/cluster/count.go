package cluster

import (
	"cmp"
	"slices"
	"strings"
)

// Counter counts, by node, the placed pods that all its matchers select.
type Counter struct {
	On      []int32
	Total   int64
	key     string
	all     []Matcher
	staying bool // pods that are being deleted do not count
	refs    int
}

// Counter returns the counter for pods that all matchers select, and keeps it up to date until Uncount. staying leaves out pods that are
// being deleted.
func (n *Nodes) Counter(staying bool, all ...Matcher) *Counter {
	keys := make([]string, 0, len(all)+1)
	for i := range all {
		keys = append(keys, all[i].Key)
	}
	slices.Sort(keys)
	key := strings.Join(slices.Compact(keys), "\x01")
	if staying {
		key += "\x02"
	}
	c := n.counters[key]
	if c == nil {
		c = &Counter{key: key, all: all, staying: staying, On: make([]int32, len(n.Node))}
		n.counters[key] = c
		for _, set := range n.sets {
			if n.counts(c, set) {
				set.counters = append(set.counters, c)
				for i, there := range set.on {
					c.add(i, there, 1)
				}
			}
		}
	}
	c.refs++
	return c
}

// Uncount gives a counter back.
func (n *Nodes) Uncount(c *Counter) {
	if c.refs--; c.refs > 0 {
		return
	}
	delete(n.counters, c.key)
	for _, set := range n.sets {
		if i := slices.Index(set.counters, c); i >= 0 {
			set.counters = slices.Delete(set.counters, i, i+1)
		}
	}
}

func (n *Nodes) counts(c *Counter, set *LabelSet) bool {
	for i := range c.all {
		if !n.Matches(&c.all[i], set) {
			return false
		}
	}
	return true
}

func (c *Counter) add(i int, there presence, sign int32) {
	count := there.all
	if c.staying {
		count -= there.leaving
	}
	c.On[i] += sign * count
	c.Total += int64(sign * count)
}

// Counts says whether a placed pod is one of those counted.
func (c *Counter) Counts(p *Pod) bool {
	return p.set != nil && (!c.staying || !p.leaving()) && slices.Contains(p.set.counters, c)
}

// Words say which pods are counted, for somebody in a namespace.
func (c *Counter) Words(here string) string {
	var list []string
	for i := range c.all {
		list = append(list, c.all[i].Words(here))
	}
	return strings.Join(list, " and ")
}

// Term is a rule that pods have, and by node how many placed pods have it.
type Term struct {
	Rule
	ID     uint64
	On     []int32
	Active bool // a pod with the rule was placed: from then on it is a Term of the sets it selects
	refs   int  // pods and classes
	name   string
}

// Term returns what is counted about a rule, and keeps it up to date until Drop. Rules of pods that were never placed bind nobody: others are
// not troubled with them.
func (n *Nodes) Term(r *Rule) *Term {
	key := r.key()
	t := n.terms[key]
	if t == nil {
		n.serial++
		t = &Term{Rule: *r, ID: n.serial, On: make([]int32, len(n.Node)), name: key}
		n.terms[key] = t
	}
	t.refs++
	return t
}

// activate makes a rule one that binds others.
func (n *Nodes) activate(t *Term) {
	t.Active = true
	for _, set := range n.sets {
		if n.Matches(&t.Matcher, set) {
			set.Terms = InOrder(append(slices.Clone(set.Terms), t))
			clear(set.Memo)
		}
	}
}

// InOrder sorts terms, so that equal lists look equal.
func InOrder(terms []*Term) []*Term {
	slices.SortFunc(terms, func(a, b *Term) int { return cmp.Compare(a.ID, b.ID) })
	return terms
}

// Drop gives a term back.
func (n *Nodes) Drop(t *Term) {
	if t.refs--; t.refs > 0 {
		return
	}
	delete(n.terms, t.name)
	if !t.Active {
		return
	}
	for _, set := range n.sets {
		if i := slices.Index(set.Terms, t); i >= 0 {
			set.Terms = slices.Delete(slices.Clone(set.Terms), i, i+1)
			clear(set.Memo)
		}
	}
}

// Carries says whether a placed pod has the rule.
func (t *Term) Carries(p *Pod) bool { return slices.Contains(p.terms, t) }

// tally adds all pods of a set to, or takes them from, the counters that select it.
func (n *Nodes) tally(set *LabelSet, sign int32) {
	for _, c := range set.counters {
		for i, there := range set.on {
			c.add(i, there, sign)
		}
	}
	for i := range set.on {
		n.note(i, false)
	}
}

// enlist adds a pod on node i to, or takes it from, its set's counters and its own rules' terms.
func (n *Nodes) enlist(p *Pod, i int, sign int32) {
	if sign > 0 {
		p.set = n.SetOf(p)
		for r := range p.Rules {
			t := n.Term(&p.Rules[r])
			if !t.Active {
				n.activate(t)
			}
			p.terms = append(p.terms, t)
		}
	}
	one := presence{all: 1}
	if p.leaving() {
		one.leaving = 1
	}
	set := p.set
	set.pods += int(sign)
	there := set.on[i]
	there.all += sign * one.all
	there.leaving += sign * one.leaving
	if there.all == 0 {
		delete(set.on, i)
	} else {
		set.on[i] = there
	}
	for _, c := range set.counters {
		c.add(i, one, sign)
	}
	for _, t := range p.terms {
		t.On[i] += sign
	}
	if sign < 0 {
		for _, t := range p.terms {
			n.Drop(t)
		}
		p.set, p.terms = nil, nil
	}
}
