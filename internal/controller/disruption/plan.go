package disruption

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/apps/poddisruptionbudget"

	"skiff.dev/skiff/internal/controller/owner"
	"skiff.dev/skiff/internal/controller/podstate"
)

// grace is how long an evicted pod may take to be seen going. After that the eviction counts as come to nothing.
const grace = 2 * time.Minute

// goal is how many pods there should be and how many of them healthy.
type goal struct {
	expected, desired int
	unmanaged         []string // pods that are left out because nobody says how many of them there should be
}

// want works a budget's goal out. A whole number of minAvailable needs nothing but the pods; everything else is relative to how many the pods'
// controllers are to have, for which scale is asked.
func want(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, scale func(ref *metav1.OwnerReference) (types.UID, int, error)) (goal, error) {
	low, high := b.Spec.MinAvailable, b.Spec.MaxUnavailable
	if high == nil && low != nil && low.Type == intstr.Int {
		return goal{expected: len(pods), desired: low.IntValue()}, nil
	}
	var g goal
	if high == nil && low == nil {
		return g, nil
	}
	known := map[types.UID]bool{} // direct controllers
	counted := map[types.UID]bool{}
	for _, pod := range pods {
		ref := owner.Of(pod)
		if ref == nil {
			g.unmanaged = append(g.unmanaged, pod.Name)
			continue
		}
		if known[ref.UID] {
			continue
		}
		uid, n, err := scale(ref)
		if err != nil {
			return goal{}, err
		}
		if uid == "" {
			return goal{}, fmt.Errorf("found no controllers for pod %q", pod.Name)
		}
		if known[ref.UID] = true; !counted[uid] {
			counted[uid] = true
			g.expected += n
		}
	}
	limit := high
	if limit == nil {
		limit = low
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(limit, g.expected, true)
	if err != nil {
		return goal{}, err
	}
	if g.desired = n; high != nil {
		g.desired = max(0, g.expected-n)
	}
	return g, nil
}

// statusOf counts the healthy pods. Pods that were evicted and are not seen going yet don't count; late are those of them that should be gone by
// now, after says when the next is late.
func statusOf(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, g goal, now time.Time) (
	s policyv1.PodDisruptionBudgetStatus, late []*corev1.Pod, after time.Duration) {
	disrupted := map[string]metav1.Time{}
	healthy := 0
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		if at, evicted := b.Status.DisruptedPods[pod.Name]; evicted {
			left := at.Add(grace).Sub(now)
			if left > 0 {
				disrupted[pod.Name] = at
				if after == 0 || left < after {
					after = left
				}
				continue
			}
			late = append(late, pod)
		}
		if podstate.Ready(pod) {
			healthy++
		}
	}
	allowed := max(0, healthy-g.desired)
	if g.expected <= 0 {
		allowed = 0
	}
	status := policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: b.Generation, CurrentHealthy: int32(healthy), DesiredHealthy: int32(g.desired), ExpectedPods: int32(g.expected),
		DisruptionsAllowed: int32(allowed), Conditions: b.DeepCopy().Status.Conditions,
	}
	if len(disrupted) > 0 {
		status.DisruptedPods = disrupted
	}
	said := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: b.Generation}, Status: status}
	poddisruptionbudget.UpdateDisruptionAllowedCondition(said)
	return said.Status, late, after
}
