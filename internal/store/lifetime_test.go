package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is transient goes by itself, watchers are told, and what is written anew stays longer; what is not transient stays.
func TestTransientValuesGo(t *testing.T) {
	s, _ := start(t, func(c *Config) { c.Life = 4 * time.Second })
	row := *events
	row.Transient = true
	c, keeps := s.Collection(&row), s.Collection(pods)
	mustCreate(t, keeps, pod("stays"))
	w, err := c.Watch(t.Context(), WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	written := func(e *Entry, err error) *Entry {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	written(c.Create(t.Context(), "default/e", event("e")))
	old := written(c.Create(t.Context(), "default/again", event("again")))
	time.Sleep(time.Second) // so that its time from then on is another
	last := time.Now()
	written(c.Update(t.Context(), old, event("again")))
	if got := fmt.Sprint(collect(t, w, 5)); got != "[+e +again ~again -e -again]" {
		t.Errorf("watchers were told %s", got)
	}
	if lived := time.Since(last); lived < 4*time.Second {
		t.Errorf("it went %s after it was last written", lived)
	}
	if e, err := keeps.Get(t.Context(), "default/stays", Read{}); err != nil || e == nil {
		t.Errorf("what is not transient: %v, %v", e, err)
	}
}

// One lease is for many values, not for any number of them, and one that etcd has lost is replaced.
func TestLeasesAreShared(t *testing.T) {
	s, client := start(t, func(c *Config) { c.Life = time.Hour })
	row := *events
	row.Transient = true
	c := s.Collection(&row)
	leases := func() map[int64]int {
		t.Helper()
		resp, err := client.Get(t.Context(), "/registry/events/default/e-0", clientv3.WithRange("/registry/events/default/e-~"))
		if err != nil {
			t.Fatal(err)
		}
		out := map[int64]int{}
		for _, kv := range resp.Kvs {
			out[kv.Lease]++
		}
		return out
	}
	create := func(i int) {
		t.Helper()
		name := fmt.Sprintf("e-%d", i)
		if _, err := c.Create(t.Context(), "default/"+name, event(name)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range leaseValues + 1 {
		create(i)
	}
	if got := leases(); len(got) != 2 || got[0] != 0 {
		t.Errorf("leases and their values: %v", got)
	}
	if _, err := client.Revoke(context.Background(), s.life.id); err != nil {
		t.Fatal(err)
	}
	create(leaseValues + 1)
	if got := leases(); len(got) != 2 || got[0] != 0 || got[int64(s.life.id)] != 1 {
		t.Errorf("after one was lost, leases and their values: %v", got)
	}
}

func event(name string) *corev1.Event {
	return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

// Whoever waits for a lease that another asks etcd for gives up with their request.
func TestWaitForLeaseEnds(t *testing.T) {
	s, _ := start(t, func(c *Config) { c.Life = time.Hour })
	row := *events
	row.Transient = true
	c := s.Collection(&row)
	s.life.turn <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Create(ctx, "default/e", event("e")); !apierrors.IsTimeout(err) {
		t.Errorf("while another asks for a lease: %v", err)
	}
	<-s.life.turn
	if _, err := c.Create(t.Context(), "default/e", event("e")); err != nil {
		t.Error(err)
	}
}
