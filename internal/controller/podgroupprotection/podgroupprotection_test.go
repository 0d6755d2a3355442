package podgroupprotection

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/protection"
)

func pod(name, group string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Status: corev1.PodStatus{Phase: phase},
		Spec: corev1.PodSpec{SchedulingGroup: &corev1.PodSchedulingGroup{PodGroupName: &group}}}
}

func TestGroupsOutliveTheirPods(t *testing.T) {
	ctx := context.Background()
	group := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "g"}}
	runs, ended := pod("runs", "g", corev1.PodRunning), pod("ended", "g", corev1.PodSucceeded)
	c := clienttest.New(t, group, runs, ended, pod("other", "h", corev1.PodRunning))
	r, key := &reconciler{c}, crclient.ObjectKeyFromObject(group)
	reconcile := func() {
		t.Helper()
		if _, err := r.group(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	get := func() error {
		*group = schedulingv1beta1.PodGroup{}
		return c.Get(ctx, key, group)
	}
	reconcile()
	if err := get(); err != nil || !slices.Contains(group.Finalizers, api.PodGroupFinalizer) {
		t.Fatalf("a group without the protection did not get it: %v %v", group.Finalizers, err)
	}
	if err := c.Delete(ctx, group); err != nil {
		t.Fatal(err)
	}
	reconcile()
	if err := get(); err != nil || !slices.Contains(group.Finalizers, api.PodGroupFinalizer) {
		t.Fatalf("the group is not protected though a pod of it runs: %v", err)
	}
	if err := c.Delete(ctx, runs); err != nil {
		t.Fatal(err)
	}
	reconcile()
	if err := get(); !apierrors.IsNotFound(err) {
		t.Fatalf("the group is still there: %v", err)
	}
}

func TestWhatWakes(t *testing.T) {
	for name, c := range map[string]struct {
		old, current *corev1.Pod
		want         bool
	}{
		"came":      {nil, pod("p", "g", corev1.PodPending), false},
		"runs":      {pod("p", "g", corev1.PodPending), pod("p", "g", corev1.PodRunning), false},
		"ended":     {pod("p", "g", corev1.PodRunning), pod("p", "g", corev1.PodFailed), true},
		"went":      {pod("p", "g", corev1.PodRunning), nil, true},
		"is over":   {pod("p", "g", corev1.PodFailed), nil, false},
		"has none":  {&corev1.Pod{}, nil, false},
		"of nobody": {&corev1.Pod{}, &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}, false},
	} {
		if got := podChanged(c.old, c.current); (len(got) == 1) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	woken := protection.Leaving[*schedulingv1beta1.PodGroup](api.PodGroupFinalizer)
	leaving := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: "g", DeletionTimestamp: &metav1.Time{}, Finalizers: []string{api.PodGroupFinalizer}}}
	if got := woken(nil, leaving); len(got) != 1 {
		t.Errorf("a group on its way out: %v", got)
	}
	leaving.DeletionTimestamp = nil
	if got := woken(nil, leaving); len(got) != 0 {
		t.Errorf("a group that stays: %v", got)
	}
}
