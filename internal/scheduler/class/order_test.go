package class

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// class is what a table of its own makes of a pod.
func (s *stage) class(p *corev1.Pod) *Class {
	q := cluster.PodOf(p)
	if rules := s.rules[p.Spec.SchedulerName]; rules != nil {
		q.Use(rules)
	}
	q.Volumes, _, _ = s.book.Of(p)
	return NewTable(s.nodes, s.sibling).Of(q)
}

// with is a stage whose pods without a scheduler's name have this profile.
func (s *stage) with(t *testing.T, profile string) {
	s.rules = readProfiles(t, "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- schedulerName: default-scheduler\n"+profile)
	s.rules[""] = s.rules["default-scheduler"]
}

// What speaks against a node is told of the first of upstream's filters that minds, whatever else there is: a pod of which two things speak against a node
// is told the one that upstream would name.
func TestTheFirstFilterThatMindsIsTold(t *testing.T) {
	of := func(p *corev1.Pod) *corev1.Affinity {
		if p.Spec.Affinity == nil {
			p.Spec.Affinity = &corev1.Affinity{}
		}
		return p.Spec.Affinity
	}
	term := func(app string) []corev1.PodAffinityTerm {
		one := ofApp()
		one.LabelSelector.MatchLabels["app"] = app
		return []corev1.PodAffinityTerm{one}
	}
	onNode := func(s *stage, change func(*corev1.Node)) {
		n := s.nodes.Node[0].DeepCopy()
		change(n)
		s.nodes.Set(n)
	}
	obstacles := []struct {
		reason string
		of     func(s *stage)
		pod    func(p *corev1.Pod)
	}{
		{"node(s) didn't match the requested node name", nil, func(p *corev1.Pod) { p.Spec.NodeName = "n1" }},
		{"node(s) were unschedulable", func(s *stage) { onNode(s, func(n *corev1.Node) { n.Spec.Unschedulable = true }) }, nil},
		{"node(s) had untolerated taint(s)", func(s *stage) {
			onNode(s, func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "t", Effect: corev1.TaintEffectNoExecute}} })
		}, nil},
		{"node(s) didn't match scheduler-enforced node affinity", func(s *stage) {
			s.with(t, "  pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "+
				"[{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}]}}}}]\n")
		}, nil},
		{"node(s) didn't match Pod's node affinity/selector", nil, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "hdd"} }},
		{"node(s) didn't have free ports for the requested pod ports", func(s *stage) { s.place("n0", "port", hostPort("", "TCP", 80)) }, hostPort("", "TCP", 80)},
		{"Insufficient cpu", nil, func(p *corev1.Pod) { asking(p, "cpu", "2") }},
		{"node(s) exceed max volume count", func(s *stage) {
			s.claim("limited", "static", "1Gi", attachable("h"))
			s.nodes.SetAttachLimits("n0", map[string]int{csiDriver: 0})
		}, claiming("limited")},
		{"node(s) didn't match PersistentVolume's node affinity", func(s *stage) { s.claim("elsewhere", "static", "1Gi", reaching("hdd")) }, claiming("elsewhere")},
		{"node(s) had no available volume zone", func(s *stage) { s.claim("zonal", "static", "1Gi", inZone(corev1.LabelTopologyZone, "z1")) }, claiming("zonal")},
		{"node(s) didn't match pod topology spread constraints", func(s *stage) { s.place("n0", "spread", label("app", "a")) },
			func(p *corev1.Pod) { p.Labels["app"] = "a"; spreadBy(1)(p) }},
		{"node(s) didn't match pod affinity rules", func(s *stage) { s.place("n1", "together", label("app", "together")) },
			func(p *corev1.Pod) {
				of(p).PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term("together")}
			}},
		{"node(s) didn't match pod anti-affinity rules", func(s *stage) { s.place("n0", "apart", label("app", "apart")) },
			func(p *corev1.Pod) {
				of(p).PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term("apart")}
			}},
		{"node(s) didn't satisfy existing pods anti-affinity rules", func(s *stage) {
			shy := ofApp()
			shy.LabelSelector.MatchLabels = map[string]string{"loud": "yes"}
			s.place("n0", "shy", apartFrom(shy))
		}, label("loud", "yes")},
		{"node(s) didn't match Pod's required features", nil, restartingAll},
	}
	for i := range obstacles {
		for j := i; j < len(obstacles); j++ {
			s, p := newStage(), plainPod("p")
			for _, k := range []int{i, j} {
				if k == i && i != j || k == j {
					if obstacles[k].of != nil {
						obstacles[k].of(s)
					}
					if obstacles[k].pod != nil {
						obstacles[k].pod(p)
					}
				}
				if i == j {
					break
				}
			}
			c := s.class(p)
			r, _ := c.Why(0)
			if r == nil || fmt.Sprint(r.Reasons) != "["+obstacles[i].reason+"]" && !strings.HasPrefix(r.Reasons[0], obstacles[i].reason) {
				t.Errorf("%q with %q: %v", obstacles[i].reason, obstacles[j].reason, r)
				continue
			}
			if got := c.Verdict().Reasons[r.Reasons[0]]; got == 0 {
				t.Errorf("%q with %q: not in the verdict %v", obstacles[i].reason, obstacles[j].reason, c.Verdict().Reasons)
			}
			if f := c.Inquire().Find(0); f.Plugin == "" || f.Reasons[0] != r.Reasons[0] {
				t.Errorf("%q with %q: explained by %q, %v", obstacles[i].reason, obstacles[j].reason, f.Plugin, f.Refusal)
			}
			var trial Trial
			if c.On(0, &trial); trial.Refusal() == nil || trial.Refusal().Reasons[0] != r.Reasons[0] {
				t.Errorf("%q with %q: a trial says %v", obstacles[i].reason, obstacles[j].reason, trial.Refusal())
			}
		}
	}
}

// What a node lacks of what a pod is declared to need is of no account to those who leave: nobody makes room by leaving.
func TestFeaturesAreFinal(t *testing.T) {
	s, p := newStage(), plainPod("p")
	restartingAll(p)
	c := s.class(p)
	if v := c.Verdict(); v.Final != 2 || v.Helps&cluster.Features == 0 || c.Feasible() {
		t.Errorf("verdict %+v", v)
	}
	s.node(1, func(n *corev1.Node) { n.Status.DeclaredFeatures = []string{restartsAll} })
	if c = s.class(p); len(c.Scores()) != 1 || !c.Fits(1) {
		t.Errorf("scores %v", c.Scores())
	}
}

// By which nodes spreading counts is the pod's word, also under a profile that keeps nobody off nodes with taints or without labels.
func TestInclusionPoliciesWithoutTheFilters(t *testing.T) {
	honor := corev1.NodeInclusionPolicyHonor
	for plugin, change := range map[string]func(s *stage, p *corev1.Pod){
		"TaintToleration": func(s *stage, p *corev1.Pod) {
			s.node(1, func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "t", Effect: corev1.TaintEffectNoSchedule}} })
			p.Spec.TopologySpreadConstraints[0].NodeTaintsPolicy = &honor
		},
		"NodeAffinity": func(s *stage, p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} },
	} {
		s, p := newStage(), plainPod("p")
		s.with(t, "  plugins: {multiPoint: {disabled: [{name: "+plugin+"}]}}\n")
		s.place("n0", "q", label("app", "a"))
		both(label("app", "a"), spreadBy(1))(p)
		change(s, p)
		if c := s.class(p); !c.Fits(0) || !c.Fits(1) {
			t.Errorf("without %s: %v", plugin, c.Verdict().Reasons)
		}
	}
}

// Who is bound by name is bound by NodeAffinity: under a profile without it he may go anywhere. Fields of one term must all hold, and one of the terms.
func TestNamedNodes(t *testing.T) {
	in := func(names ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: names}
	}
	notIn := in("n0")
	notIn.Operator = corev1.NodeSelectorOpNotIn
	type fields = []corev1.NodeSelectorRequirement
	for _, row := range []struct {
		terms   []fields
		profile string
		want    string
	}{
		{[]fields{{in("n1")}}, "", "map[node(s) didn't satisfy plugin(s) [NodeAffinity]:1]"},
		{[]fields{{in("n1"), in("n1")}}, "", "map[node(s) didn't satisfy plugin(s) [NodeAffinity]:1]"},
		{[]fields{{in("n0"), in("n1")}, {in("n1")}}, "", "map[node(s) didn't satisfy plugin(s) [NodeAffinity]:1]"},
		{[]fields{{in("n0")}, {in("n1")}}, "", "map[]"},
		{[]fields{{in("n7")}}, "", "map[node(s) didn't satisfy plugin(s) [NodeAffinity]:2]"},
		{[]fields{{notIn}}, "", "map[node(s) didn't match Pod's node affinity/selector:1]"},
		{[]fields{{in("n0"), notIn}}, "", "map[node(s) didn't match Pod's node affinity/selector:1 node(s) didn't satisfy plugin(s) [NodeAffinity]:1]"},
		{[]fields{{in("n1")}, {notIn}}, "", "map[node(s) didn't match Pod's node affinity/selector:1]"},
		{[]fields{{in("n1")}}, "  plugins: {multiPoint: {disabled: [{name: NodeAffinity}]}}\n", "map[]"},
	} {
		s, p := newStage(), plainPod("p")
		if row.profile != "" {
			s.with(t, row.profile)
		}
		required := &corev1.NodeSelector{}
		for _, f := range row.terms {
			required.NodeSelectorTerms = append(required.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchFields: f})
		}
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}
		if got := fmt.Sprint(s.class(p).Verdict().Reasons); got != row.want {
			t.Errorf("%v %s: %s, want %s", row.terms, row.profile, got, row.want)
		}
	}
}

// Upstream's own constraints do not pass over nodes that have no zone. How many domains weigh counts all of these as one.
func TestNodesWithoutAZoneWeighAsOne(t *testing.T) {
	s, p := newStage(), plainPod("p")
	s.with(t, "  plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: PodTopologySpread}]}}\n")
	for i := range 3 {
		s.node(i, func(n *corev1.Node) {
			if i > 0 {
				delete(n.Labels, corev1.LabelTopologyZone)
			}
		})
	}
	s.sibling = func(*corev1.Pod) labels.Selector { return labels.SelectorFromSet(labels.Set{"app": "a"}) }
	for i := range 3 {
		s.place("n0", fmt.Sprint("q", i), label("app", "a"))
	}
	s.place("n1", "r", label("app", "a"))
	// n0: 3 ln 5 + 2 for itself, 3 ln 4 + 4 for its zone; n1: ln 5 + 2; n2: 2
	if got := fmt.Sprint(s.class(p).Scores()); got != "map[0:13 1:86 2:100]" {
		t.Errorf("scores %s", got)
	}
}

// An image counts wherever a pod has it from; and the more images it needs, the less one is worth.
func TestImages(t *testing.T) {
	const mb = 1 << 20
	s, p := newStage(), plainPod("p")
	s.with(t, "  plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: ImageLocality}]}}\n")
	s.node(0, func(n *corev1.Node) {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"a:latest", "a@sha256:1"}, SizeBytes: 1046 * mb}, {Names: []string{"b:2"}, SizeBytes: 900 * mb}}
	})
	score := func() int64 { return s.class(p).Scores()[0] }
	p.Spec.Containers[0].Image = "a"
	if got := score(); got != 100*(523-23)/(1000-23) {
		t.Errorf("a container's: %d", got)
	}
	p.Spec.InitContainers = []corev1.Container{{Image: "b:2"}}
	if got := score(); got != 100*(523+450-23)/(2000-23) {
		t.Errorf("an init container's too: %d", got)
	}
	imageVolume("a@sha256:1")(p)
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "other"})
	if got := score(); got != 100*(523+450+523-23)/(3000-23) {
		t.Errorf("a volume's too: %d", got)
	}
	s.node(1, func(n *corev1.Node) {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"a:latest"}, SizeBytes: mb}}
	})
	if got := score(); got != 100*(1046+450+523-23)/(3000-23) {
		t.Errorf("one of which another node has a smaller one: %d", got)
	}
}
