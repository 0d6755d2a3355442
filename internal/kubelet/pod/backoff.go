package pod

import "time"

const (
	firstCrashDelay = 10 * time.Second
	maxCrashDelay   = 5 * time.Minute
)

// Backoff is how long a container that keeps ending has to wait from its end until its next start. The zero value doesn't wait. A
// container that ran for longer than 10 minutes begins anew.
type Backoff struct {
	Delay time.Duration
	Since time.Time // when Delay was set
}

// Until is when a container that ended at end may start, or zero for at once.
func (b Backoff) Until(end time.Time) time.Time {
	if b.Delay == 0 || end.Sub(b.Since) > 2*maxCrashDelay {
		return time.Time{}
	}
	return end.Add(b.Delay)
}

// Next is the back-off after one more start of a container that ended at end.
func (b Backoff) Next(end, now time.Time) Backoff {
	if b.Delay == 0 || end.Sub(b.Since) > 2*maxCrashDelay {
		return Backoff{firstCrashDelay, now}
	}
	return Backoff{min(2*b.Delay, maxCrashDelay), now}
}
