package class

import (
	"fmt"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

// Finding is why a node won't do, with the figures behind it.
type Finding struct {
	Plugin string
	*filter.Refusal
	Detail string
	Pods   []*cluster.Pod // that are in the way, a few of them

	// Enough says that room is all that is missing: the rules about other pods would let the pod in.
	Enough bool
}

// Inquiry finds out about many nodes; what they share it works out once.
type Inquiry struct {
	class *Class
	known map[place][]*cluster.Pod
}

// place is a domain of an axis.
type place struct {
	axis   *axis
	domain int32
}

// Inquire begins an inquiry. It is good as long as nothing changes.
func (c *Class) Inquire() *Inquiry { return &Inquiry{c, map[place][]*cluster.Pod{}} }

// culprits is how many pods are named.
const culprits = 3

// Find says why node i won't do; its Refusal is nil if it will.
func (q *Inquiry) Find(i int) Finding {
	c := q.class
	r, _ := c.Why(i)
	if r == nil {
		return Finding{}
	}
	f := Finding{Refusal: r, Plugin: c.refuser(i)}
	if f.Plugin != "" {
		f.Detail = filter.Detail(f.Plugin, c.pod, c.nodes, i)
		f.Enough = c.passes(i) && c.rules(i) == nil
		return f
	}
	switch bad, a := c.decide(c.at0(i)); bad {
	case nil:
		f.Plugin = filter.Last.Name
		f.Detail = filter.Detail(f.Plugin, c.pod, c.nodes, i)
	case unlabelled, skewed:
		f.Plugin = "PodTopologySpread"
		f.Detail = c.spreading(a, i)
	default:
		f.Plugin = "InterPodAffinity"
		f.Detail, f.Pods = q.affinity(bad, a, i)
	}
	return f
}

// refuser is the plug-in that refuses node i for what it is or has; "" if none does.
func (c *Class) refuser(i int) string {
	if c.bound && !c.asked(i) {
		return filter.Static[filter.Affinity].Name
	}
	for k, check := range c.static {
		if check != nil && c.must&^c.facts[i]&(2<<k) != 0 {
			return filter.Static[k].Name
		}
	}
	for k, check := range c.load {
		if check != nil && check(i) != nil {
			return filter.Load[k].Name
		}
	}
	return ""
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

// rules are those that a node breaks whatever room it has.
func (c *Class) rules(i int) *rule {
	r, _ := c.decide(c.at0(i))
	if r == nil && c.last != nil && c.last(i) != nil {
		return lacking
	}
	return r
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
		if int64(domains) < s.minDomains {
			return fmt.Sprintf("%s=%s has %d such pods and there are %d of at least %d domains, so a domain may have %d",
				s.key, a.topology.Name(d), a.inDomain(d), domains, s.minDomains, s.maxSkew)
		}
		return fmt.Sprintf("%s=%s has %d such pods, the least is %d: one more makes a skew of %d, and maxSkew is %d",
			s.key, a.topology.Name(d), a.inDomain(d), lowest, a.inDomain(d)+s.self-lowest, s.maxSkew)
	}
	return ""
}

// affinity tells of the rule about other pods that a node breaks, and who makes it so.
func (q *Inquiry) affinity(bad *rule, a *axis, i int) (string, []*cluster.Pod) {
	d := a.topology.Of[i]
	if d == cluster.NoDomain {
		return fmt.Sprintf("the node has no label %s", a.topology.Key), nil
	}
	where := a.topology.Key + "=" + a.topology.Name(d)
	switch bad {
	case alone:
		return "no pod it wants to be with runs in " + where, nil
	case crowded:
		return fmt.Sprintf("%d pods it must not be with in %s", a.inDomain(d), where), q.those(a, d)
	}
	return fmt.Sprintf("%d pods that do not want it in %s", a.inDomain(d), where), q.those(a, d)
}

// those are a few of the pods that an axis counts in a domain.
func (q *Inquiry) those(a *axis, d int32) []*cluster.Pod {
	at := place{a, d}
	list, known := q.known[at]
	if known {
		return list
	}
	for i, of := range a.topology.Of {
		if of != d || a.at[i] == 0 {
			continue
		}
		for _, p := range q.class.nodes.On[i] {
			if len(list) < culprits && a.share(p) != 0 {
				list = append(list, p)
			}
		}
		if len(list) == culprits {
			break
		}
	}
	q.known[at] = list
	return list
}
