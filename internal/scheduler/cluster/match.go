package cluster

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Matcher selects pods by namespace and labels.
type Matcher struct {
	Key        string // equal matchers have equal keys
	Namespaces []string
	OfSpaces   labels.Selector // selects further namespaces; nil: none
	Selector   labels.Selector
}

// NewMatcher returns a matcher for pods of the namespaces, and of those that ofSpaces selects.
func NewMatcher(namespaces []string, ofSpaces, selector labels.Selector) Matcher {
	m := Matcher{Namespaces: slices.Sorted(slices.Values(namespaces)), OfSpaces: ofSpaces, Selector: selector}
	spaces := "-"
	if ofSpaces != nil {
		spaces = "*" + ofSpaces.String()
	}
	what := selector.String()
	if _, selectable := selector.Requirements(); !selectable {
		what = "nothing"
	}
	m.Key = strings.Join(m.Namespaces, ",") + "\x00" + spaces + "\x00" + what
	return m
}

// Matches says whether pods of a set are selected.
func (n *Nodes) Matches(m *Matcher, set *LabelSet) bool {
	if !slices.Contains(m.Namespaces, set.Namespace) && (m.OfSpaces == nil || !m.OfSpaces.Matches(n.spaces[set.Namespace].labels)) {
		return false
	}
	return m.Selector.Matches(set.Labels)
}

// Words say which pods are selected, for somebody in a namespace.
func (m *Matcher) Words(here string) string {
	what := m.Selector.String()
	if _, selectable := m.Selector.Requirements(); !selectable {
		what = "none"
	} else if what == "" {
		what = "any"
	}
	switch {
	case m.OfSpaces != nil && m.OfSpaces.Empty():
		return what + " in any namespace"
	case m.OfSpaces != nil:
		return what + " in namespaces with " + m.OfSpaces.String()
	case len(m.Namespaces) == 1 && m.Namespaces[0] == here:
		return what
	}
	return what + " in namespace " + strings.Join(m.Namespaces, ", ")
}

// Kind of a rule about other pods.
type Kind uint8

// The kinds. Preferences against others have a negative weight.
const (
	Affinity Kind = iota
	AntiAffinity
	Preference
)

// Rule is a term of a pod's affinity to other pods.
type Rule struct {
	Kind     Kind
	Weight   int64
	Topology string
	Matcher
}

func (r *Rule) key() string {
	return fmt.Sprintf("%d %d %s\x00%s", r.Kind, r.Weight, r.Topology, r.Matcher.Key)
}

// rulesOf reads the terms of a pod; those that cannot be read, which the API does not let in, select nothing.
func rulesOf(p *corev1.Pod) (rules []Rule) {
	if p.Spec.Affinity == nil {
		return nil
	}
	add := func(kind Kind, weight int64, terms ...corev1.PodAffinityTerm) {
		for i := range terms {
			rules = append(rules, Rule{kind, weight, terms[i].TopologyKey, matcherOf(p, &terms[i])})
		}
	}
	if a := p.Spec.Affinity.PodAffinity; a != nil {
		add(Affinity, 1, a.RequiredDuringSchedulingIgnoredDuringExecution...)
		for _, t := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			add(Preference, int64(t.Weight), t.PodAffinityTerm)
		}
	}
	if a := p.Spec.Affinity.PodAntiAffinity; a != nil {
		add(AntiAffinity, 1, a.RequiredDuringSchedulingIgnoredDuringExecution...)
		for _, t := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			add(Preference, -int64(t.Weight), t.PodAffinityTerm)
		}
	}
	return rules
}

func matcherOf(p *corev1.Pod, t *corev1.PodAffinityTerm) Matcher {
	namespaces := t.Namespaces
	if len(namespaces) == 0 && t.NamespaceSelector == nil {
		namespaces = []string{p.Namespace}
	}
	var ofSpaces labels.Selector
	if t.NamespaceSelector != nil {
		ofSpaces = Selector(t.NamespaceSelector)
	}
	selector := WithLabelKeys(Selector(t.LabelSelector), p.Labels, t.MatchLabelKeys, selection.In)
	selector = WithLabelKeys(selector, p.Labels, t.MismatchLabelKeys, selection.NotIn)
	return NewMatcher(namespaces, ofSpaces, selector)
}

// Selector reads a label selector; nil selects nothing.
func Selector(s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}

// WithLabelKeys adds the pod's own values of some labels to a selector, as matchLabelKeys and mismatchLabelKeys ask. Labels the pod lacks
// are passed over.
func WithLabelKeys(selector labels.Selector, own map[string]string, keys []string, operator selection.Operator) labels.Selector {
	if _, selectable := selector.Requirements(); !selectable {
		return selector
	}
	for _, key := range keys {
		value, has := own[key]
		if !has {
			continue
		}
		if r, err := labels.NewRequirement(key, operator, []string{value}); err == nil {
			selector = selector.Add(*r)
		}
	}
	return selector
}

// LabelSet is all placed pods of one namespace with the same labels, which are alike for every selector.
type LabelSet struct {
	Namespace string
	Labels    labels.Set
	Terms     []*Term        // of placed pods; that match these pods
	Memo      map[string]any // the scheduler's classes, as long as Terms stay; forgotten when they change

	key      string
	counters []*Counter
	on       map[int]presence
	pods     int
}

// presence is how many pods of a set are on a node, and how many of these are being deleted.
type presence struct{ all, leaving int32 }

// SetOf finds the label set of a pod, placed or not.
func (n *Nodes) SetOf(p *Pod) *LabelSet {
	if p.set != nil {
		return p.set
	}
	key := setKey(p.Namespace, p.Labels)
	set := n.sets[key]
	if set != nil {
		return set
	}
	n.sweepSets()
	set = &LabelSet{Namespace: p.Namespace, Labels: p.Labels, key: key, Memo: map[string]any{}, on: map[int]presence{}}
	n.sets[key] = set
	space := n.space(p.Namespace)
	space.sets[set] = true
	n.rematch(set)
	return set
}

func setKey(namespace string, of map[string]string) string {
	keys := make([]string, 0, 16)
	size := len(namespace) + 1
	for k, v := range of {
		keys = append(keys, k)
		size += len(k) + len(v) + 2
	}
	slices.Sort(keys)
	b := make([]byte, 0, size)
	b = append(append(b, namespace...), 0)
	for _, k := range keys {
		b = append(append(append(append(b, k...), '='), of[k]...), 0)
	}
	return string(b)
}

// rematch finds which counters and terms select a set. Nothing may be counted for it at the time.
func (n *Nodes) rematch(set *LabelSet) {
	set.counters, set.Terms = nil, nil
	clear(set.Memo)
	for _, c := range n.counters {
		if n.counts(c, set) {
			set.counters = append(set.counters, c)
		}
	}
	for _, t := range n.terms {
		if t.Active && n.Matches(&t.Matcher, set) {
			set.Terms = append(set.Terms, t)
		}
	}
	InOrder(set.Terms)
}

// sweepSets forgets sets without pods once they are many: pods with labels of their own (of stateful sets, of jobs) leave one each.
func (n *Nodes) sweepSets() {
	if len(n.sets) < n.sweepAt {
		return
	}
	for key, set := range n.sets {
		if set.pods == 0 {
			delete(n.sets, key)
			delete(n.spaces[set.Namespace].sets, set)
		}
	}
	n.sweepAt = 2*len(n.sets) + 1024
}

// space is a namespace.
type space struct {
	labels labels.Set
	sets   map[*LabelSet]bool
}

func (n *Nodes) space(name string) *space {
	s := n.spaces[name]
	if s == nil {
		s = &space{sets: map[*LabelSet]bool{}}
		n.spaces[name] = s
	}
	return s
}

// SetNamespace takes in a namespace's labels (nil when it is gone) and says whether they changed: terms may select by them.
func (n *Nodes) SetNamespace(name string, to map[string]string) bool {
	s := n.space(name)
	if len(s.labels) == len(to) && labels.Equals(s.labels, to) {
		return false
	}
	for set := range s.sets {
		n.tally(set, -1)
	}
	s.labels = to
	for set := range s.sets {
		n.rematch(set)
		n.tally(set, 1)
	}
	return true
}

// ForgetMemos makes the pods of a namespace be classed anew.
func (n *Nodes) ForgetMemos(namespace string) {
	if s := n.spaces[namespace]; s != nil {
		for set := range s.sets {
			clear(set.Memo)
		}
	}
}
