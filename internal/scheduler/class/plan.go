package class

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// plan is what a pod's rules about other pods come to, before anything is counted.
type plan struct {
	hard, soft []constraint
	every      bool // soft constraints pass over nodes that lack one of their labels
	rules      []cluster.Rule
	selfAffine bool            // the pod is one of those it wants to be with
	terms      []*cluster.Term // of placed pods, that select this one
}

// constraint is a topologySpreadConstraint.
type constraint struct {
	key        string
	matcher    cluster.Matcher
	maxSkew    int64
	minDomains int64
	self       int64 // 1 if the pod counts itself
	counts     uint8 // facts a node must have to count
}

// Upstream's constraints for pods that have none but belong to a service or a set: nobody is kept off, but equals are spread.
var defaultConstraints = []corev1.TopologySpreadConstraint{
	{MaxSkew: 3, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway},
	{MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway},
}

func planFor(p *cluster.Pod, set *cluster.LabelSet, n *cluster.Nodes, siblings func(*corev1.Pod) labels.Selector) plan {
	pl := plan{rules: p.Rules, terms: set.Terms, every: true}
	if own := p.Spec.TopologySpreadConstraints; len(own) > 0 {
		for i := range own {
			pl.add(p, &own[i], cluster.WithLabelKeys(cluster.Selector(own[i].LabelSelector), p.Labels, own[i].MatchLabelKeys, selection.In))
		}
	} else if siblings != nil {
		if selector := siblings(p.Pod); selector != nil && !selector.Empty() {
			list := defaultConstraints
			if p.Profile != nil && !p.Profile.System {
				list = p.Profile.Constraints
			} else {
				pl.every = false
			}
			for i := range list {
				pl.add(p, &list[i], selector)
			}
		}
	}
	if p.Profile != nil {
		pl.limit(p.Profile)
	}
	wants := 0
	pl.selfAffine = true
	for r := range pl.rules {
		if pl.rules[r].Kind == cluster.Affinity {
			wants++
			pl.selfAffine = pl.selfAffine && n.Matches(&pl.rules[r].Matcher, set)
		}
	}
	pl.selfAffine = pl.selfAffine && wants > 0
	return pl
}

// limit leaves out what a profile has switched off.
func (pl *plan) limit(rules *profile.Profile) {
	if !rules.Runs("PodTopologySpread") {
		pl.hard = nil
	}
	if rules.Scale().PodTopologySpread == 0 {
		pl.soft = nil
	}
	filters, scores := rules.Runs("InterPodAffinity"), rules.Scale().InterPodAffinity > 0
	if filters && scores {
		return
	}
	var kept []cluster.Rule
	for _, r := range pl.rules {
		if r.Kind == cluster.Preference && scores || r.Kind != cluster.Preference && filters {
			kept = append(kept, r)
		}
	}
	pl.rules = kept
}

func (pl *plan) add(p *cluster.Pod, c *corev1.TopologySpreadConstraint, selector labels.Selector) {
	out := constraint{key: c.TopologyKey, maxSkew: int64(c.MaxSkew), minDomains: 1}
	if selector.Matches(labels.Set(p.Labels)) {
		out.self = 1
	}
	if selector.Empty() {
		selector = labels.Nothing() // upstream counts nobody then
	}
	out.matcher = cluster.NewMatcher([]string{p.Namespace}, nil, selector)
	if c.MinDomains != nil {
		out.minDomains = int64(*c.MinDomains)
	}
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		out.counts |= affine
	}
	if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		out.counts |= tolerated
	}
	if c.WhenUnsatisfiable == corev1.DoNotSchedule {
		pl.hard = append(pl.hard, out)
	} else {
		pl.soft = append(pl.soft, out)
	}
}

// signature tells apart what the key of a spec does not: pods with the same spec and other labels are of one class as long as those labels
// make no difference.
func (pl *plan) signature(b *strings.Builder) {
	for _, list := range [][]constraint{pl.hard, pl.soft} {
		for _, c := range list {
			b.WriteString(c.matcher.Key)
			b.WriteString(strconv.FormatInt(c.self, 10))
			b.WriteByte(1)
		}
		b.WriteByte(2)
	}
	for i := range pl.rules {
		b.WriteString(pl.rules[i].Key)
		b.WriteByte(1)
	}
	b.WriteString(strconv.FormatBool(pl.selfAffine))
	for _, t := range pl.terms {
		b.WriteByte(1)
		b.WriteString(strconv.FormatUint(t.ID, 36))
	}
}

// spread is a constraint with its counts.
type spread struct {
	constraint
	*axis
}

// count sets the plan's axes up.
func (c *Class) count(pl *plan) {
	n := c.nodes
	c.hard = c.spreads(pl.hard, true)
	c.soft = c.spreads(pl.soft, pl.every)
	for s := range c.hard {
		c.hard[s].levels = map[int64]int32{}
	}
	for s := range c.soft {
		c.soft[s].own = c.soft[s].key == corev1.LabelHostname
		if c.soft[s].own {
			c.soft[s].need, c.soft[s].all = 0, nil
		}
	}
	c.every, c.selfAffine = pl.every, pl.selfAffine
	var wanted []cluster.Matcher
	var keys []string
	for r := range pl.rules {
		rule := &pl.rules[r]
		c.terms = append(c.terms, n.Term(rule))
		switch rule.Kind {
		case cluster.Affinity:
			wanted = append(wanted, rule.Matcher)
			if !slices.Contains(keys, rule.Topology) {
				keys = append(keys, rule.Topology)
			}
		case cluster.AntiAffinity:
			c.add(&c.apart, rule.Topology, c.counted(1, false, rule.Matcher))
		case cluster.Preference:
			c.add(&c.likes, rule.Topology, c.counted(rule.Weight, false, rule.Matcher))
		}
	}
	for _, key := range keys {
		c.add(&c.together, key, c.counted(1, false, wanted...))
	}
	for _, t := range pl.terms {
		c.terms = append(c.terms, n.Term(&t.Rule))
		from := source{on: &t.On, weight: t.Weight, term: t}
		switch t.Kind {
		case cluster.AntiAffinity:
			if c.pod.Profile.Runs("InterPodAffinity") {
				c.add(&c.shunned, t.Topology, from)
			}
		default:
			if from.weight = pl.liking(c.pod.Profile, t); from.weight != 0 {
				c.add(&c.likes, t.Topology, from)
			}
		}
	}
	for _, list := range [][]*axis{c.together, c.apart, c.shunned} {
		for _, a := range list {
			a.capped = true
		}
	}
}

// liking is what a term of pods that are there counts for as a preference; upstream gives a required affinity the weight of one by default.
func (pl *plan) liking(rules *profile.Profile, t *cluster.Term) int64 {
	switch {
	case rules == nil:
		return t.Weight
	case rules.InterPodAffinity == 0, rules.OwnLikes && !slices.ContainsFunc(pl.rules, func(r cluster.Rule) bool { return r.Kind == cluster.Preference }):
		return 0
	case t.Kind == cluster.Affinity:
		return rules.HardWeight
	}
	return t.Weight
}

func (c *Class) spreads(list []constraint, every bool) []spread {
	var all []*cluster.Topology
	out := make([]spread, 0, len(list))
	for _, one := range list {
		t := c.topology(one.key)
		if !slices.Contains(all, t) {
			all = append(all, t)
		}
		out = append(out, spread{one, c.axis(t, c.counted(1, true, one.matcher))})
	}
	for s := range out {
		out[s].need = out[s].counts
		if every {
			out[s].all = all
		}
	}
	return out
}

// add counts a source in the list's axis for the topology.
func (c *Class) add(list *[]*axis, key string, from source) {
	for _, a := range *list {
		if a.topology.Key == key {
			a.sources = append(a.sources, from)
			return
		}
	}
	*list = append(*list, c.axis(c.topology(key), from))
}

func (c *Class) axis(t *cluster.Topology, from source) *axis {
	a := &axis{topology: t, sources: []source{from}}
	c.axes = append(c.axes, a)
	return a
}

func (c *Class) counted(weight int64, staying bool, all ...cluster.Matcher) source {
	counter := c.nodes.Counter(staying, all...)
	c.counters = append(c.counters, counter)
	return source{on: &counter.On, weight: weight, counter: counter}
}

func (c *Class) topology(key string) *cluster.Topology {
	for _, t := range c.topologies {
		if t.Key == key {
			return t
		}
	}
	t := c.nodes.Topology(key)
	c.topologies = append(c.topologies, t)
	return t
}
