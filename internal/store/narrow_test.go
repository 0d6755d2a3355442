package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
)

func onNode(node string) Predicate {
	return Predicate{Index: "spec.nodeName", Value: node, Fields: fields.OneTermEqualSelector("spec.nodeName", node)}
}

func watchOf(t testing.TB, c *Collection, o WatchOptions) *Watcher {
	t.Helper()
	w, err := c.Watch(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// Pods come, move from node to node and go. Narrow watches, begun and read at random times, see what they would see if they looked at every event.
func TestNarrowWatchesMissNothing(t *testing.T) {
	s, _ := start(t)
	ctx, c := context.Background(), s.Collection(pods)
	rng := rand.New(rand.NewPCG(1, 2))
	type watch struct {
		w         *Watcher
		got, want []string
	}
	text := func(e Event) string { return fmt.Sprint(e.Type, " ", e.Entry.Key(), " ", e.Revision) }
	predicates := []Predicate{onNode("n0"), onNode("n1"), onNode("none"), {Namespace: "default", Name: "p1"}, {Namespace: "default", Name: "p1", Index: "spec.nodeName", Value: "n1"}}
	var watches []*watch
	var seen []Event // all there were
	all := watchOf(t, c, WatchOptions{FromNow: true, Keep: true})
	entries, written := map[string]*Entry{}, 0
	read := func(x *watch) {
		for x.w.unread(c.log.end()) < c.log.end() {
			events, _, err := x.w.take(nil, 1+rng.IntN(3))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				x.got = append(x.got, text(e))
			}
		}
	}
	for range 400 {
		name := fmt.Sprintf("default/p%d", rng.IntN(4))
		e, err := entries[name], error(nil)
		switch p := pod(name[len("default/"):], func(p *corev1.Pod) { p.Spec.NodeName = fmt.Sprintf("n%d", rng.IntN(3)) }); {
		case e == nil:
			entries[name], err = c.Create(ctx, name, p)
		case rng.IntN(3) == 0:
			_, err = c.Delete(ctx, e)
			delete(entries, name)
		default:
			entries[name], err = c.Update(ctx, e, p)
		}
		if err != nil {
			t.Fatal(err)
		}
		for written++; len(seen) < written; {
			events, err := all.Next(ctx, nil, 10)
			if err != nil {
				t.Fatal(err)
			}
			for i := range events {
				for _, x := range watches {
					if e, ok := x.w.see(&events[i]); ok {
						x.want = append(x.want, text(e))
					}
				}
			}
			seen = append(seen, events...)
		}
		if rng.IntN(10) == 0 { // one more, from now or from the past
			x, o := &watch{}, WatchOptions{Predicate: predicates[rng.IntN(len(predicates))], FromNow: true}
			from := len(seen)
			if rng.IntN(2) == 0 {
				from = rng.IntN(len(seen))
				o.FromNow, o.Revision = false, seen[from].Revision
				from++
			}
			x.w = watchOf(t, c, o)
			for i := range seen[from:] {
				if e, ok := x.w.see(&seen[from+i]); ok {
					x.want = append(x.want, text(e))
				}
			}
			watches = append(watches, x)
		}
		if len(watches) > 0 {
			read(watches[rng.IntN(len(watches))])
		}
	}
	for i, x := range watches {
		if read(x); !slices.Equal(x.got, x.want) {
			t.Errorf("watch %d of %+v\nsaw     %v\nshould  %v", i, x.w.p, x.got, x.want)
		}
		x.w.Stop()
	}
	if n := c.log.narrow; len(n.watches) > 0 || len(n.indexes) > 0 {
		t.Errorf("stopped watches are still told: %v", n)
	}
}

// What does not concern a narrow watch neither wakes it nor lets it fall behind; what does, and is not read in time, ends it as it ends any watch.
func TestNarrowWatchIsLeftAlone(t *testing.T) {
	s, _ := start(t, func(c *Config) { c.EventBytes = 4000 })
	ctx, c := context.Background(), s.Collection(pods)
	e := mustCreate(t, c, pod("a", func(p *corev1.Pod) { p.Spec.NodeName = "busy" }))
	quiet := watchOf(t, c, WatchOptions{Predicate: onNode("quiet"), Revision: e.Revision()})
	busy := watchOf(t, c, WatchOptions{Predicate: onNode("busy"), Revision: e.Revision()})
	kept := watchOf(t, c, WatchOptions{Predicate: onNode("kept"), Revision: e.Revision(), Keep: true})
	mustCreate(t, c, pod("k", func(p *corev1.Pod) { p.Spec.NodeName = "kept" }))
	move := func(node string) {
		var err error
		if e, err = c.Update(ctx, e, pod("a", func(p *corev1.Pod) { p.Spec.NodeName = node })); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		move("busy")
	}
	if len(quiet.wake) > 0 || quiet.caughtUp() != s.Revision() {
		t.Errorf("a watch was woken by what does not concern it, or believes to be behind at %d of %d", quiet.caughtUp(), s.Revision())
	}
	if events, err := kept.Next(ctx, nil, 10); err != nil || len(events) != 1 || events[0].Entry.Key() != "default/k" {
		t.Errorf("a follower that was slow to read: %v, %v", events, err)
	}
	for range 50 {
		move("busy")
	}
	if _, err := busy.Next(ctx, nil, 10); !apierrors.IsResourceExpired(err) {
		t.Errorf("a watch that fell behind: %v", err)
	}
	if len(busy.mine) > 60 {
		t.Errorf("a watch that fell behind is still told of events: of %d", len(busy.mine))
	}
	move("quiet")
	if events, err := quiet.Next(ctx, nil, 10); err != nil || len(events) != 1 || events[0].Type != Added {
		t.Errorf("a pod that came to the node: %v, %v", events, err)
	}
}

// BenchmarkEventAmongNodes is what an event costs beside so many watches of other nodes' pods, each with a reader that waits.
func BenchmarkEventAmongNodes(b *testing.B) {
	for _, nodes := range []int{0, 100, 5000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			s, _ := start(b, func(c *Config) { c.DetectMutation = false })
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c := s.Collection(pods)
			for i := range nodes {
				w := watchOf(b, c, WatchOptions{Predicate: onNode(fmt.Sprint("n", i)), FromNow: true})
				go func() {
					for {
						if _, err := w.Next(ctx, nil, 10); err != nil {
							return
						}
					}
				}()
			}
			e := mustCreate(b, c, pod("a", func(p *corev1.Pod) { p.Spec.NodeName = "other" }))
			for b.Loop() {
				var err error
				if e, err = c.Update(ctx, e, pod("a", func(p *corev1.Pod) { p.Spec.NodeName = "other" })); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
