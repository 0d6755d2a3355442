package queue

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func pod(name string, priority int32) *cluster.Pod {
	return cluster.PodOf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority}})
}

func TestOrder(t *testing.T) {
	q := New(time.Second, 10*time.Second)
	q.Add(pod("second", 0), false, start)
	q.Add(pod("third", 0), false, start.Add(1))
	q.Add(pod("first", 9), false, start.Add(2))
	q.Add(pod("gone", 99), false, start.Add(3))
	q.Remove("gone")
	for _, want := range []string{"first", "second", "third"} {
		if got := q.Pop(start); got == nil || got.Pod.Name != want {
			t.Fatalf("popped %v, want %s", got, want)
		}
	}
	if q.Pop(start) != nil {
		t.Error("one too many")
	}
}

func TestRetries(t *testing.T) {
	q, now := New(time.Second, 10*time.Second), start
	q.Add(pod("p", 0), false, now)
	refuse := func() {
		t.Helper()
		e := q.Pop(now)
		if e == nil {
			t.Fatalf("nothing at %s", now.Sub(start))
		}
		q.Refuse(e, cluster.Capacity, now)
	}
	refuse()
	q.Wake(cluster.Labels, now, always)
	if q.Pop(now) != nil {
		t.Error("woken by a change that cannot help")
	}
	q.Wake(cluster.Capacity, now, always)
	refuse() // the first retry is free
	for _, pause := range []time.Duration{1, 2, 4, 8, 10, 10} {
		q.Wake(cluster.Capacity, now, always)
		if q.Pop(now) != nil {
			t.Fatalf("no pause, want %d s", pause)
		}
		if at, ok := q.Next(); !ok || at.Sub(now) != pause*time.Second {
			t.Fatalf("pause of %s, want %d s", at.Sub(now), pause)
		}
		now = now.Add(pause * time.Second)
		refuse()
	}
	now = now.Add(Longest)
	refuse() // without any event
	q.Add(pod("p", 0), true, now.Add(time.Hour))
	now = now.Add(time.Hour)
	refuse() // because the pod itself changed
	if a, b, u := q.Len(); a != 0 || b != 0 || u != 1 {
		t.Errorf("%d active, %d backing off, %d unschedulable", a, b, u)
	}
}

func TestFailedBindingIsTriedAgain(t *testing.T) {
	q := New(time.Second, 10*time.Second)
	q.Add(pod("p", 0), false, start)
	e := q.Pop(start)
	q.Fail(e.Pod, e.Attempts, start)
	if q.Pop(start) != nil || q.Pop(start.Add(time.Second)) == nil {
		t.Error("want another try after one second")
	}
}

func always(*Entry) (bool, cluster.Change) { return true, 0 }
