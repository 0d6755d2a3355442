package preempt

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// running is a pod on a node of 4 CPU, by its name that says which budgets are about it, too.
type running struct {
	name, node string
	priority   int32
	cpu        string
	began      int // 0: it has not
}

func podOf(r running) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: r.name, UID: types.UID(r.name), Namespace: "x"}, Spec: corev1.PodSpec{Priority: &r.priority, NodeName: r.node,
		Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse(r.cpu)}}}}}}
	if app, _, named := strings.Cut(r.name, "-"); named {
		p.Labels = map[string]string{"app": app}
	}
	if r.began > 0 {
		p.Status.StartTime = new(metav1.NewTime(time.Unix(int64(r.began), 0)))
	}
	return p
}

// picture has nodes a, b and so on with pods there; f searches it.
func picture(nodes int, pods []running, budgets ...Budget) (f *Finder, table *class.Table) {
	n := cluster.New()
	for i := range nodes {
		n.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: string(rune('a' + i))}, Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{"cpu": resource.MustParse("4"), "pods": resource.MustParse("10")}}})
	}
	for _, r := range pods {
		n.Place(cluster.PodOf(podOf(r)), r.node)
	}
	return &Finder{Nodes: n, Waiting: func(p *cluster.Pod) bool { return strings.HasPrefix(p.Name, "nominated") },
		Budgets: func(string) []Budget { return budgets }}, class.NewTable(n, func(*corev1.Pod) labels.Selector { return nil })
}

func budget(selector string, allowed int32, disrupted ...string) Budget {
	b := &policyv1.PodDisruptionBudget{Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed, DisruptedPods: map[string]metav1.Time{}}}
	for _, name := range disrupted {
		b.Status.DisruptedPods[name] = metav1.Now()
	}
	s, err := labels.Parse(selector)
	if err != nil {
		panic(err)
	}
	return Budget{b, s}
}

func (c *Choice) text(n *cluster.Nodes) string {
	if c == nil {
		return "nobody"
	}
	list := []string{n.Name(c.Node)}
	for _, v := range c.Victims {
		list = append(list, v.Name)
	}
	for _, w := range c.Waiting {
		list = append(list, "("+w.Name+")")
	}
	return fmt.Sprint(strings.Join(list, " "), ", ", c.Violations, " violated")
}

// Who gives way for a pod of 2 CPU and priority 100, in upstream's order of criteria. The nodes have 4 CPU.
func TestWhoGivesWay(t *testing.T) {
	full := running{"filler", "b", 200, "4", 1}
	for name, tt := range map[string]struct {
		pods    []running
		budgets []Budget
		want    string
	}{
		"fewer budgets violated": {[]running{{"db-1", "a", 1, "4", 1}, {"web", "b", 50, "4", 1}}, []Budget{budget("app=db", 0)}, "b web, 0 violated"},
		"a less important victim, though more of them": {[]running{{"one", "a", 10, "4", 1}, {"x", "b", 5, "1", 1}, {"y", "b", 5, "1", 1}, {"top", "b", 100, "2", 1}},
			nil, "b x y, 0 violated"},
		"a lower sum": {[]running{{"a1", "a", 10, "2", 1}, {"a2", "a", 9, "2", 1}, {"b1", "b", 10, "2", 1}, {"b2", "b", 1, "2", 1}}, nil, "b b2, 0 violated"},
		"a lower sum of several": {[]running{{"a1", "a", 10, "1", 1}, {"a2", "a", 9, "1", 1}, {"top1", "a", 100, "2", 1}, {"b1", "b", 10, "1", 1}, {"b2", "b", 1, "1", 1}, {"top2", "b", 100, "2", 1}},
			nil, "b b1 b2, 0 violated"},
		"fewer of the same sum": {[]running{{"a1", "a", -5, "1", 1}, {"a2", "a", math.MinInt32, "1", 1}, {"top1", "a", 100, "2", 1},
			{"b1", "b", -5, "2", 1}, {"top2", "b", 100, "2", 1}}, nil, "b b1, 0 violated"},
		"the one that began later":           {[]running{{"a1", "a", 10, "4", 1}, {"b1", "b", 10, "4", 2}}, nil, "b b1, 0 violated"},
		"the one that has not begun":         {[]running{{"a1", "a", 10, "4", 1}, {"b1", "b", 10, "4", 0}}, nil, "b b1, 0 violated"},
		"of the most important alone":        {[]running{{"a1", "a", 10, "1", 3}, {"a2", "a", 1, "1", 9}, {"t1", "a", 100, "2", 1}, {"b1", "b", 10, "1", 5}, {"b2", "b", 1, "1", 1}, {"t2", "b", 100, "2", 1}}, nil, "b b1 b2, 0 violated"},
		"the first of those that began":      {[]running{{"a1", "a", 10, "1", 3}, {"a2", "a", 10, "1", 9}, {"t1", "a", 100, "2", 1}, {"b1", "b", 10, "1", 4}, {"b2", "b", 10, "1", 4}, {"t2", "b", 100, "2", 1}}, nil, "b b1 b2, 0 violated"},
		"the more important stay":            {[]running{{"p30", "a", 30, "1", 1}, {"p20", "a", 20, "1", 1}, {"p10", "a", 10, "2", 1}, full}, nil, "a p10, 0 violated"},
		"the older of equals stay":           {[]running{{"old", "a", 10, "2", 1}, {"young", "a", 10, "2", 2}, full}, nil, "a young, 0 violated"},
		"those with a budget stay first":     {[]running{{"db-1", "a", 10, "2", 1}, {"web", "a", 20, "2", 1}, full}, []Budget{budget("app=db", 0)}, "a web, 0 violated"},
		"a budget with room for one":         {[]running{{"db-1", "a", 10, "2", 1}, {"db-2", "a", 20, "2", 1}, full}, []Budget{budget("app=db", 1)}, "a db-2, 0 violated"},
		"a budget is violated":               {[]running{{"db-1", "a", 10, "2", 1}, {"db-2", "a", 20, "2", 1}, full}, []Budget{budget("app=db", 0)}, "a db-1, 1 violated"},
		"victims are told in order":          {[]running{{"db-1", "a", 10, "1", 1}, {"web", "a", 20, "1", 1}, {"top", "a", 100, "2", 1}, full}, []Budget{budget("app=db", 0)}, "a web db-1, 1 violated"},
		"one that is on its way already":     {[]running{{"db-1", "a", 10, "4", 1}, full}, []Budget{budget("app=db", 0, "db-1")}, "a db-1, 0 violated"},
		"a budget of another app":            {[]running{{"db-1", "a", 10, "4", 1}, full}, []Budget{budget("app=web", 0)}, "a db-1, 0 violated"},
		"the second budget":                  {[]running{{"db-1", "a", 10, "4", 1}, full}, []Budget{budget("app=web", 0), budget("app=db", 1, "db-1"), budget("app=db", 0)}, "a db-1, 1 violated"},
		"budgets that are spent together":    {[]running{{"db-1", "a", 10, "2", 1}, {"db-2", "a", 20, "2", 1}, full}, []Budget{budget("app=db", 1), budget("app=db", 9)}, "a db-2, 0 violated"},
		"a budget for nobody":                {[]running{{"db-1", "a", 10, "4", 1}, full}, []Budget{budget("", 0)}, "a db-1, 0 violated"},
		"a pod without labels has no budget": {[]running{{"plain", "a", 10, "4", 1}, full}, []Budget{budget("!app", 0)}, "a plain, 0 violated"},
		"who only holds the place":           {[]running{{"nominated-1", "a", 10, "4", 1}, full}, []Budget{budget("app=nominated", 0)}, "a (nominated-1), 0 violated"},
		"equals do not give way":             {[]running{{"same", "a", 100, "4", 1}, full}, nil, "nobody"},
		"nor those whose room is too small":  {[]running{{"small", "a", 10, "1", 1}, {"top", "a", 100, "3", 1}, full}, nil, "nobody"},
	} {
		for _, search := range []func(f *Finder, p *cluster.Pod, c *class.Class) *Choice{
			func(f *Finder, p *cluster.Pod, c *class.Class) *Choice { best, _ := f.Find(p, c); return best },
			func(f *Finder, p *cluster.Pod, c *class.Class) (best *Choice) { // in the other order
				all, _ := f.All(p, c)
				for _, choice := range slices.Backward(all) {
					best = Better(choice, best)
				}
				return best
			},
		} {
			f, table := picture(2, tt.pods, tt.budgets...)
			p := cluster.PodOf(podOf(running{"urgent", "", 100, "2", 0}))
			if got := search(f, p, table.Of(p)).text(f.Nodes); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s: %s, want %s", name, got, tt.want)
			}
		}
	}
}

// Why nodes are of no use, in upstream's words.
func TestNodesOfNoUse(t *testing.T) {
	f, table := picture(5, []running{{"same", "a", 100, "4", 1}, {"small", "b", 10, "1", 1}, {"top", "b", 100, "3", 1}, {"top2", "c", 100, "4", 1}, {"low", "d", 10, "4", 1}})
	f.Refuses = func(i int) bool { return f.Nodes.Name(i) == "d" }
	p := cluster.PodOf(podOf(running{"urgent", "", 100, "2", 0}))
	choice, reasons := f.Find(p, table.Of(p))
	if want := "map[Insufficient cpu:1 No preemption victims found for incoming pod:3 Preemption is not helpful for scheduling:1]"; choice != nil || fmt.Sprint(reasons) != want {
		t.Errorf("%v, %v, want %s", choice, reasons, want)
	}
	p = cluster.PodOf(podOf(running{"huge", "", 100, "5", 0}))
	if choice, reasons = f.Find(p, table.Of(p)); choice != nil || fmt.Sprint(reasons) != "map[Preemption is not helpful for scheduling:5]" {
		t.Errorf("%v, %v", choice, reasons)
	}
}

// A search ends when it has found enough, of the nodes where it may help, and one at least that violates no budget. The next begins where it ended.
func TestHowManyAreTried(t *testing.T) {
	pods := []running{{"db-1", "a", 1, "4", 1}, {"db-2", "b", 1, "4", 1}, {"web", "c", 50, "4", 1}, {"own", "d", 60, "4", 1}}
	for name, tt := range map[string]struct {
		share, least int
		budgets      []Budget
		tainted      string
		want         []int // found by one search after the other
		removed      string
	}{
		"what is left":                    {0, 9, nil, "", []int{3, 3}, "b"},
		"all":                             {0, 9, nil, "", []int{4, 4}, ""},
		"one":                             {0, 1, nil, "", []int{1, 1}, ""},
		"half":                            {50, 0, nil, "", []int{2, 2}, ""},
		"half of those where it may help": {50, 0, nil, "ab", []int{1, 1}, ""},
		"one at least":                    {1, 0, nil, "", []int{1, 1}, ""},
		"the larger":                      {50, 3, nil, "", []int{3, 3}, ""},
		"more, as long as they violate":   {0, 1, []Budget{budget("app=db", 0)}, "", []int{3, 1, 3}, ""},
	} {
		f, table := picture(4, pods, tt.budgets...)
		for _, r := range tt.tainted {
			n := f.Nodes.Node[strings.IndexRune("abcd", r)].DeepCopy()
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
			f.Nodes.Set(n)
		}
		f.Nodes.Remove(tt.removed)
		p := cluster.PodOf(podOf(running{"urgent", "", 100, "2", 0}))
		p.Profile = &profile.Profile{TryShare: tt.share, TryLeast: tt.least}
		first := ""
		for k, want := range tt.want {
			all, _ := f.All(p, table.Of(p))
			if len(all) != want {
				t.Errorf("%s, search %d: %d tried, want %d", name, k, len(all), want)
			} else if at := f.Nodes.Name(all[0].Node); k == 0 {
				first = at
			} else if k == 1 && want < 4 && tt.removed == "" && at == first {
				t.Errorf("%s: the second search began at %s again", name, at)
			}
		}
	}
}

// Without a profile a tenth of the nodes is tried, and a hundred at least.
func TestHowManyAreTriedByDefault(t *testing.T) {
	for nodes, want := range map[int]int{90: 90, 300: 100, 1500: 150} {
		n := cluster.New()
		for i := range nodes {
			name := fmt.Sprint("n", i)
			n.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{"cpu": resource.MustParse("4"), "pods": resource.MustParse("10")}}})
			n.Place(cluster.PodOf(podOf(running{"low" + name, name, 1, "4", 1})), name)
		}
		f := &Finder{Nodes: n, Waiting: func(*cluster.Pod) bool { return false }, Budgets: func(string) []Budget { return nil }}
		p := cluster.PodOf(podOf(running{"urgent", "", 100, "2", 0}))
		if all, _ := f.All(p, class.NewTable(n, func(*corev1.Pod) labels.Selector { return nil }).Of(p)); len(all) != want {
			t.Errorf("of %d nodes %d were tried, want %d", nodes, len(all), want)
		}
	}
}

// What was found out about a node holds until that, or what nodes do not tell of, changes; and for pods of one priority.
func TestWhatIsRemembered(t *testing.T) {
	violated := []Budget{budget("app=db", 0)}
	f, table := picture(1, []running{{"db-1", "a", 10, "2", 1}, {"db-2", "a", 50, "2", 1}})
	f.Budgets = func(string) []Budget { return violated }
	find := func(priority int32) string {
		p := cluster.PodOf(podOf(running{"urgent", "", priority, "2", 0}))
		choice, _ := f.Find(p, table.Of(p))
		return choice.text(f.Nodes)
	}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	want(find(100), "a db-1, 1 violated")
	want(find(10), "nobody")
	want(find(100), "a db-1, 1 violated")
	violated = nil
	want(find(100), "a db-1, 1 violated")
	f.Forget()
	want(find(100), "a db-1, 0 violated")
	f.Nodes.Displace("db-2")
	f.Nodes.Place(cluster.PodOf(podOf(running{"db-3", "a", 5, "2", 1})), "a")
	want(find(100), "a db-3, 0 violated")
}

func TestEligible(t *testing.T) {
	low := func(change ...func(*corev1.Pod)) *corev1.Pod {
		p := podOf(running{"low", "a", 10, "4", 1})
		p.DeletionTimestamp = new(metav1.Now())
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler}}
		for _, f := range change {
			f(p)
		}
		return p
	}
	for name, tt := range map[string]struct {
		victim    *corev1.Pod
		never     bool
		nominated int
		final     bool
		want      string
	}{
		"it waits for the victim":            {low(), false, 0, false, Terminating},
		"it is nominated to no node":         {low(), false, -1, false, ""},
		"it can never go there":              {low(), false, 0, true, ""},
		"the pod never preempts":             {low(), true, -1, false, "not eligible due to preemptionPolicy=Never."},
		"the victim is not on its way":       {low(func(p *corev1.Pod) { p.DeletionTimestamp = nil }), false, 0, false, ""},
		"it is on its way by itself":         {low(func(p *corev1.Pod) { p.Status.Conditions = nil }), false, 0, false, ""},
		"somebody else has it go":            {low(func(p *corev1.Pod) { p.Status.Conditions[0].Reason = "EvictionByEvictionAPI" }), false, 0, false, ""},
		"it was to go and is not any more":   {low(func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }), false, 0, false, ""},
		"the victim is as important":         {low(func(p *corev1.Pod) { p.Spec.Priority = new(int32(100)) }), false, 0, false, ""},
		"a condition that is about the rest": {low(func(p *corev1.Pod) { p.Status.Conditions[0].Type = corev1.PodReady }), false, 0, false, ""},
	} {
		f, _ := picture(1, nil)
		f.Nodes.Place(cluster.PodOf(tt.victim), "a")
		p := cluster.PodOf(podOf(running{"urgent", "", 100, "2", 0}))
		if tt.never {
			p.Spec.PreemptionPolicy = new(corev1.PreemptNever)
		}
		if got := Eligible(p, f.Nodes, tt.nominated, tt.final); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// A choice that somebody else changed is compared by its new victims.
func TestChanged(t *testing.T) {
	f, table := picture(1, []running{{"p10", "a", 10, "2", 1}, {"p50", "a", 50, "2", 1}})
	p := cluster.PodOf(podOf(running{"urgent", "", 100, "2", 0}))
	was, _ := f.Find(p, table.Of(p))
	changed := was.Changed(slices.Clone(f.Nodes.On[0]), 7)
	if got := changed.text(f.Nodes); got != "a p50 p10, 7 violated" || was.text(f.Nodes) != "a p10, 0 violated" {
		t.Errorf("%s; it was %s", got, was.text(f.Nodes))
	}
}

// Nodes are counted by whether somebody's leaving can help.
func TestNobody(t *testing.T) {
	if got := fmt.Sprint(Nobody(&class.Verdict{Nodes: 3, Final: 1}), Nobody(&class.Verdict{Nodes: 1, Final: 1}), Nobody(&class.Verdict{Nodes: 1}), Useless(4)); got !=
		"map[No preemption victims found for incoming pod:2 Preemption is not helpful for scheduling:1] map[Preemption is not helpful for scheduling:1] "+
			"map[No preemption victims found for incoming pod:1] map[Preemption is not helpful for scheduling:4]" {
		t.Error(got)
	}
}
