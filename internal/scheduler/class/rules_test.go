package class

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	uneven = "node(s) didn't match pod topology spread constraints"
	nobody = "node(s) didn't match pod affinity rules"
	hated  = "node(s) didn't match pod anti-affinity rules"
	hates  = "node(s) didn't satisfy existing pods anti-affinity rules"
)

// refused says for each node of a stage why it won't do.
func (s *stage) refused(p *corev1.Pod) (list []string) {
	c := s.class(p)
	for i := range s.nodes.Len() {
		if r, _ := c.Why(i); r != nil {
			list = append(list, r.Reasons...)
		} else {
			list = append(list, "")
		}
	}
	return list
}

// appA is one of those that the tests' rules are about.
func appA(p *corev1.Pod) { p.Labels["app"] = "a" }

func in(space string, change func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Namespace = space; change(p) }
}

func constrained(change ...func(*corev1.TopologySpreadConstraint)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		appA(p)
		spreadBy(1)(p)
		for _, c := range change {
			c(&p.Spec.TopologySpreadConstraints[0])
		}
	}
}

// Nodes n0 and n1 are in zones z0 and z1; a pod of app a is on n0 unless a row says otherwise.
func TestSpreading(t *testing.T) {
	const listed = "  pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: " +
		corev1.LabelTopologyZone + ", whenUnsatisfiable: DoNotSchedule}]}}]\n"
	ignore, honor := corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor
	serving := func(s *stage) {
		s.sibling = func(*corev1.Pod) labels.Selector { return labels.SelectorFromSet(labels.Set{"app": "a"}) }
	}
	tainted := func(s *stage) {
		s.node(1, func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "t", Effect: corev1.TaintEffectNoSchedule}} })
	}
	const taint, selector = "node(s) had untolerated taint(s)", "node(s) didn't match Pod's node affinity/selector"
	onSSD := func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }
	for _, row := range []struct {
		what    string
		profile string
		of      func(s *stage)
		pod     func(*corev1.Pod)
		n0, n1  string
	}{
		{"one more than elsewhere", "", nil, constrained(), uneven, ""},
		{"two more may be", "", nil, constrained(func(c *corev1.TopologySpreadConstraint) { c.MaxSkew = 2 }), "", ""},
		{"a wish only", "", nil, constrained(func(c *corev1.TopologySpreadConstraint) { c.WhenUnsatisfiable = corev1.ScheduleAnyway }), "", ""},
		{"as many elsewhere", "", func(s *stage) { s.place("n1", "r", appA) }, constrained(), "", ""},
		{"it does not count itself", "", nil, both(constrained(), label("app", "b")), "", ""},
		{"fewer domains than there should be count as an empty one", "", func(s *stage) { s.place("n1", "r", appA) },
			constrained(func(c *corev1.TopologySpreadConstraint) { c.MinDomains = new(int32(3)) }), uneven, uneven},
		{"as many domains as there should be", "", func(s *stage) { s.place("n1", "r", appA) },
			constrained(func(c *corev1.TopologySpreadConstraint) { c.MinDomains = new(int32(2)) }), "", ""},
		{"a node that it may not go to does not count", "", nil, both(constrained(), onSSD), "", selector},
		{"a node that it may not go to counts if so asked", "", nil,
			both(constrained(func(c *corev1.TopologySpreadConstraint) { c.NodeAffinityPolicy = &ignore }), onSSD), uneven, selector},
		{"a node with a taint counts", "", tainted, constrained(), uneven, taint},
		{"a node with a taint counts if so asked", "", tainted, constrained(func(c *corev1.TopologySpreadConstraint) { c.NodeTaintsPolicy = &ignore }), uneven, taint},
		{"a node with a taint does not count if so asked", "", tainted, constrained(func(c *corev1.TopologySpreadConstraint) { c.NodeTaintsPolicy = &honor }), "", taint},
		{"its own value of a label", "", func(s *stage) { s.place("n0", "r", both(appA, label("rev", "1"))) },
			both(constrained(func(c *corev1.TopologySpreadConstraint) { c.MatchLabelKeys = []string{"rev"} }), label("rev", "1")), uneven, ""},
		{"another's value of a label", "", nil,
			both(constrained(func(c *corev1.TopologySpreadConstraint) { c.MatchLabelKeys = []string{"rev"} }), label("rev", "1")), "", ""},
		{"a label that it has not", "", nil, constrained(func(c *corev1.TopologySpreadConstraint) { c.MatchLabelKeys = []string{"rev"} }), uneven, ""},
		{"no selector", "", nil, constrained(func(c *corev1.TopologySpreadConstraint) { c.LabelSelector = nil }), "", ""},
		{"a selector of all counts nobody but itself", "", nil, constrained(func(c *corev1.TopologySpreadConstraint) { c.LabelSelector = &metav1.LabelSelector{} }), "", ""},
		{"who is in another namespace", "", func(s *stage) { s.place("n1", "r", in("y", appA)) }, constrained(), uneven, ""},
		{"who is going", "", func(s *stage) {
			s.place("n1", "r", func(p *corev1.Pod) { appA(p); p.DeletionTimestamp = &metav1.Time{} })
		}, constrained(), uneven, ""},
		{"a node without the label", "", func(s *stage) {
			s.node(1, func(n *corev1.Node) { delete(n.Labels, corev1.LabelTopologyZone) })
		}, constrained(), "", uneven + " (missing required label)"},
		{"a node without another constraint's label does not count", "", func(s *stage) {
			s.node(1, func(n *corev1.Node) { delete(n.Labels, corev1.LabelHostname) })
		}, both(constrained(), func(p *corev1.Pod) {
			second := p.Spec.TopologySpreadConstraints[0]
			second.TopologyKey, second.MaxSkew = corev1.LabelHostname, 5
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, second)
		}), "", uneven + " (missing required label)"},
		{"a list's constraint, of who serves", listed, serving, appA, uneven, ""},
		{"a list's constraint, of who serves with nobody", listed, nil, appA, "", ""},
		{"the system's constraints keep nobody off", "", serving, appA, "", ""},
		{"its own constraints go before a list's", listed, serving, constrained(func(c *corev1.TopologySpreadConstraint) { c.MaxSkew = 2 }), "", ""},
		{"without the filter", "  plugins: {filter: {disabled: [{name: PodTopologySpread}]}}\n", nil, constrained(), "", ""},
	} {
		s, p := newStage(), plainPod("p")
		s.node(0, func(n *corev1.Node) { n.Labels["disk"] = "ssd" })
		if row.profile != "" {
			s.with(t, row.profile)
		}
		s.place("n0", "q", appA)
		if row.of != nil {
			row.of(s)
		}
		row.pod(p)
		if got, want := s.refused(p), []string{row.n0, row.n1}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q, want %q", row.what, got, want)
		}
	}
}

func termed(change ...func(*corev1.PodAffinityTerm)) corev1.PodAffinityTerm {
	term := ofApp()
	for _, c := range change {
		c(&term)
	}
	return term
}

func byZone(t *corev1.PodAffinityTerm) { t.TopologyKey = corev1.LabelTopologyZone }

func spaces(names ...string) func(*corev1.PodAffinityTerm) {
	return func(t *corev1.PodAffinityTerm) { t.Namespaces = names }
}

func spacesOf(team string) func(*corev1.PodAffinityTerm) {
	return func(t *corev1.PodAffinityTerm) {
		t.NamespaceSelector = &metav1.LabelSelector{}
		if team != "" {
			t.NamespaceSelector.MatchLabels = map[string]string{"team": team}
		}
	}
}

// A pod of app a, rev 1 is on n0, in the pod's own namespace x unless a row says otherwise; namespace y is team red's.
func TestTogetherAndApart(t *testing.T) {
	keys := func(match, mismatch string) func(*corev1.PodAffinityTerm) {
		return func(t *corev1.PodAffinityTerm) {
			if match != "" {
				t.MatchLabelKeys = []string{match}
			}
			if mismatch != "" {
				t.MismatchLabelKeys = []string{mismatch}
			}
		}
	}
	also := func(term corev1.PodAffinityTerm) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			a := p.Spec.Affinity.PodAffinity
			a.RequiredDuringSchedulingIgnoredDuringExecution = append(a.RequiredDuringSchedulingIgnoredDuringExecution, term)
		}
	}
	ofRev := func(rev string) corev1.PodAffinityTerm {
		return termed(func(t *corev1.PodAffinityTerm) { t.LabelSelector.MatchLabels = map[string]string{"rev": rev} })
	}
	noHost := func(s *stage) { s.node(1, func(n *corev1.Node) { delete(n.Labels, corev1.LabelHostname) }) }
	for _, row := range []struct {
		what   string
		space  string
		of     func(s *stage)
		pod    func(*corev1.Pod)
		n0, n1 string
	}{
		{"together", "x", nil, togetherWith(termed()), "", nobody},
		{"together in a zone", "x", func(s *stage) {
			s.node(1, func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "z0" })
		}, togetherWith(termed(byZone)), "", ""},
		{"together with who is in another namespace", "y", nil, togetherWith(termed()), nobody, nobody},
		{"together with who is in a named one", "y", nil, togetherWith(termed(spaces("y"))), "", nobody},
		{"the named are instead of its own", "x", nil, togetherWith(termed(spaces("y"))), nobody, nobody},
		{"together with who is in a selected one", "y", nil, togetherWith(termed(spacesOf("red"))), "", nobody},
		{"the selected are instead of its own", "x", nil, togetherWith(termed(spacesOf("red"))), nobody, nobody},
		{"the named and the selected", "x", nil, togetherWith(termed(spacesOf("red"), spaces("x"))), "", nobody},
		{"any namespace", "z", nil, togetherWith(termed(spacesOf(""))), "", nobody},
		{"together with nobody, but with itself", "y", nil, both(appA, togetherWith(termed())), "", ""},
		{"together with nobody, but with itself, where the label is", "y", noHost, both(appA, togetherWith(termed())), "", nobody},
		{"with itself only if there is nobody", "x", nil, both(appA, togetherWith(termed())), "", nobody},
		{"with itself only if all terms are about it", "y", nil, both(appA, both(togetherWith(termed()), also(ofRev("1")))), nobody, nobody},
		{"all terms about one pod", "x", nil, both(togetherWith(termed()), also(ofRev("1"))), "", nobody},
		{"no two pods instead of one", "x", func(s *stage) { s.place("n0", "r", label("rev", "2")) }, both(togetherWith(termed()), also(ofRev("2"))), nobody, nobody},
		{"of its own value of a label", "x", nil, both(label("rev", "1"), togetherWith(termed(keys("rev", "")))), "", nobody},
		{"of its own value, which is another", "x", nil, both(label("rev", "2"), togetherWith(termed(keys("rev", "")))), nobody, nobody},
		{"of any value but its own", "x", nil, both(label("rev", "1"), togetherWith(termed(keys("", "rev")))), nobody, nobody},
		{"of any value but its own, which is another", "x", nil, both(label("rev", "2"), togetherWith(termed(keys("", "rev")))), "", nobody},
		{"apart", "x", nil, apartFrom(termed()), hated, ""},
		{"apart in a zone", "x", func(s *stage) {
			s.node(1, func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "z0" })
		}, apartFrom(termed(byZone)), hated, hated},
		{"apart where the label is", "x", func(s *stage) {
			s.node(0, func(n *corev1.Node) { delete(n.Labels, corev1.LabelHostname) })
		}, apartFrom(termed()), "", ""},
		{"apart from who is in another namespace", "y", nil, apartFrom(termed()), "", ""},
		{"apart from who is in a selected one", "y", nil, apartFrom(termed(spacesOf("red"))), hated, ""},
		{"apart from who is going, too", "x", func(s *stage) {
			s.place("n1", "r", func(p *corev1.Pod) { appA(p); p.DeletionTimestamp = &metav1.Time{} })
		}, apartFrom(termed()), hated, hated},
		{"those that are there want to be apart", "x", func(s *stage) { s.place("n1", "r", apartFrom(termed())) }, appA, "", hates},
		{"those that are there, in another namespace", "x", func(s *stage) { s.place("n1", "r", in("y", apartFrom(termed()))) }, appA, "", ""},
		{"those that are there, of its namespace by a selector", "x", func(s *stage) {
			s.nodes.SetNamespace("x", map[string]string{"team": "red"})
			s.place("n1", "r", in("y", apartFrom(termed(spacesOf("red")))))
		}, appA, "", hates},
		{"what those that are there want is no matter", "x", func(s *stage) { s.place("n1", "r", togetherWith(termed())) }, label("app", "b"), "", ""},
	} {
		s, p := newStage(), plainPod("p")
		s.nodes.SetNamespace("y", map[string]string{"team": "red"})
		if row.of != nil {
			row.of(s)
		}
		s.place("n0", "q", in(row.space, both(appA, label("rev", "1"))))
		row.pod(p)
		if got, want := s.refused(p), []string{row.n0, row.n1}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q, want %q", row.what, got, want)
		}
	}
}

// Of three nodes, the pod that all prefer by ten (app ref) is on n2; what a row's rule is worth shows beside that on n0.
func TestPreferences(t *testing.T) {
	prefers := func(with, apart int32, change ...func(*corev1.PodAffinityTerm)) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			if p.Spec.Affinity == nil {
				p.Spec.Affinity = &corev1.Affinity{}
			}
			add := func(to *[]corev1.WeightedPodAffinityTerm, weight int32) {
				if weight > 0 {
					*to = append(*to, corev1.WeightedPodAffinityTerm{Weight: weight, PodAffinityTerm: termed(change...)})
				}
			}
			a := p.Spec.Affinity
			if a.PodAffinity == nil {
				a.PodAffinity, a.PodAntiAffinity = &corev1.PodAffinity{}, &corev1.PodAntiAffinity{}
			}
			add(&a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, with)
			add(&a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, apart)
		}
	}
	ref := prefers(10, 0, func(t *corev1.PodAffinityTerm) { t.LabelSelector.MatchLabels["app"] = "ref" })
	const only = "  plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: InterPodAffinity}]}}\n"
	const args = only + "  pluginConfig: [{name: InterPodAffinity, args: {"
	for _, row := range []struct {
		what    string
		profile string
		there   func(*corev1.Pod)
		pod     func(*corev1.Pod)
		want    string
	}{
		{"it wants to be with it", only, appA, both(ref, prefers(4, 0)), "map[0:40 1:0 2:100]"},
		{"it wants to be apart from it", only, appA, both(ref, prefers(0, 10)), "map[0:0 1:50 2:100]"},
		{"twice as much", only, appA, both(ref, both(prefers(4, 0), prefers(4, 0))), "map[0:80 1:0 2:100]"},
		{"not of another namespace", only, in("y", appA), both(ref, prefers(4, 0)), "map[0:0 1:0 2:100]"},
		{"the other wants to be with it", only, prefers(4, 0), both(ref, appA), "map[0:40 1:0 2:100]"},
		{"the other wants to be apart from it", only, prefers(0, 10), both(ref, appA), "map[0:0 1:50 2:100]"},
		{"the other has to be with it", only, togetherWith(termed()), both(ref, appA), "map[0:10 1:0 2:100]"},
		{"the other has to be with it, which counts more", args + "hardPodAffinityWeight: 5}}]\n", togetherWith(termed()), both(ref, appA), "map[0:50 1:0 2:100]"},
		{"the other has to be with it, which counts nothing", args + "hardPodAffinityWeight: 0}}]\n", togetherWith(termed()), both(ref, appA), "map[0:0 1:0 2:100]"},
		{"others are heard if it has a wish", args + "ignorePreferredTermsOfExistingPods: true}}]\n", prefers(4, 0), both(ref, appA), "map[0:40 1:0 2:100]"},
		{"others are not heard if it has none", args + "ignorePreferredTermsOfExistingPods: true}}]\n", prefers(4, 0), appA, "map[0:0 1:0 2:0]"},
		{"nor for what they need", args + "ignorePreferredTermsOfExistingPods: true}}]\n", togetherWith(termed()), appA, "map[0:0 1:0 2:0]"},
		{"others are heard", only, prefers(4, 0), appA, "map[0:100 1:0 2:0]"},
		{"nobody has a wish", only, appA, appA, "map[0:0 1:0 2:0]"},
		{"twice the weight", "  plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: InterPodAffinity, weight: 2}]}}\n",
			appA, both(ref, prefers(4, 0)), "map[0:80 1:0 2:200]"},
		{"off", "  plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}]}}\n", appA, both(ref, prefers(4, 0)), "map[0:0 1:0 2:0]"},
	} {
		s, p := newStage(), plainPod("p")
		s.with(t, row.profile)
		s.node(2, func(*corev1.Node) {})
		s.place("n0", "q", row.there)
		s.place("n2", "ref", label("app", "ref"))
		row.pod(p)
		if got := fmt.Sprint(s.class(p).Scores()); got != row.want {
			t.Errorf("%s: %s, want %s", row.what, got, row.want)
		}
	}
}

// Of all nodes the one with most of a taint that is to be avoided, or of what is preferred, sets the scale.
func TestTaintsAndLabelsPreferred(t *testing.T) {
	const only = "  plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: %s}]}}\n"
	avoid := func(count int) func(*corev1.Node) {
		return func(n *corev1.Node) {
			for k := range count {
				n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: fmt.Sprint("t", k), Effect: corev1.TaintEffectPreferNoSchedule})
			}
			n.Labels["disk"] = fmt.Sprint("d", count)
		}
	}
	preferring := func(weights map[string]int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}
			for disk, w := range weights {
				p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution,
					corev1.PreferredSchedulingTerm{Weight: w, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{disk}}}}})
			}
		}
	}
	const added = "  pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 20, preference: " +
		"{matchExpressions: [{key: disk, operator: In, values: [d2]}]}}]}}}]\n"
	for _, row := range []struct {
		what, profile string
		pod           func(*corev1.Pod)
		want          string
	}{
		{"taints", fmt.Sprintf(only, "TaintToleration"), func(*corev1.Pod) {}, "map[0:100 1:50 2:0]"},
		{"one is tolerated", fmt.Sprintf(only, "TaintToleration"), tolerating(corev1.Toleration{Key: "t0", Operator: corev1.TolerationOpExists}), "map[0:100 1:100 2:0]"},
		{"one is tolerated with another effect", fmt.Sprintf(only, "TaintToleration"),
			tolerating(corev1.Toleration{Key: "t0", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}), "map[0:100 1:50 2:0]"},
		{"labels", fmt.Sprintf(only, "NodeAffinity"), preferring(map[string]int32{"d1": 10, "d0": 40}), "map[0:100 1:25 2:0]"},
		{"no wish", fmt.Sprintf(only, "NodeAffinity"), func(*corev1.Pod) {}, "map[0:0 1:0 2:0]"},
		{"added ones", fmt.Sprintf(only, "NodeAffinity") + added, func(*corev1.Pod) {}, "map[0:0 1:0 2:100]"},
		{"its own and added ones", fmt.Sprintf(only, "NodeAffinity") + added, preferring(map[string]int32{"d0": 40, "d2": 60}), "map[0:50 1:0 2:100]"},
	} {
		s, p := newStage(), plainPod("p")
		s.with(t, row.profile)
		for i := range 3 {
			s.node(i, avoid(i))
		}
		row.pod(p)
		if got := fmt.Sprint(s.class(p).Scores()); got != row.want {
			t.Errorf("%s: %s, want %s", row.what, got, row.want)
		}
	}
}

// A profile may have InterPodAffinity, or spreading, keep pods off and not prefer, or the other way round.
func TestHalfAPlugin(t *testing.T) {
	const bare = "  plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}]}, %s: {enabled: [{name: InterPodAffinity}, {name: PodTopologySpread}]}}\n"
	wishing := func(p *corev1.Pod) {
		apartFrom(termed())(p)
		p.Spec.Affinity.PodAffinity = &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: termed()}}}
	}
	softly := func(p *corev1.Pod) {
		constrained()(p)
		second := p.Spec.TopologySpreadConstraints[0]
		second.WhenUnsatisfiable, second.TopologyKey = corev1.ScheduleAnyway, corev1.LabelHostname
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, second)
	}
	for _, row := range []struct {
		point string
		pod   func(*corev1.Pod)
		want  string
	}{
		{"filter", wishing, "[" + hated + " ] map[1:0]"},
		{"score", wishing, "[ ] map[0:100 1:0]"},
		{"filter", softly, "[" + uneven + " ] map[1:0]"},
		{"score", softly, "[ ] map[0:0 1:100]"},
		{"filter", label("loud", "yes"), "[" + hates + " ] map[1:0]"},
		{"score", label("loud", "yes"), "[ ] map[0:0 1:0]"},
	} {
		s, p := newStage(), plainPod("p")
		s.with(t, fmt.Sprintf(bare, row.point))
		s.place("n0", "q", both(appA, apartFrom(termed(func(t *corev1.PodAffinityTerm) { t.LabelSelector.MatchLabels = map[string]string{"loud": "yes"} }))))
		row.pod(p)
		if got := fmt.Sprint(s.refused(p), s.class(p).Scores()); got != row.want {
			t.Errorf("%s only: %s, want %s", row.point, got, row.want)
		}
	}
}
