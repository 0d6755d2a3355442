package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/explain"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// seen has the loop hear of all that has happened: a pod that comes after it is bound.
func seen(t *testing.T, c *clienttest.Client, mark string) {
	t.Helper()
	p := pod(mark, "1m")
	p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	create(t, c, p)
	clienttest.Eventually(t, "the loop hears", func() bool { return get(t, c, mark).Spec.NodeName != "" })
}

func update[T crclient.Object](t *testing.T, c *clienttest.Client, o T, change func(T)) {
	t.Helper()
	if err := c.Get(context.Background(), crclient.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	change(o)
	if err := c.Update(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

// What changes between the choice of a node and the binding counts at the next try, if the binding fails. A pod goes to node a by itself, which is larger; then it
// has to go to b, and a has room for as much as it had before.
func TestChangesUnderBinding(t *testing.T) {
	ctx := context.Background()
	taint := corev1.Taint{Key: "t", Effect: corev1.TaintEffectNoSchedule}
	away := &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
		{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}}}}
	for what, k := range map[string]struct {
		before, meanwhile func(t *testing.T, c *clienttest.Client)
		done              bool // the binding is asked for all the same
		gone              bool // a is
	}{
		"the node is tainted": {meanwhile: func(t *testing.T, c *clienttest.Client) {
			update(t, c, node("a", "4"), func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{taint} })
		}},
		"the node is cordoned": {meanwhile: func(t *testing.T, c *clienttest.Client) {
			update(t, c, node("a", "4"), func(n *corev1.Node) { n.Spec.Unschedulable = true })
		}},
		"the node goes": {gone: true, meanwhile: func(t *testing.T, c *clienttest.Client) {
			if err := c.Delete(ctx, node("a", "4")); err != nil {
				t.Fatal(err)
			}
		}},
		"the node is made anew with less": {gone: true, meanwhile: func(t *testing.T, c *clienttest.Client) {
			if err := c.Delete(ctx, node("a", "4")); err != nil {
				t.Fatal(err)
			}
			create(t, c, labelled(node("a", "500m")))
		}},
		"the pod tolerates what it did not": {
			before: func(t *testing.T, c *clienttest.Client) {
				update(t, c, node("b", "2"), func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{taint} })
			},
			meanwhile: func(t *testing.T, c *clienttest.Client) {
				update(t, c, pod("p", "1"), func(p *corev1.Pod) {
					p.Spec.Tolerations = []corev1.Toleration{{Key: "t", Operator: corev1.TolerationOpExists}}
				})
				update(t, c, node("a", "4"), func(n *corev1.Node) {
					n.Spec.Taints = []corev1.Taint{{Key: "u", Effect: corev1.TaintEffectNoSchedule}}
				})
			},
		},
		"the pod gets labels": {
			before: func(t *testing.T, c *clienttest.Client) {
				create(t, c, changed(on(pod("hermit", "1m"), "a"), func(p *corev1.Pod) { p.Spec.Affinity = away }))
			},
			meanwhile: func(t *testing.T, c *clienttest.Client) {
				update(t, c, pod("p", "1"), func(p *corev1.Pod) { p.Labels = map[string]string{"app": "db"} })
			},
		},
		"another pod of the same name": {done: true, meanwhile: func(t *testing.T, c *clienttest.Client) {
			if err := c.Delete(ctx, pod("p", "1")); err != nil {
				t.Fatal(err)
			}
			create(t, c, changed(pod("p", "1"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "b"} }))
		}},
	} {
		t.Run(what, func(t *testing.T) {
			c := clienttest.New(t, labelled(node("a", "4")), labelled(node("b", "2")))
			if k.before != nil {
				k.before(t, c)
			}
			var first sync.Once
			run(t, Config{Log: slog.New(slog.DiscardHandler), Client: refusing{c, func(name, target string) (err error) {
				if name != "p" {
					return nil
				}
				first.Do(func() {
					if target != "a" {
						t.Errorf("the pod was to go to %s at first", target)
					}
					k.meanwhile(t, c)
					if seen(t, c, "mark"); !k.done {
						err = errors.New("the binding fails")
					}
				})
				return err
			}}})
			create(t, c, pod("p", "1"))
			clienttest.Eventually(t, "the pod on b", func() bool { return get(t, c, "p").Spec.NodeName == "b" })
			if k.gone {
				return
			}
			rest := changed(pod("rest", "3900m"), func(p *corev1.Pod) {
				p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "a"}
				p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
			})
			if what == "the node is cordoned" {
				update(t, c, node("a", "4"), func(n *corev1.Node) { n.Spec.Unschedulable = false })
			}
			create(t, c, rest)
			clienttest.Eventually(t, "room on a for as much as before", func() bool { return get(t, c, "rest").Spec.NodeName == "a" })
		})
	}
}

// A pod that begins to go while it is bound holds nothing, though the binding is still under way and then refused.
func TestPodGoesUnderBinding(t *testing.T) {
	ctx := context.Background()
	c := clienttest.New(t, node("a", "1"))
	asked, answer := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(answer) })
	run(t, Config{Log: slog.New(slog.DiscardHandler), Client: refusing{c, func(name, _ string) error {
		if name == "p" {
			close(asked)
			<-answer
		}
		return nil
	}}})
	t.Cleanup(release) // the binder is waited for
	p := pod("p", "1")
	p.Finalizers = []string{"example.com/hold"}
	create(t, c, p)
	<-asked
	if err := c.Delete(ctx, pod("p", "1")); err != nil {
		t.Fatal(err)
	}
	create(t, c, pod("q", "1"))
	clienttest.Eventually(t, "another has its place", func() bool { return get(t, c, "q").Spec.NodeName == "a" })
	release()
	create(t, c, pod("r", "1"))
	clienttest.Eventually(t, "no more than one fits", func() bool { return why(get(t, c, "r")) != "" })
	if get(t, c, "p").Spec.NodeName != "" {
		t.Error("the pod that goes was bound")
	}
}

// An API that answers slowly holds up nobody's choice: every pod has a node at once, and then a binding, and a node is given no more than it has.
func TestSlowBindings(t *testing.T) {
	const pods, takes = 130, 90 // more than are written at a time
	n := node("a", "100")
	n.Status.Allocatable[corev1.ResourcePods] = *resource.NewQuantity(takes, resource.DecimalSI)
	c := clienttest.New(t, n)
	answer := make(chan struct{})
	release := sync.OnceFunc(func() { close(answer) })
	s := run(t, Config{Log: slog.New(slog.DiscardHandler), Client: refusing{c, func(string, string) error { <-answer; return nil }}})
	t.Cleanup(release) // the binder is waited for
	for i := range pods {
		create(t, c, pod(fmt.Sprintf("p%d", i), "1m"))
	}
	states := func() (binding, pending int) {
		for i := range pods {
			e, err := s.Explain(context.Background(), "default", fmt.Sprintf("p%d", i))
			switch {
			case err != nil:
				t.Fatal(err)
			case e.State == explain.Binding:
				binding++
			case e.State == explain.Pending && e.Attempts > 0:
				pending++
			}
		}
		return binding, pending
	}
	clienttest.Eventually(t, "a node for as many as fit, before anything is written", func() bool {
		binding, pending := states()
		return binding == takes && pending == pods-takes
	})
	release()
	clienttest.Eventually(t, "those bound", func() bool {
		var list corev1.PodList
		if err := c.List(context.Background(), &list); err != nil {
			t.Fatal(err)
		}
		bound := 0
		for i := range list.Items {
			if list.Items[i].Spec.NodeName != "" {
				bound++
			}
		}
		return bound == takes
	})
}

// A lease that somebody takes amid a binding ends the work: what is under way ends, nothing is begun, and the work goes on when the lease is free again.
func TestLeaseStolenWhileBinding(t *testing.T) {
	c := clienttest.New(t, node("a", "4"))
	settings := profile.Default()
	settings.Election.Elect = true
	settings.Election.LeaseDuration, settings.Election.RenewDeadline, settings.Election.RetryPeriod = 3*time.Second, 2*time.Second, 100*time.Millisecond
	asked, answer := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(answer) })
	var once sync.Once
	s := run(t, Config{Settings: settings, Log: slog.New(slog.DiscardHandler), Client: refusing{c, func(string, string) error {
		once.Do(func() { close(asked); <-answer })
		return nil
	}}})
	t.Cleanup(release) // the binder is waited for
	create(t, c, pod("first", "1"))
	<-asked
	steal := func() {
		held := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: settings.Election.Namespace, Name: settings.Election.Name}}
		clienttest.Eventually(t, "the lease stolen", func() bool {
			if err := c.Get(context.Background(), crclient.ObjectKeyFromObject(held), held); err != nil {
				return false
			}
			held.Spec.HolderIdentity, held.Spec.RenewTime = new("thief"), new(metav1.NowMicro())
			return c.Update(context.Background(), held) == nil
		})
	}
	steal()
	clienttest.Eventually(t, "the scheduler knows", func() bool { l := s.leader.Load(); return l != nil && *l == "thief" })
	time.Sleep(settings.Election.RenewDeadline + settings.Election.RetryPeriod) // by then it has given up
	steal()
	create(t, c, pod("second", "1"))
	release()
	clienttest.Eventually(t, "the work ended", func() bool { return s.loop.Load() == nil })
	if get(t, c, "second").Spec.NodeName != "" {
		t.Error("a pod was bound without the lease")
	}
	clienttest.Eventually(t, "both bound once the thief lets the lease run out", func() bool {
		return get(t, c, "first").Spec.NodeName == "a" && get(t, c, "second").Spec.NodeName == "a"
	})
	create(t, c, pod("rest", "2"), pod("more", "100m"))
	clienttest.Eventually(t, "the room counted right", func() bool {
		return get(t, c, "rest").Spec.NodeName == "a" && why(get(t, c, "more")) != "" || get(t, c, "more").Spec.NodeName == "a" && why(get(t, c, "rest")) != ""
	})
}

// A watch that has to begin anew tells only of what is different now: an object that was replaced by another of its name counts for nothing any more.
func TestReplacedUnseen(t *testing.T) {
	l := pendingLoop(t, clienttest.New(t), 0, 0, 1)
	was := node("a", "2")
	was.UID = "1"
	l.nodeChanged(nil, was)
	old := on(pod("p", "2"), "a")
	old.UID = "old"
	l.podChanged(nil, old)
	waiting := pod("q", "1")
	waiting.UID = "q-old"
	l.podChanged(nil, waiting)
	l.schedule(l.queue.Pop(l.now())) // and it finds no room

	now := pod("p", "1")
	now.UID = types.UID("new")
	l.podChanged(old, now)
	again := pod("q", "1")
	again.UID = "q-new"
	l.podChanged(waiting, again)
	if l.nodes.Placed("old") != nil || l.queue.Get("q-old") != nil {
		t.Error("a pod that is gone is still known")
	}
	for e := l.queue.Pop(l.now()); e != nil; e = l.queue.Pop(l.now()) {
		l.schedule(e)
	}
	if !l.assumed["new"] || !l.assumed["q-new"] {
		t.Errorf("placed: %v", l.assumed)
	}
	less := node("a", "1")
	less.UID = "2"
	l.nodeChanged(was, less)
	more := pod("r", "100m")
	more.UID = "r"
	l.podChanged(nil, more)
	l.schedule(l.queue.Pop(l.now()))
	if l.assumed["r"] {
		t.Error("a node that came back with less is given more than it has")
	}
}

// A pod that changed while it was bound in vain comes back as it is now, though nothing of that can be written on it.
func TestRetriedAsItIs(t *testing.T) {
	l := idle(t, nil)
	l.happen(nodeIs(node("a", "1")), podIs(pod("p", "1"), ""))
	l.schedule(l.queue.Pop(l.now()))
	placed := l.nodes.Placed("p")
	if placed == nil {
		t.Fatal("it has no place")
	}
	now := placed.Pod.DeepCopy()
	now.Labels = map[string]string{"app": "db"}
	l.podChanged(placed.Pod, now)
	l.unbound(placed, placed.Pod, 1, "no answer")
	if e := l.queue.Get("p"); e == nil || e.Pod.Labels["app"] != "db" {
		t.Error("it comes back as it was, or not at all")
	}
}
