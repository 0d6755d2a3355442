package podrank

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
				if got := First(order, tt.related, 1); got[0] != tt.first {
					t.Errorf("%s goes first", got[0].Name)
				}
			}
		})
	}
}
