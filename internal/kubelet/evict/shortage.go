package evict

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Level is how much there is of a thing, and how little makes the node short of it.
type Level struct {
	Signal           Signal
	Available, Least int64
	Reclaim          int64         // once pods are evicted, this must be there beyond Least before no more are
	Soft             bool          // pods get time to end
	Grace            time.Duration // soft: how long the shortage must last before pods are evicted
}

// Shortages is what a node is short of, over time. Hold is set before the first See; a zero Shortages holds nothing.
type Shortages struct {
	Hold time.Duration // how long a condition is told after its shortage ended, so that the node doesn't waver

	since map[mark]time.Time // of those that are passed: since when
	acted map[mark]bool      // of these: pods are being evicted for it
	last  map[corev1.NodeConditionType]time.Time
	seen  time.Time // the last See
}

// mark is a signal's hard or soft threshold.
type mark struct {
	signal Signal
	soft   bool
}

// See takes levels in. It says for which of them pods must go, in their order, and when the next grace period is over (zero: none runs).
func (s *Shortages) See(levels []Level, now time.Time) (short []Level, next time.Time) {
	since, acted := map[mark]time.Time{}, map[mark]bool{}
	if s.last == nil {
		s.last = map[corev1.NodeConditionType]time.Time{}
	}
	for _, l := range levels {
		t := mark{l.Signal, l.Soft}
		enough := l.Least
		if s.acted[t] {
			enough += l.Reclaim
		}
		if l.Available >= enough {
			continue
		}
		began, known := s.since[t]
		if !known {
			began = now
		}
		since[t] = began
		s.last[l.Signal.Condition()] = now
		if over := began.Add(l.Grace); now.Before(over) {
			if next.IsZero() || over.Before(next) {
				next = over
			}
			continue
		}
		acted[t] = true
		short = append(short, l)
	}
	s.since, s.acted, s.seen = since, acted, now
	return short, next
}

// Conditions that the node tells of itself now.
func (s *Shortages) Conditions(now time.Time) (out []corev1.NodeConditionType) {
	for _, c := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		if at, ok := s.last[c]; ok && (at.Equal(s.seen) || now.Sub(at) < s.Hold) {
			out = append(out, c)
		}
	}
	return out
}
