package harness

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/controller/clienttest"
)

func begin(t *testing.T, c Controller, cl *clienttest.Client, m *Metrics) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended, synced := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- Run(ctx, c, cl, m, slog.New(slog.DiscardHandler), func() { close(synced) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	<-synced
}

// What is there at the start and what comes later is worked on; failures are tried again; a wake-up comes by itself.
func TestLoop(t *testing.T) {
	cl := clienttest.New(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "there"}})
	calls := make(chan string, 100)
	var failures, wakes atomic.Int32
	registry := prometheus.NewRegistry()
	begin(t, Controller{
		Name:    "test",
		Watches: []Watch{Self(&corev1.ConfigMap{})},
		Reconcile: func(_ context.Context, key Key) (time.Duration, error) {
			calls <- key.Name
			if key.Name == "fails" && failures.Add(1) < 3 {
				return 0, errors.New("not yet")
			}
			if key.Name == "wakes" && wakes.Add(1) < 3 {
				return time.Millisecond, nil
			}
			return 0, nil
		},
	}, cl, NewMetrics(registry))
	expect := func(name string, n int) {
		t.Helper()
		for range n {
			select {
			case got := <-calls:
				if got != name {
					t.Fatalf("worked on %s, want %s", got, name)
				}
			case <-time.After(time.Minute):
				t.Fatalf("never worked on %s", name)
			}
		}
	}
	expect("there", 1)
	for name, n := range map[string]int{"fails": 3, "wakes": 3, "once": 1} {
		if err := cl.Create(context.Background(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}); err != nil {
			t.Fatal(err)
		}
		expect(name, n)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 3 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
}

// One key is never worked on twice at the same time, however many workers there are and however often it is woken.
func TestOneAtATime(t *testing.T) {
	cl := clienttest.New(t)
	var at, most, done atomic.Int32
	var wake func(Key)
	begin(t, Controller{
		Name: "test", Workers: 8, Begin: func(w func(Key)) { wake = w },
		Reconcile: func(context.Context, Key) (time.Duration, error) {
			most.Store(max(most.Load(), at.Add(1)))
			time.Sleep(time.Millisecond)
			at.Add(-1)
			done.Add(1)
			return 0, nil
		},
	}, cl, NewMetrics(nil))
	for range 100 {
		wake(Key{Name: "k"})
		time.Sleep(100 * time.Microsecond)
	}
	clienttest.Eventually(t, "some work", func() bool { return done.Load() > 1 && at.Load() == 0 })
	if most.Load() != 1 {
		t.Errorf("%d at a time", most.Load())
	}
}
