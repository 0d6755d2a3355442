package replicaset

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/controller/harness"
)

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func pod(name string, changes ...func(p *corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}, CreationTimestamp: metav1.NewTime(start.Add(-time.Hour))},
		Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	for _, change := range changes {
		change(p)
	}
	return p
}

func ready(ago time.Duration) func(p *corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(-ago))}}
	}
}

func TestRank(t *testing.T) {
	on := func(node string) func(p *corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
	phase := func(ph corev1.PodPhase) func(p *corev1.Pod) { return func(p *corev1.Pod) { p.Status.Phase = ph } }
	cost := func(c string) func(p *corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{deletionCost: c} }
	}
	created := func(ago time.Duration) func(p *corev1.Pod) {
		return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(start.Add(-ago)) }
	}
	restarts := func(n int32) func(p *corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} }
	}
	hour := ready(time.Hour)
	for _, tt := range []struct {
		name        string
		first, last *corev1.Pod
		related     []*corev1.Pod
	}{
		{name: "unassigned", first: pod("a", on("")), last: pod("b", phase(corev1.PodPending))},
		{name: "pending", first: pod("a", phase(corev1.PodPending)), last: pod("b", phase(corev1.PodUnknown))},
		{name: "not ready", first: pod("a", cost("9")), last: pod("b", hour)},
		{name: "cheaper", first: pod("a", hour, cost("-1")), last: pod("b", hour)},
		{name: "crowded", first: pod("a", hour, on("m")), last: pod("b", ready(time.Minute)), related: []*corev1.Pod{pod("x", on("m")), pod("y", on("m")), pod("z")}},
		{name: "ready for a shorter time", first: pod("a", ready(time.Minute)), last: pod("b", hour)},
		{name: "more restarts", first: pod("a", hour, restarts(3)), last: pod("b", hour, restarts(1))},
		{name: "younger", first: pod("a", created(time.Minute)), last: pod("b", created(time.Hour))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, order := range [][]*corev1.Pod{{tt.first, tt.last}, {tt.last, tt.first}} {
				if got := rank(order, tt.related, 1); got[0] != tt.first {
					t.Errorf("%s goes first", got[0].Name)
				}
			}
		})
	}
}

func TestStatus(t *testing.T) {
	replicas := int32(5)
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Generation: 7}, Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, MinReadySeconds: 60,
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web", "hash": "1"}}}}}
	pods := []*corev1.Pod{
		pod("young", ready(10*time.Second)), pod("old", ready(time.Hour), func(p *corev1.Pod) { p.Labels["hash"] = "1" }), pod("starting"),
		pod("ending", ready(time.Hour), func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: start} }),
		pod("done", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
	}
	s, after := statusOf(rs, pods, errors.New("no quota"), start)
	if s.Replicas != 3 || s.ReadyReplicas != 2 || s.AvailableReplicas != 1 || s.FullyLabeledReplicas != 1 || *s.TerminatingReplicas != 1 || s.ObservedGeneration != 7 {
		t.Errorf("status %+v", s)
	}
	if after != 50*time.Second {
		t.Errorf("again in %s, want when the young pod becomes available", after)
	}
	if len(s.Conditions) != 1 || s.Conditions[0].Reason != "FailedCreate" || s.Conditions[0].Message != "no quota" {
		t.Errorf("conditions %+v", s.Conditions)
	}
	rs.Status = s
	if s, _ = statusOf(rs, pods, nil, start); len(s.Conditions) != 0 {
		t.Errorf("conditions after success %+v", s.Conditions)
	}
}

func TestBatches(t *testing.T) {
	var calls atomic.Int32
	if n, err := inBatches(20, func() error { calls.Add(1); return nil }); n != 20 || err != nil || calls.Load() != 20 {
		t.Errorf("%d made, %d calls, %v", n, calls.Load(), err)
	}
	calls.Store(0)
	n, err := inBatches(500, func() error {
		if calls.Add(1) > 2 {
			return errors.New("quota")
		}
		return nil
	})
	if n != 2 || err == nil || !strings.Contains(err.Error(), "quota") || calls.Load() != 3 {
		t.Errorf("%d made, %d calls, %v; want the second batch to be the last", n, calls.Load(), err)
	}
}

func TestExpectations(t *testing.T) {
	var e expectations
	key := harness.Key{Name: "web"}
	check := func(want bool) {
		t.Helper()
		if got := e.met(key); got != want {
			t.Errorf("met %v, want %v", got, want)
		}
	}
	check(true)
	e.creations(key, 2)
	check(false)
	e.created(key)
	e.give(key, 1) // the second failed
	check(true)
	e.deletions(key, []*corev1.Pod{pod("a")})
	e.deleted(key, "other")
	check(false)
	e.deleted(key, "a")
	check(true)
}
