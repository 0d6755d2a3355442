package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/cluster"
)

// refusing is an API that refuses some bindings.
type refusing struct {
	*clienttest.Client
	refuse func(pod, node string) error
}

func (r refusing) SubResource(name string) crclient.SubResourceClient {
	return refusingSub{r.Client.SubResource(name), name, r.refuse}
}

type refusingSub struct {
	crclient.SubResourceClient
	name   string
	refuse func(pod, node string) error
}

func (r refusingSub) Create(ctx context.Context, o, sub crclient.Object, opts ...crclient.SubResourceCreateOption) error {
	if b, ok := sub.(*corev1.Binding); ok && r.name == "binding" {
		if err := r.refuse(o.GetName(), b.Target.Name); err != nil {
			return err
		}
	}
	return r.SubResourceClient.Create(ctx, o, sub, opts...)
}

func beginRefusing(t *testing.T, refuse func(c *clienttest.Client, pod, node string) error, objects ...crclient.Object) *clienttest.Client {
	t.Helper()
	c := clienttest.New(t, objects...)
	run(t, Config{Client: refusing{c, func(pod, node string) error { return refuse(c, pod, node) }}, Log: slog.New(slog.DiscardHandler)})
	return c
}

// once refuses the first binding of every pod with the errors in turn.
func once(errs ...error) func(pod string) error {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(pod string) error {
		mu.Lock()
		defer mu.Unlock()
		if seen[pod] {
			return nil
		}
		seen[pod] = true
		return errs[len(seen)%len(errs)]
	}
}

// Whatever a binding fails by, the pod is bound at last and the room it was given in vain is given back: ten pods fill two nodes exactly.
func TestBindingsThatFail(t *testing.T) {
	ctx := context.Background()
	pods := schema.GroupResource{Resource: "pods/binding"}
	first := once(apierrors.NewConflict(pods, "p", errors.New("somebody was faster")), errors.New("connection refused"), apierrors.NewServerTimeout(pods, "create", 1))
	c := beginRefusing(t, func(_ *clienttest.Client, pod, _ string) error { return first(pod) }, node("a", "1"), node("b", "1"))
	for i := range 10 {
		if err := c.Create(ctx, pod(fmt.Sprintf("p%d", i), "200m")); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "all are bound, five on each node", func() bool {
		var list corev1.PodList
		if err := c.List(ctx, &list); err != nil {
			t.Fatal(err)
		}
		on := map[string]int{}
		for i := range list.Items {
			on[list.Items[i].Spec.NodeName]++
		}
		return on["a"] == 5 && on["b"] == 5
	})
}

// A pod that is bound though its binding is said to have failed is not told that it has no node.
func TestBoundAfterAll(t *testing.T) {
	l := writing(t, nil, func(write func(context.Context)) { write(context.Background()) })
	create(t, l.client, pod("p", "100m"))
	l.happen(nodeIs(node("a", "1")))
	p := get(t, l.client, "p")
	l.podChanged(nil, p)
	l.schedule(l.queue.Pop(l.now()))
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, l.client, "p").Spec.NodeName == "a" })
	l.unbound(l.nodes.Placed(p.UID), p, 1, "the answer was lost")
	clienttest.Eventually(t, "that told", func() bool { return contains(l.client.Events(), "Warning FailedScheduling the answer was lost") })
	if got := why(get(t, l.client, "p")); got != "" {
		t.Errorf("the pod says %s", got)
	}
}

// A node that is deleted while a pod is being bound to it is not tried again, though it was the better one.
func TestNodeDeletedUnderBinding(t *testing.T) {
	ctx := context.Background()
	gone := once(errors.New("the node is gone"))
	c := beginRefusing(t, func(c *clienttest.Client, pod, target string) error {
		err := gone(pod)
		if err != nil {
			if err := c.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: target}}); err != nil {
				return fmt.Errorf("delete node: %w", err)
			}
		}
		return err
	}, node("a", "2"), node("b", "1"))
	if err := c.Create(ctx, pod("p", "1")); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the pod is on the node that is left", func() bool {
		var nodes corev1.NodeList
		if err := c.List(ctx, &nodes); err != nil {
			t.Fatal(err)
		}
		return len(nodes.Items) == 1 && get(t, c, "p").Spec.NodeName == nodes.Items[0].Name
	})
}

// poisons are pods whose rules are absurd.
var poisons = map[string]func(p *corev1.Pod){
	"ten thousand anti-affinity terms, fits nowhere": func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: absurdTerms(10000)}}
	},
	"a thousand anti-affinity terms against nobody, runs": func(p *corev1.Pod) {
		terms := absurdTerms(1000)
		for i := range terms {
			terms[i].LabelSelector.MatchExpressions[0].Operator = metav1.LabelSelectorOpIn
			terms[i].LabelSelector.MatchExpressions[0].Values = []string{fmt.Sprint("nobody", i)}
		}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
		p.Spec.Containers[0].Resources.Requests = nil
	},
	"a thousand preferred terms about everybody, runs": func(p *corev1.Pod) {
		var terms []corev1.WeightedPodAffinityTerm
		for _, t := range absurdTerms(1000) {
			terms = append(terms, corev1.WeightedPodAffinityTerm{Weight: 100, PodAffinityTerm: t})
		}
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: terms}}
		p.Spec.Containers[0].Resources.Requests = nil
	},
	"ten thousand spreading constraints": func(p *corev1.Pod) {
		for _, t := range absurdTerms(10000) {
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
				MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: t.LabelSelector})
		}
	},
	"a node selector of a hundred thousand values": func(p *corev1.Pod) {
		var terms []corev1.NodeSelectorTerm
		for i := range 100 {
			r := corev1.NodeSelectorRequirement{Key: "zone", Operator: corev1.NodeSelectorOpIn}
			for k := range 1000 {
				r.Values = append(r.Values, fmt.Sprint("nowhere", i, k))
			}
			terms = append(terms, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{r}})
		}
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms}}}
	},
}

func absurdTerms(n int) (terms []corev1.PodAffinityTerm) {
	for i := range n {
		terms = append(terms, corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{fmt.Sprint("a", i), "web"}}}}})
	}
	return terms
}

// A pod with absurd rules waits for a place, or has one, like any other, and the others do not wait for it: neither while it is tried, nor for its rules.
func TestPoisonedPod(t *testing.T) {
	const stalled = 30 * time.Second // of CPU; none takes a fiftieth of it, nor half of it with the race detector
	for name, spoil := range poisons {
		t.Run(name, func(t *testing.T) {
			l := pendingLoop(t, clienttest.New(t), 0, 0, 1)
			for i := range 20 {
				n := node(fmt.Sprintf("n%d", i), "4")
				n.Labels = map[string]string{"zone": fmt.Sprint(i % 4)}
				l.nodeChanged(nil, n)
			}
			try := func(p *corev1.Pod) {
				p.UID = types.UID(p.Name)
				l.podChanged(nil, p)
				l.schedule(l.queue.Pop(l.now()))
			}
			poison := pod("poison", "100")
			spoil(poison)
			began := cpuTime(t)
			try(poison)
			if took := cpuTime(t) - began; took > stalled {
				t.Errorf("it is tried for %s", took)
			}
			began = cpuTime(t)
			for i := range 100 {
				p := pod(fmt.Sprintf("p%d", i), "100m")
				p.Labels = map[string]string{"app": fmt.Sprint("a", i)}
				if try(p); !l.assumed[p.UID] {
					t.Fatalf("%s has no place", p.Name)
				}
				if !l.assumed[poison.UID] && !l.classes.Of(cluster.PodOf(p)).Independent() {
					t.Fatalf("the rules of a pod that has no place bind %s", p.Name)
				}
			}
			if took := cpuTime(t) - began; took > stalled {
				t.Errorf("a hundred others take %s", took)
			}
		})
	}
}

// cpuTime is what this process has used, which does not depend on what else the machine does.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
