package replicaset

import (
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
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
