package telemetry

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

const (
	// history bounds the readings kept of each CPU clock: enough for a window when somebody asks every second.
	history = 8
	// window is the time a rate is taken over: long enough that a burst is not taken for load. It leaves room for a timer that is late.
	window = Period - 500*time.Millisecond
	// shortest is the time a rate is taken over as long as there is no whole window; shorter ones show the scheduler's ticks.
	shortest = 900 * time.Millisecond
)

// clock is the bounded history of one CPU clock.
type clock struct {
	at    [history]time.Time
	nanos [history]uint64
	n     int
}

// add keeps a reading and returns the rate since an older one, in nanoseconds a second; nil before there is one. What began at a known time was at
// zero then, which makes a rate of the first reading; a zero time is unknown.
func (c *clock) add(at time.Time, nanos uint64, began time.Time) *uint64 {
	if c.n > 0 && nanos < c.nanos[0] {
		c.n = 0 // it started anew
	}
	rate := c.rate(at, nanos, began)
	copy(c.at[1:], c.at[:history-1])
	copy(c.nanos[1:], c.nanos[:history-1])
	c.at[0], c.nanos[0], c.n = at, nanos, min(c.n+1, history)
	return rate
}

func (c *clock) rate(at time.Time, nanos uint64, began time.Time) *uint64 {
	since, from := began, uint64(0)
	for i := range c.n { // the newest first
		since, from = c.at[i], c.nanos[i]
		if at.Sub(since) >= window {
			break
		}
	}
	if young := at.Sub(began); c.n > 0 && at.Sub(since) < shortest && young < window {
		since, from = began, 0
	}
	passed := at.Sub(since)
	if since.IsZero() || passed < shortest {
		return nil
	}
	return value(uint64(float64(nanos-from) / passed.Seconds()))
}

func (s *Sampler) cpu(key string, at time.Time, nanos uint64, began time.Time) *stats.CPUStats {
	c := s.clocks[key]
	if c == nil {
		c = &clock{}
		s.clocks[key] = c
	}
	return &stats.CPUStats{Time: metav1.NewTime(at), UsageCoreNanoSeconds: value(nanos), UsageNanoCores: c.add(at, nanos, began)}
}
