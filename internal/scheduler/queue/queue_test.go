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

// busy has q always know a pod that is to be tried before others.
func busy(q *Queue, now time.Time) {
	q.Add(pod("busy", 99), false, now)
}

func TestRetries(t *testing.T) {
	q, now := New(time.Second, 10*time.Second), start
	q.Add(pod("p", 0), false, now)
	refuse := func() {
		t.Helper()
		busy(q, now)
		for {
			switch e := q.Pop(now); {
			case e == nil || e.Pod.Name == "busy" && len(q.active.list) == 0:
				t.Fatalf("nothing at %s", now.Sub(start))
			case e.Pod.Name == "p":
				q.Refuse(e, cluster.Capacity, now)
				q.Remove("busy")
				return
			}
		}
	}
	refuse()
	q.Wake(cluster.Labels, now, always)
	if q.Pop(now) != nil {
		t.Error("woken by a change that cannot help")
	}
	for _, pause := range []time.Duration{1, 2, 4, 8, 10, 10} {
		q.Wake(cluster.Capacity, now, always)
		if len(q.active.list) > 0 || len(q.backoff.list) != 1 {
			t.Fatalf("no pause, want %d s", pause)
		}
		if at, ok := q.Next(); !ok || at.Sub(now) != pause*time.Second {
			t.Fatalf("pause of %s, want %d s", at.Sub(now), pause)
		}
		now = now.Add((pause + 1) * time.Second) // with the window
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

// Who backs off is tried nevertheless when there is nothing else to do, in the order of windows and within one of active pods; who failed is not.
func TestNobodyWaitsForNothing(t *testing.T) {
	q := New(time.Second, 10*time.Second)
	q.Add(pod("failed", 9), false, start)
	q.Fail(q.Pop(start).Pod, 1, start.Add(time.Second))
	for _, p := range []*cluster.Pod{pod("low", 0), pod("high", 5), pod("late", 7)} {
		q.Add(p, false, start)
	}
	at := map[string]time.Time{"low": start.Add(1), "high": start.Add(100), "late": start.Add(1100 * time.Millisecond)}
	for range at {
		e := q.Pop(start)
		q.Refuse(e, cluster.Freed, at[e.Pod.Name])
	}
	now := at["late"]
	q.Add(pod("new", -1), false, now)
	q.Wake(cluster.Freed, start.Add(100), always)
	for _, want := range []string{"new", "high", "low", "late", "failed"} {
		e := q.Pop(now)
		if want == "failed" {
			if e != nil {
				t.Errorf("%s does not wait", e.Pod.Name)
			}
			e = q.Pop(start.Add(2 * time.Second))
		}
		if e == nil || e.Pod.Name != want {
			t.Fatalf("popped %v, want %s", e, want)
		}
	}
}

// Of equal priority is first who was not tried for longest: one that fits nowhere does not hold up those that came after it.
func TestTriesTakeTurns(t *testing.T) {
	q := New(time.Second, 10*time.Second)
	q.Add(pod("old", 0), false, start)
	e := q.Pop(start)
	q.Add(pod("new", 0), false, start.Add(time.Second))
	q.Refuse(e, cluster.Freed, start.Add(2*time.Second))
	now := start.Add(time.Minute)
	q.Wake(cluster.Freed, now, always)
	q.Add(pod("newest", 0), false, now)
	for _, want := range []string{"new", "old", "newest"} {
		if e := q.Pop(now); e == nil || e.Pod.Name != want {
			t.Fatalf("popped %v, want %s", e, want)
		}
	}
}

// What failed is tried again after a while, which doubles with each failure, and starts anew once the pod was refused.
func TestFailedBindingIsTriedAgain(t *testing.T) {
	q, now := New(time.Second, 10*time.Second), start
	q.Add(pod("p", 0), false, now)
	e := q.Pop(now)
	for k, pause := range []time.Duration{1, 2, 4, 8, 10, 10, 1} {
		if k == 6 {
			q.Refuse(e, cluster.Freed, now)
			e = q.Take("p", now)
		}
		q.Fail(e.Pod, e.Attempts, now)
		if at, ok := q.Next(); !ok || at.Sub(now) != pause*time.Second {
			t.Errorf("failure %d: pause of %s, want %d s", k+1, at.Sub(now), pause)
		}
		if now = now.Add(pause * time.Second); q.Pop(now.Add(-1)) != nil {
			t.Errorf("failure %d: tried before", k+1)
		}
		if e = q.Pop(now); e == nil {
			t.Fatalf("failure %d: not tried after %d s", k+1, pause)
		}
	}
	if e.Attempts != 9 {
		t.Errorf("%d tries", e.Attempts)
	}
}

// A verdict that could not be told has the pod tried again, after a pause whether there is something else to do or not: the API is to have time.
func TestUntoldVerdicts(t *testing.T) {
	q := New(time.Second, 10*time.Second)
	q.Add(pod("p", 0), false, start)
	e := q.Pop(start)
	e.Verdict = "no"
	q.Refuse(e, cluster.Freed, start)
	q.Again("p", start)
	if q.Pop(start) != nil || q.Pop(start.Add(time.Second)) != e || e.Verdict != "" {
		t.Errorf("verdict %q", e.Verdict)
	}
}

func always(*Entry) (bool, cluster.Change) { return true, 0 }

// A unit's priority goes before its pods' own, and a unit that is to be first before any priority.
func TestOrderOfUnits(t *testing.T) {
	q := New(time.Second, 10*time.Second)
	for name, priority := range map[string]int32{"low": 0, "raised": 1, "high": 5, "first": -1} {
		q.Add(pod(name, priority), false, start)
	}
	q.Join("raised", &Unit{Priority: new(int32(7))})
	q.Join("low", &Unit{})
	q.Join("first", &Unit{First: true})
	for _, want := range []string{"first", "raised", "high", "low"} {
		if e := q.Pop(start); e == nil || e.Pod.Name != want {
			t.Fatalf("popped %v, want %s", e, want)
		}
	}
}

// A pod that is in is brought up to date wherever it is, and takes the place of its new priority.
func TestPodsAreBroughtUpToDate(t *testing.T) {
	q := New(time.Second, 10*time.Second)
	q.Add(pod("a", 1), false, start)
	q.Add(pod("b", 2), false, start)
	q.Add(pod("c", 0), false, start)
	q.Add(pod("a", 3), false, start)
	a, b := q.Pop(start), q.Pop(start)
	if a.Pod.Name != "a" || *a.Pod.Spec.Priority != 3 || b.Pod.Name != "b" {
		t.Fatalf("popped %s, then %s", a.Pod.Name, b.Pod.Name)
	}
	q.Refuse(a, cluster.Freed, start)
	q.Refuse(b, cluster.Freed, start)
	q.Wake(cluster.Freed, start, always)
	q.Add(pod("b", 9), false, start)
	q.Fail(q.Pop(start).Pod, 1, start)
	if active, backoff, unschedulable := q.Len(); active != 0 || backoff != 3 || unschedulable != 0 {
		t.Errorf("%d active, %d backing off, %d unschedulable", active, backoff, unschedulable)
	}
	if e := q.Pop(start); e == nil || e != b {
		t.Errorf("popped %v of those that back off", e)
	}
}
