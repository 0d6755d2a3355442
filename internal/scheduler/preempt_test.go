package scheduler

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

func priority(p *corev1.Pod, value int32) *corev1.Pod {
	p.Spec.Priority = &value
	return p
}

func on(p *corev1.Pod, node string) *corev1.Pod {
	p.Spec.NodeName = node
	return p
}

// A pod that fits nowhere makes less important ones go: those that matter least, and no more than needed.
func TestLessImportantPodsGiveWay(t *testing.T) {
	ctx := context.Background()
	protected := priority(on(pod("protected", "500m"), "c"), 1)
	protected.Labels = map[string]string{"app": "protected"}
	c := begin(t, node("a", "1"), node("b", "1"), node("c", "1"),
		priority(on(pod("vital", "600m"), "a"), 100), priority(on(pod("low-a", "400m"), "a"), 10),
		priority(on(pod("low-b1", "500m"), "b"), 5), priority(on(pod("low-b2", "500m"), "b"), 6),
		protected, priority(on(pod("equal", "500m"), "c"), 50),
		&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pdb"}, Spec: policyv1.PodDisruptionBudgetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: protected.Labels}}})
	if err := c.Create(ctx, priority(pod("urgent", "500m"), 50)); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the urgent pod placed", func() bool { return get(t, c, "urgent").Spec.NodeName == "b" })
	gone := func(name string) bool {
		return apierrors.IsNotFound(c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: name}, &corev1.Pod{}))
	}
	if !gone("low-b1") || gone("low-b2") || gone("low-a") || gone("protected") {
		t.Error("want low-b1 alone gone")
	}
	if !contains(c.Events(), "Normal Preempted Preempted by pod "+string(get(t, c, "urgent").UID)+" on node b") {
		t.Error("no event of a preemption")
	}
}

// While the victims end, nobody less important takes the place, and the pod does not preempt again.
func TestNominatedPodsHoldTheirPlace(t *testing.T) {
	ctx := context.Background()
	low := priority(on(pod("low", "1"), "a"), 1)
	low.Finalizers = []string{"test/hold"}
	c := begin(t, node("a", "1"), low)
	if err := c.Create(ctx, priority(pod("urgent", "1"), 50)); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the nomination", func() bool {
		return get(t, c, "urgent").Status.NominatedNodeName == "a" && get(t, c, "low").DeletionTimestamp != nil
	})
	found := false
	for _, cond := range get(t, c, "low").Status.Conditions {
		found = found || cond.Type == corev1.DisruptionTarget && cond.Status == corev1.ConditionTrue && cond.Reason == "PreemptionByScheduler" &&
			cond.Message == "default-scheduler: preempting to accommodate a higher priority pod"
	}
	if !found {
		t.Error("the victim has no condition DisruptionTarget, or another")
	}
	const sentence = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims"
	if got := why(get(t, c, "urgent")); got != sentence && !strings.HasSuffix(got, "preemption: not eligible due to a terminating pod on the nominated node.") {
		t.Errorf("the pod says %s", got)
	}
	if !contains(c.Events(), "Warning FailedScheduling "+strings.TrimPrefix(sentence, "Unschedulable: ")) {
		t.Error("no event of it")
	}
	if err := c.Create(ctx, priority(pod("thief", "1"), 20)); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the thief refused", func() bool { return strings.Contains(why(get(t, c, "thief")), "Insufficient cpu") })
	free := get(t, c, "low").DeepCopy()
	free.Finalizers = nil
	if err := c.Update(ctx, free); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the urgent pod placed", func() bool { return get(t, c, "urgent").Spec.NodeName == "a" })
	if get(t, c, "thief").Spec.NodeName != "" {
		t.Error("the thief got a place")
	}
}

// Who holds a place that a more important pod takes loses it, and says so.
func TestLowerNominationsGo(t *testing.T) {
	ctx := context.Background()
	low := priority(on(pod("low", "1"), "a"), 1)
	low.Finalizers = []string{"test/hold"}
	c := begin(t, node("a", "1"), low)
	nominated := func(name, node string) {
		t.Helper()
		clienttest.Eventually(t, name+" nominated to "+node, func() bool { return get(t, c, name).Status.NominatedNodeName == node })
	}
	create(t, c, priority(pod("first", "1"), 20))
	nominated("first", "a")
	create(t, c, priority(pod("second", "1"), 50))
	nominated("second", "a")
	nominated("first", "")
	clienttest.Eventually(t, "the first refused", func() bool {
		return strings.HasPrefix(why(get(t, c, "first")), "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.")
	})
	free := get(t, c, "low").DeepCopy()
	free.Finalizers = nil
	if err := c.Update(ctx, free); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the second placed", func() bool { return get(t, c, "second").Spec.NodeName == "a" })
	if get(t, c, "first").Spec.NodeName != "" || contains(c.Events(), "Preempted by pod "+string(get(t, c, "first").UID)+" on node a (") {
		t.Error("the first is there too")
	}
}

func TestWhoMayNotPreempt(t *testing.T) {
	ctx := context.Background()
	c := begin(t, node("a", "1"), priority(on(pod("low", "1"), "a"), 1))
	never := priority(pod("never", "1"), 50)
	policy := corev1.PreemptNever
	never.Spec.PreemptionPolicy = &policy
	large := priority(pod("large", "2"), 50)
	for _, p := range []*corev1.Pod{never, large} {
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"never": "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
		"large": "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: " +
			"1 Preemption is not helpful for scheduling.",
	} {
		clienttest.Eventually(t, "the reason of "+name, func() bool { return why(get(t, c, name)) == want })
	}
}

func contains(list []string, part string) bool {
	for _, s := range list {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}
