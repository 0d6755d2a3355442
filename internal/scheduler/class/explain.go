package class

import (
	"fmt"
	"slices"
	"strings"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

// Finding is why a node won't do, with the figures behind it.
type Finding struct {
	Plugin string
	*filter.Refusal
	Detail string
	Pods   []*cluster.Pod // that are in the way
	More   bool           // pods than these

	// All are the plug-ins that have something against the node; nil if not all were asked. Only says that there is this one thing against it: without it the pod would
	// fit, but for its devices, which a class knows nothing of.
	All  []string
	Only bool
}

// Inquiry finds out about many nodes; what they share it works out once.
type Inquiry struct {
	class *Class
	known map[place]culprits
}

// place is a domain of an axis.
type place struct {
	axis   *axis
	domain int32
}

// culprits are pods that an axis counts in a domain, a few of them.
type culprits struct {
	list []*cluster.Pod
	more bool
}

// named is how many that is.
const named = 3

// Inquire begins an inquiry. It is good as long as nothing changes.
func (c *Class) Inquire() *Inquiry { return &Inquiry{c, map[place]culprits{}} }

// Find says why node i won't do; its Refusal is nil if it will.
func (q *Inquiry) Find(i int) Finding {
	c := q.class
	r, _ := c.Why(i)
	if r == nil {
		return Finding{}
	}
	f := Finding{Refusal: r}
	if c.bound && !c.asked(i) {
		f.Plugin = filter.Static[filter.Affinity].Name
		f.Detail = filter.Detail(f.Plugin, c.pod, c.nodes, i)
		return f
	}
	f.All = c.refusers(i)
	bad, a := c.decide(c.at0(i))
	switch {
	case bad == nil:
	case bad == unlabelled, bad == skewed:
		f.All = append(f.All, "PodTopologySpread")
	default:
		f.All = append(f.All, "InterPodAffinity")
	}
	if c.last != nil && c.last(i) != nil {
		f.All = append(f.All, filter.Last.Name)
	}
	if len(f.All) == 0 {
		return f // refused by what cannot be told
	}
	f.Plugin, f.Only = f.All[0], len(f.All) == 1
	switch f.Plugin {
	case "PodTopologySpread":
		f.Detail, f.Only = c.spreading(a, i), f.Only && c.but(a, i)
	case "InterPodAffinity":
		f.Detail, f.Only = c.affinity(bad, a, i), f.Only && c.but(a, i)
		if bad != alone {
			f.Pods, f.More = q.inTheWay(i)
		}
	default:
		f.Detail = filter.Detail(f.Plugin, c.pod, c.nodes, i)
	}
	return f
}

// refusers are the plug-ins that refuse node i for what it is or has, in their order.
func (c *Class) refusers(i int) (names []string) {
	for k, check := range c.static {
		if check != nil && c.must&^c.facts[i]&(2<<k) != 0 {
			names = append(names, filter.Static[k].Name)
		}
	}
	for k, check := range c.load {
		if check != nil && check(i) != nil {
			names = append(names, filter.Load[k].Name)
		}
	}
	return names
}

// but says that the rules about other pods would let node i pass but for what an axis counts there; if those are pods in the way, without all that are.
func (c *Class) but(bad *axis, i int) bool {
	if bad.topology.Of[i] == cluster.NoDomain {
		return false // who knows what the label would be
	}
	against := slices.Contains(c.apart, bad) || slices.Contains(c.shunned, bad)
	would := int64(0)
	if slices.Contains(c.together, bad) {
		would = 1
	}
	still, _ := c.decide(func(a *axis) (value, less int64) {
		switch {
		case a == bad:
			return would, 0
		case against && (slices.Contains(c.apart, a) || slices.Contains(c.shunned, a)):
			return 0, 0
		}
		return c.at0(i)(a)
	})
	return still == nil
}

// inTheWay are a few of the pods that the pod must not be with, or that must not be with it, on node i and in its domains.
func (q *Inquiry) inTheWay(i int) (list []*cluster.Pod, more bool) {
	for _, axes := range [][]*axis{q.class.apart, q.class.shunned} {
		for _, a := range axes {
			d := a.topology.Of[i]
			if d == cluster.NoDomain || a.inDomain(d) == 0 {
				continue
			}
			those := q.those(a, d)
			more = more || those.more
			for _, p := range those.list {
				switch {
				case slices.Contains(list, p):
				case len(list) == named:
					more = true
				default:
					list = append(list, p)
				}
			}
		}
	}
	return list, more
}

// at0 is where node i stands with respect to every axis, also if it is in no group.
func (c *Class) at0(i int) func(a *axis) (value, less int64) {
	return func(a *axis) (int64, int64) {
		if d := a.topology.Of[i]; d != cluster.NoDomain {
			return a.inDomain(d), 0
		}
		return missing, 0
	}
}

// spreading tells the figures of the constraint that a node breaks.
func (c *Class) spreading(a *axis, i int) string {
	for _, s := range c.hard {
		if s.axis != a {
			continue
		}
		d := a.topology.Of[i]
		if d == cluster.NoDomain {
			return fmt.Sprintf("the node has no label %s", s.key)
		}
		lowest, domains := s.least()
		has := fmt.Sprintf("%s=%s has %s%s", s.key, a.topology.Name(d), a.pods(d), c.whose(a))
		if int64(domains) < s.minDomains {
			return fmt.Sprintf("%s; there are %d of at least %d domains, so a domain may have %d", has, domains, s.minDomains, s.maxSkew)
		}
		return fmt.Sprintf("%s, the least is %d: one more makes a skew of %d, and maxSkew is %d", has, lowest, a.inDomain(d)+s.self-lowest, s.maxSkew)
	}
	return ""
}

// affinity tells of the rule about other pods that a node breaks.
func (c *Class) affinity(bad *rule, a *axis, i int) string {
	d := a.topology.Of[i]
	if d == cluster.NoDomain {
		return "the node has no label " + a.topology.Key
	}
	where := a.topology.Key + "=" + a.topology.Name(d)
	switch bad {
	case alone:
		return fmt.Sprintf("%s has no pod that it must be with%s", where, c.whose(a))
	case crowded:
		return fmt.Sprintf("%s has %s that it must not be with%s", where, a.pods(d), c.whose(a))
	}
	return fmt.Sprintf("%s has %s that must not be with it", where, a.pods(d))
}

// pods says how many an axis counts in a domain, if it counts each once.
func (a *axis) pods(d int32) string {
	switch n := a.inDomain(d); {
	case len(a.sources) > 1:
		return "pods"
	case n == 0:
		return "no pod"
	case n == 1:
		return "1 pod"
	default:
		return fmt.Sprintf("%d pods", n)
	}
}

// whose says in brackets which pods an axis counts, if that is few words.
func (c *Class) whose(a *axis) string {
	const most = 100
	var list []string
	for _, s := range a.sources {
		if s.counter == nil || len(list) > most {
			return ""
		}
		list = append(list, s.counter.Words(c.pod.Namespace))
	}
	if text := strings.Join(list, " or "); len(text) <= most {
		return " (" + text + ")"
	}
	return ""
}

// those are a few of the pods that an axis counts in a domain.
func (q *Inquiry) those(a *axis, d int32) culprits {
	at := place{a, d}
	those, known := q.known[at]
	if known {
		return those
	}
	for i, of := range a.topology.Of {
		if of != d || a.at[i] == 0 {
			continue
		}
		for _, p := range q.class.nodes.On[i] {
			switch {
			case a.share(p) == 0:
			case len(those.list) == named:
				those.more = true
				q.known[at] = those
				return those
			default:
				those.list = append(those.list, p)
			}
		}
	}
	q.known[at] = those
	return those
}
