package job

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/controller/podstate"
)

// A failed pod is replaced after delayFirst, further ones each twice as late, up to delayLast; a success starts anew.
const (
	delayFirst = 10 * time.Second
	delayLast  = 6 * time.Minute
)

// streak is how often a job failed in a row, and when last.
type streak struct {
	failures int
	last     time.Time
}

// next is the record after more pods have ended.
func (r streak) next(succeeded, failed []*corev1.Pod) streak {
	var success time.Time
	for _, p := range succeeded {
		success = later(success, endedAt(p))
	}
	if len(succeeded) > 0 && !r.last.After(success) {
		r = streak{}
	}
	for _, p := range failed {
		if at := endedAt(p); len(succeeded) == 0 || at.After(success) {
			r.failures++
			r.last = later(r.last, at)
		}
	}
	return r
}

// wait is how long no new pod is to be made.
func (r streak) wait(now time.Time) time.Duration {
	if r.failures == 0 {
		return 0
	}
	delay := delayFirst
	for i := 1; i < r.failures && delay < delayLast; i++ {
		delay *= 2
	}
	return max(0, r.last.Add(min(delay, delayLast)).Sub(now))
}

// endedAt is when a pod ended: its last container, or else as near as can be told.
func endedAt(p *corev1.Pod) time.Time {
	var at time.Time
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Terminated != nil {
			at = later(at, c.State.Terminated.FinishedAt.Time)
		}
	}
	if !at.IsZero() {
		return at
	}
	if c := podstate.Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		at := p.DeletionTimestamp.Time
		if p.DeletionGracePeriodSeconds != nil {
			at = at.Add(-time.Duration(*p.DeletionGracePeriodSeconds) * time.Second)
		}
		return at
	}
	return p.CreationTimestamp.Time
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
