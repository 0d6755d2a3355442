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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// journal notes who bound a pod, in order.
type journal struct {
	mu   sync.Mutex
	list []string
}

func (j *journal) note(who string) {
	j.mu.Lock()
	j.list = append(j.list, who)
	j.mu.Unlock()
}

// changes is how often the one who binds was another than before.
func (j *journal) changes() (order []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, who := range j.list {
		if len(order) == 0 || order[len(order)-1] != who {
			order = append(order, who)
		}
	}
	return order
}

// candidate is an API as one of several schedulers sees it; away, it cannot reach its lease.
type candidate struct {
	refusing
	mu   sync.Mutex
	away bool
}

func (c *candidate) Update(ctx context.Context, o crclient.Object, opts ...crclient.UpdateOption) error {
	c.mu.Lock()
	away := c.away
	c.mu.Unlock()
	if _, ok := o.(*coordinationv1.Lease); ok && away {
		return errors.New("connection refused")
	}
	return c.refusing.Update(ctx, o, opts...)
}

func (c *candidate) leave() {
	c.mu.Lock()
	c.away = true
	c.mu.Unlock()
}

// Of two schedulers one works. When it loses its lease the other takes over, and again when that ends; each pod is bound once, and nobody binds
// after another has begun.
func TestNeverTwoAtWork(t *testing.T) {
	ctx := context.Background()
	c := clienttest.New(t, node("a", "100"))
	var seen journal
	settings := profile.Default()
	settings.Election.Elect = true
	settings.Election.LeaseDuration, settings.Election.RenewDeadline, settings.Election.RetryPeriod = 3*time.Second, 2*time.Second, 100*time.Millisecond
	start := func(name string) (*candidate, *Scheduler, func()) {
		own := &candidate{refusing: refusing{Client: c, refuse: func(string, string) error { seen.note(name); return nil }}}
		s := New(Config{Settings: settings, Client: own, Log: slog.New(slog.DiscardHandler)})
		running, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- s.Run(running) }()
		<-s.Ready()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("scheduler %s ended with %v", name, err)
			}
		})
		t.Cleanup(stop)
		return own, s, stop
	}
	count := 0
	bound := func(by string) {
		t.Helper()
		name := fmt.Sprintf("p%d", count)
		count++
		if err := c.Create(ctx, pod(name, "10m")); err != nil {
			t.Fatal(err)
		}
		clienttest.Eventually(t, name+" bound", func() bool { return get(t, c, name).Spec.NodeName != "" })
		if order := seen.changes(); order[len(order)-1] != by {
			t.Fatalf("%s was bound by %v, want %s last", name, order, by)
		}
	}
	first, one, _ := start("one")
	bound("one")
	_, two, stopTwo := start("two")
	bound("one")
	clienttest.Eventually(t, "the second stands by", func() bool { return two.leader.Load() != nil })
	if _, err := two.Explain(ctx, "default", "p0"); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("the one that stands by says %v", err)
	}
	first.leave()
	clienttest.Eventually(t, "the second works", func() bool { return two.loop.Load() != nil })
	if one.loop.Load() != nil {
		t.Error("two are at work")
	}
	bound("two")
	first.mu.Lock()
	first.away = false
	first.mu.Unlock()
	bound("two")
	stopTwo()
	bound("one")
	if order := fmt.Sprint(seen.changes()); order != "[one two one]" {
		t.Errorf("bound by %s", order)
	}
	var all corev1.PodList
	if err := c.List(ctx, &all); err != nil || len(seen.list) != len(all.Items) {
		t.Errorf("%d bindings of %d pods: %v", len(seen.list), len(all.Items), err)
	}
}
