// Package podrank says which of an owner's pods should go first when there are too many. Pure: pods in, pods out.
package podrank

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/controller/podstate"
)

// deletionCost is the annotation by which a user says which pods to keep.
const deletionCost = "controller.kubernetes.io/pod-deletion-cost"

// candidate is a pod with what its deletion rank depends on, computed once.
type candidate struct {
	pod      *corev1.Pod
	cost     int64
	together int // how many related pods share its node
	restarts int32
	ready    bool
	readyAt  time.Time
}

// First returns the n pods that should go first: unassigned before assigned, pending before unknown before running, not ready before ready,
// cheaper before dearer, crowded nodes before empty ones, ready for a shorter before for a longer time, many restarts before few, young
// before old; times count by orders of magnitude, so that near-equals are spread by UID rather than always hitting the newest.
func First(pods, related []*corev1.Pod, n int) []*corev1.Pod {
	if n >= len(pods) {
		return pods
	}
	onNode := map[string]int{}
	for _, p := range related {
		if p.Spec.NodeName != "" {
			onNode[p.Spec.NodeName]++
		}
	}
	candidates := make([]candidate, len(pods))
	newest := time.Time{}
	for i, p := range pods {
		c := candidate{pod: p, together: onNode[p.Spec.NodeName], ready: podstate.Ready(p)}
		if cost, err := strconv.ParseInt(p.Annotations[deletionCost], 10, 32); err == nil {
			c.cost = cost
		}
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			c.restarts = max(c.restarts, s.RestartCount)
		}
		if c.ready {
			c.readyAt = podstate.Condition(p, corev1.PodReady).LastTransitionTime.Time
		}
		candidates[i] = c
		newest = later(newest, later(c.readyAt, p.CreationTimestamp.Time))
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int { return compare(a, b, newest) })
	first := make([]*corev1.Pod, n)
	for i := range first {
		first[i] = candidates[i].pod
	}
	return first
}

func compare(a, b candidate, now time.Time) int {
	return cmp.Or(
		falseFirst(a.pod.Spec.NodeName != "", b.pod.Spec.NodeName != ""),
		cmp.Compare(phaseRank(a.pod), phaseRank(b.pod)),
		falseFirst(a.ready, b.ready),
		cmp.Compare(a.cost, b.cost),
		cmp.Compare(b.together, a.together),
		youngFirst(a.readyAt, b.readyAt, now, a.pod, b.pod),
		cmp.Compare(b.restarts, a.restarts),
		youngFirst(a.pod.CreationTimestamp.Time, b.pod.CreationTimestamp.Time, now, a.pod, b.pod),
	)
}

func phaseRank(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	}
	return 2
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// youngFirst puts the later of two times first, unless both are as old within a factor of two, when the UID decides.
func youngFirst(a, b, now time.Time, p, q *corev1.Pod) int {
	switch {
	case a.Equal(b):
		return 0
	case a.IsZero() || b.IsZero():
		return falseFirst(!a.IsZero(), !b.IsZero())
	}
	if byAge := cmp.Compare(magnitude(now.Sub(a)), magnitude(now.Sub(b))); byAge != 0 {
		return byAge
	}
	return cmp.Compare(p.UID, q.UID)
}

func magnitude(age time.Duration) int { return bits.Len64(uint64(max(age, 0))) }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
