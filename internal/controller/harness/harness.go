// Package harness is the plumbing every controller stands on: queue, workers, back-off, wake-ups, metrics and logging, written once.
//
// A controller is a name, what wakes it, and what to do for one key. Its invariant: one key is never worked on twice at the same time,
// and a key that failed is tried again until it succeeds. Nothing here polls: a worker sleeps until an event or a wake-up names a key.
// Only the packages below internal/controller build Controllers; only internal/controller runs them.
package harness

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"skiff.dev/skiff/internal/client"
)

// The first retry comes after retryFirst, each further one twice as late, up to retryLast.
const (
	retryFirst = 5 * time.Millisecond
	retryLast  = time.Minute
)

// Key names what a controller works on. Cluster-wide things leave Namespace empty.
type Key = types.NamespacedName

// Controller is one control loop.
type Controller struct {
	Name    string // upstream's, as --controllers spells it
	Workers int    // keys worked on at once; zero means one
	Watches []Watch

	// Reconcile brings one key to its desired state. It may ask to be called again after a time (zero: only on events); an error is
	// retried with back-off. A panic is not caught: a controller that lost its invariants must not go on.
	Reconcile func(ctx context.Context, key Key) (after time.Duration, err error)

	// Begin, if set, is called once before any event is delivered. wake queues a key from anywhere, for controllers whose keys wake
	// one another.
	Begin func(wake func(Key))

	// Follow, if set, runs beside the workers until ctx ends, for controllers that are about all kinds: it adds watches of those that come later.
	Follow func(ctx context.Context, add func(Watch))
}

// Run delivers events and works until ctx ends, which is no error. It calls synced once everything that existed at the start has been delivered.
func Run(ctx context.Context, c Controller, cl client.Client, m *Metrics, log *slog.Logger, synced func()) error {
	r := &running{Controller: c, log: log.With("controller", c.Name), metrics: m.of(c.Name)}
	r.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[Key](retryFirst, retryLast))
	defer r.queue.ShutDown()
	defer m.track(c.Name, r.queue.Len)()
	if c.Begin != nil {
		c.Begin(r.queue.Add)
	}
	for _, w := range c.Watches {
		stop, done, err := w.start(ctx, cl.Cache(), r.queue.Add)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		defer stop()
		if !toolscache.WaitFor(ctx, "", done) {
			return nil
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer r.follow(ctx, func(w Watch) (func(), error) {
		stop, _, err := w.start(ctx, cl.Cache(), r.queue.Add)
		return stop, err
	})()
	defer cancel()
	synced()
	r.work(ctx)
	return nil
}

// running is a controller at work.
type running struct {
	Controller
	queue   workqueue.TypedRateLimitingInterface[Key]
	metrics *loopMetrics
	log     *slog.Logger
}

// work blocks until ctx ends and the workers have finished what they were at.
func (r *running) work(ctx context.Context) {
	var workers sync.WaitGroup
	for range max(r.Workers, 1) {
		workers.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	r.queue.ShutDown()
	workers.Wait()
}

// next works on one key; false means that the queue was shut down.
func (r *running) next(ctx context.Context) bool {
	key, down := r.queue.Get()
	if down {
		return false
	}
	defer r.queue.Done(key)
	if ctx.Err() != nil {
		return true // drain without working
	}
	start := time.Now()
	after, err := r.Reconcile(ctx, key)
	r.metrics.observe(time.Since(start), err)
	switch {
	case err == nil:
		r.queue.Forget(key)
		if after > 0 {
			r.queue.AddAfter(key, after)
		}
	case ctx.Err() != nil:
	default:
		r.report(ctx, key, err)
		r.queue.AddRateLimited(key)
	}
	return true
}

// report tells of a failure once. Losing a race against another writer is how optimistic concurrency works and not worth a warning.
func (r *running) report(ctx context.Context, key Key, err error) {
	level := slog.LevelWarn
	if apierrors.IsConflict(err) {
		level = slog.LevelDebug
	}
	r.log.Log(ctx, level, "reconcile failed, will be tried again", "key", key.String(), "failures", r.queue.NumRequeues(key)+1, "error", err)
}
