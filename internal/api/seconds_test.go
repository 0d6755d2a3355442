package api_test

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
)

func TestTimesAreCutToWhatIsStored(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC)
	at := metav1.NewTime(now)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", CreationTimestamp: at, DeletionTimestamp: &at, ManagedFields: []metav1.ManagedFieldsEntry{{Time: at.DeepCopy()}}},
		Status: corev1.PodStatus{
			StartTime: at.DeepCopy(), Conditions: []corev1.PodCondition{{LastTransitionTime: at}},
			ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: at, FinishedAt: at}}}},
		},
	}
	api.WholeSeconds(p)
	raw, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var stored corev1.Pod
	if err := stored.Unmarshal(raw); err != nil || !equality.Semantic.DeepEqual(p, &stored) || !p.Status.StartTime.Time.Equal(now.Truncate(time.Second)) {
		t.Errorf("%v: in memory %+v, stored %+v", err, p, stored)
	}
	micro := metav1.NewMicroTime(now)
	l := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: &micro}}
	if api.WholeSeconds(l); !l.Spec.RenewTime.Time.Equal(now.Truncate(time.Microsecond)) {
		t.Errorf("a lease's time is %v", l.Spec.RenewTime)
	}
}

func BenchmarkWholeSeconds(b *testing.B) {
	p := &corev1.Pod{Status: corev1.PodStatus{Conditions: make([]corev1.PodCondition, 5), ContainerStatuses: make([]corev1.ContainerStatus, 2)}}
	b.ReportAllocs()
	for b.Loop() {
		api.WholeSeconds(p)
	}
}
