package registry_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEvictionDrawsOnTheBudget(t *testing.T) {
	f := start(t)
	b := budget(f, "web", 2, 3)
	pods := readyPods(f, "web", 3)
	for i, p := range pods[:2] {
		if err := evict(f, p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		now, _ := read(f, b)
		if _, noted := now.Status.DisruptedPods[p.Name]; now.Status.DisruptionsAllowed != int32(1-i) || !noted {
			t.Errorf("budget's status %+v", now.Status)
		}
		if now, found := read(f, p); found {
			c := now.Status.Conditions[len(now.Status.Conditions)-1]
			if c.Type != corev1.DisruptionTarget || c.Status != corev1.ConditionTrue || c.Reason != "EvictionByEvictionAPI" {
				t.Errorf("conditions %+v", now.Status.Conditions)
			}
		}
	}
	now, _ := read(f, b)
	if c := now.Status.Conditions[0]; c.Type != "DisruptionAllowed" || c.Reason != "InsufficientPods" {
		t.Errorf("condition %+v", c)
	}
	refused(t, evict(f, pods[2], metav1.CreateOptions{}), 429, "Cannot evict pod as it would violate the pod's disruption budget.")
}

// Pods that are not ready may go without when the budget is kept or doesn't mind; a budget that nobody has counted yet allows nothing.
func TestEvictionOfUnhealthyPods(t *testing.T) {
	policy := func(p policyv1.UnhealthyPodEvictionPolicyType) func(b *policyv1.PodDisruptionBudget) {
		return func(b *policyv1.PodDisruptionBudget) { b.Spec.UnhealthyPodEvictionPolicy = &p }
	}
	f := start(t)
	for name, c := range map[string]struct {
		healthy, desired int32
		change           func(b *policyv1.PodDisruptionBudget)
		refused          bool
	}{
		"kept": {healthy: 2, desired: 2, change: policy(policyv1.IfHealthyBudget)}, "broken": {healthy: 1, desired: 2, change: policy(policyv1.IfHealthyBudget), refused: true},
		"broken-but-free": {healthy: 0, desired: 2, change: policy(policyv1.AlwaysAllow)}, "default": {healthy: 1, desired: 2, change: func(*policyv1.PodDisruptionBudget) {}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := f.in(t)
			b := budget(f, name, 0, c.healthy, c.change)
			b.Status.DesiredHealthy = c.desired
			mustUpdate(f, b, "status")
			p := readyPods(f, name, 1)[0]
			p.Status.Conditions = nil
			p = mustUpdate(f, p, "status")
			if err := evict(f, p, metav1.CreateOptions{}); (err != nil) != c.refused {
				t.Error(err)
			}
		})
	}
	b := budget(f, "fresh", 1, 2)
	b.Status.ObservedGeneration = 0
	mustUpdate(f, b, "status")
	refused(t, evict(f, readyPods(f, "fresh", 1)[0], metav1.CreateOptions{}), 429, "Cannot evict pod as it would violate the pod's disruption budget.")
	budget(f, "twice", 1, 2)
	budget(f, "again", 1, 2, func(b *policyv1.PodDisruptionBudget) { b.Spec.Selector.MatchLabels["app"] = "twice" })
	refused(t, evict(f, readyPods(f, "twice", 1)[0], metav1.CreateOptions{}), 500,
		"Internal error occurred: this pod has more than one PodDisruptionBudget, which the eviction subresource does not support")
}
