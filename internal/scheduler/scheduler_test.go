package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

func node(name, cpu string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
		"cpu": resource.MustParse(cpu), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}}}
}

func pod(name, cpu string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{
		SchedulerName: "default-scheduler", Containers: []corev1.Container{{Name: "c", Image: "web", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse(cpu)}}}}}}
}

func begin(t *testing.T, objects ...crclient.Object) *clienttest.Client {
	t.Helper()
	_, c := beginScheduler(t, objects...)
	return c
}

func beginScheduler(t *testing.T, objects ...crclient.Object) (*Scheduler, *clienttest.Client) {
	t.Helper()
	return beginWith(t, nil, objects...)
}

// run runs a scheduler until the test ends.
func run(t *testing.T, cfg Config) *Scheduler {
	t.Helper()
	s := New(cfg)
	start(t, s)
	return s
}

func start(t *testing.T, s *Scheduler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the scheduler ended with %v", err)
		}
	})
	<-s.Ready()
}

func get(t *testing.T, c *clienttest.Client, name string) *corev1.Pod {
	t.Helper()
	var p corev1.Pod
	if err := c.Get(context.Background(), crclient.ObjectKey{Namespace: "default", Name: name}, &p); err != nil {
		t.Fatal(err)
	}
	return &p
}

func why(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}

// Two nodes of one CPU take ten pods of 200 milli, five each, and not one more; when one leaves, the next gets in.
func TestNodesAreFilledAndNotMore(t *testing.T) {
	ctx := context.Background()
	c := begin(t, node("a", "1"), node("b", "1"))
	for i := range 11 {
		if err := c.Create(ctx, pod(fmt.Sprintf("p%d", i), "200m")); err != nil {
			t.Fatal(err)
		}
	}
	placed := func() map[string][]string {
		var list corev1.PodList
		if err := c.List(ctx, &list); err != nil {
			t.Fatal(err)
		}
		on := map[string][]string{}
		for _, p := range list.Items {
			on[p.Spec.NodeName] = append(on[p.Spec.NodeName], p.Name)
		}
		return on
	}
	clienttest.Eventually(t, "ten pods placed", func() bool { return len(placed()[""]) == 1 })
	if on := placed(); len(on["a"]) != 5 || len(on["b"]) != 5 {
		t.Fatalf("placed %v", on)
	}
	waiting := placed()[""][0]
	const sentence = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
	clienttest.Eventually(t, "the reason", func() bool { return why(get(t, c, waiting)) == "Unschedulable: "+sentence })
	if err := c.Delete(ctx, get(t, c, placed()["a"][0])); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the last one placed", func() bool { return get(t, c, waiting).Spec.NodeName == "a" })
	var events []string
	count := func(text string) int {
		return len(slices.DeleteFunc(slices.Clone(events), func(e string) bool { return !strings.Contains(e, text) }))
	}
	clienttest.Eventually(t, "one event a verdict", func() bool { // they are written after what they tell of
		events = append(events, c.Events()...)
		return count("Normal Scheduled Successfully assigned default/p") == 11 && count("Warning FailedScheduling "+sentence) == 1
	})
}

// A node that is uncordoned loses the mark first and its taint a moment later: neither alone lets the pod in, and the second must wake it.
func TestUncordoned(t *testing.T) {
	ctx := context.Background()
	n := node("a", "1")
	n.Spec.Unschedulable = true
	n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
	c := begin(t, n)
	if err := c.Create(ctx, pod("p", "1m")); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the reason", func() bool { return strings.Contains(why(get(t, c, "p")), "were unschedulable") })
	change := func(f func(*corev1.Node)) {
		t.Helper()
		var live corev1.Node
		if err := c.Get(ctx, crclient.ObjectKey{Name: "a"}, &live); err != nil {
			t.Fatal(err)
		}
		next := live.DeepCopy()
		f(next)
		if err := c.Update(ctx, next); err != nil {
			t.Fatal(err)
		}
	}
	change(func(n *corev1.Node) { n.Spec.Unschedulable = false })
	time.Sleep(3 * lull) // the scheduler sees one change, then the other
	if get(t, c, "p").Spec.NodeName != "" {
		t.Fatal("placed on a tainted node")
	}
	change(func(n *corev1.Node) { n.Spec.Taints = nil })
	clienttest.Eventually(t, "the pod placed", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
}

func TestWaitingPods(t *testing.T) {
	ctx := context.Background()
	c := begin(t)
	gated, foreign, claims := pod("gated", "1m"), pod("foreign", "1m"), pod("claims", "1m")
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}}
	foreign.Spec.SchedulerName = "other"
	claims.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	for _, p := range []*corev1.Pod{pod("plain", "1m"), gated, foreign, claims} {
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "the reasons", func() bool {
		return why(get(t, c, "plain")) == "Unschedulable: no nodes available to schedule pods" &&
			strings.HasPrefix(why(get(t, c, "gated")), "SchedulingGated: ")
	})
	if err := c.Create(ctx, node("a", "1")); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the plain pod placed", func() bool { return get(t, c, "plain").Spec.NodeName == "a" })
	clienttest.Eventually(t, "the reason for lack of a claim", func() bool {
		return strings.HasPrefix(why(get(t, c, "claims")), `Unschedulable: 0/1 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/1`)
	})
	clienttest.Eventually(t, "the gate opened", func() bool {
		free := get(t, c, "gated")
		free.Spec.SchedulingGates = nil
		err := c.Update(ctx, free)
		if err != nil && !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	clienttest.Eventually(t, "the pod whose gate opened placed", func() bool { return get(t, c, "gated").Spec.NodeName == "a" })
	if get(t, c, "foreign").Spec.NodeName != "" || get(t, c, "claims").Spec.NodeName != "" {
		t.Error("a pod of another scheduler, or one whose rules are not understood, was placed")
	}
}

func TestVerdict(t *testing.T) {
	got := verdict(5, map[string]int{"node(s) were unschedulable": 2, "Insufficient memory": 1, "Insufficient cpu": 3})
	if want := "0/5 nodes are available: 1 Insufficient memory, 2 node(s) were unschedulable, 3 Insufficient cpu."; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What is told of a pod that gets no node is upstream's word for word: of one that asks for several names at once nothing is told of the nodes, an event is cut
// where the condition has all, and of one that is gated there is no event.
func TestWhatIsTold(t *testing.T) {
	named := func(terms ...[]string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			required := &corev1.NodeSelector{}
			for _, names := range terms {
				var fields []corev1.NodeSelectorRequirement
				for _, name := range names {
					fields = append(fields, corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}})
				}
				required.NodeSelectorTerms = append(required.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchFields: fields})
			}
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}
		}
	}
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("2 Insufficient example.com/a-resource-that-nobody-has-%02d", i))
	}
	_, c := beginWith(t, settingsOf(t, "profiles: [{schedulerName: default-scheduler}, {schedulerName: mild, plugins: {postFilter: {disabled: [{name: DefaultPreemption}]}}}]"),
		node("a", "1"), node("b", "1"))
	const useless = " preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
	for _, row := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{changed(pod("torn", "1m"), named([]string{"a", "b"}, []string{"c", "d"})), "Unschedulable: 0/2 nodes are available: pod affinity terms conflict." + useless},
		{changed(pod("mild", "1m"), named([]string{"a", "b"}), func(p *corev1.Pod) { p.Spec.PreemptionPolicy = new(corev1.PreemptNever) }),
			"Unschedulable: 0/2 nodes are available: pod affinity terms conflict. preemption: not eligible due to preemptionPolicy=Never."},
		{changed(pod("alone", "1m"), named([]string{"a", "b"}), func(p *corev1.Pod) { p.Spec.SchedulerName = "mild" }), "Unschedulable: 0/2 nodes are available: pod affinity terms conflict."},
		{changed(pod("elsewhere", "1m"), named([]string{"c"}, []string{"a", "b"})), "Unschedulable: 0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity]." + useless},
		{changed(pod("gated", "1m"), func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} }),
			"SchedulingGated: Scheduling is blocked due to non-empty scheduling gates"},
		{changed(pod("greedy", "1m"), func(p *corev1.Pod) {
			for _, reason := range many {
				p.Spec.Containers[0].Resources.Requests[corev1.ResourceName(strings.TrimPrefix(reason, "2 Insufficient "))] = resource.MustParse("1")
			}
		}), "Unschedulable: 0/2 nodes are available: " + strings.Join(many, ", ") + "." + useless},
	} {
		create(t, c, row.pod)
		clienttest.Eventually(t, row.pod.Name, func() bool { return why(get(t, c, row.pod.Name)) != "" })
		if why(get(t, c, row.pod.Name)) != row.want {
			t.Errorf("%s: %q, want %q", row.pod.Name, why(get(t, c, row.pod.Name)), row.want)
		}
	}
	var cut, gated bool
	var events []string
	clienttest.Eventually(t, "five events", func() bool {
		events = append(events, c.Events()...)
		return len(events) >= 5
	})
	for _, e := range events {
		text := strings.TrimPrefix(e, "Warning FailedScheduling ")
		cut = cut || len(text) == 1024 && strings.HasPrefix(text, "0/2 nodes are available: 2 Insufficient example.com/a") && strings.HasSuffix(text, " ...")
		gated = gated || strings.Contains(e, "gate")
	}
	if !cut || gated || len(events) != 5 {
		t.Errorf("events %q", events)
	}
}
