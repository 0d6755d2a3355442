package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
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

// A node that is deleted while a pod is being bound to it is not tried again.
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
	}, node("a", "1"), node("b", "1"))
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

// A pod with ten thousand rules about other pods waits for a place like any other, and the others do not wait for it.
func TestPoisonedPod(t *testing.T) {
	ctx := context.Background()
	var nodes []crclient.Object
	for i := range 20 {
		n := node(fmt.Sprintf("n%d", i), "4")
		n.Labels = map[string]string{"zone": fmt.Sprint(i % 4)}
		nodes = append(nodes, n)
	}
	c := begin(t, nodes...)
	poison := pod("poison", "100")
	var terms []corev1.PodAffinityTerm
	for i := range 10000 {
		terms = append(terms, corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{fmt.Sprint("a", i), "web"}}}}})
	}
	poison.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
	if err := c.Create(ctx, poison); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the poisoned pod is told why it waits", func() bool { return why(get(t, c, "poison")) != "" })
	for i := range 100 {
		p := pod(fmt.Sprintf("p%d", i), "100m")
		p.Labels = map[string]string{"app": fmt.Sprint("a", i)}
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "all others are placed", func() bool {
		var list corev1.PodList
		if err := c.List(ctx, &list); err != nil {
			t.Fatal(err)
		}
		placed := 0
		for i := range list.Items {
			if list.Items[i].Spec.NodeName != "" {
				placed++
			}
		}
		return placed == 100
	})
}
