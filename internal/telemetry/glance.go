package telemetry

import "time"

const (
	// glancePeriod is how often the pods' CPU clocks alone are looked at: one small file each.
	glancePeriod = time.Second
	// A pod whose load has risen by this much, and this part, over what was last shown of it is worth a sample before its time.
	jumpNanos = 50e6
	jumpPart  = 0.25
	// early bounds the samples that are taken before their time: so many at once, and then one for each that comes in its time.
	early = 5
)

// glimpse is a pod's CPU clock at the last glance, and the rate that was last shown of it.
type glimpse struct {
	at    time.Time
	nanos uint64
	shown uint64
}

// glance says whether some pod's load has risen since it was measured: whoever scales by it should not have to wait for the next sample.
func (s *Sampler) glance(now time.Time) (risen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, dir := range s.dirs {
		nanos, err := s.host.groups.cpu(dir)
		if err != nil {
			continue // it is going; the next sample will tell
		}
		g, known := s.glimpses[uid]
		if passed := now.Sub(g.at); known && nanos > g.nanos && passed > glancePeriod/2 {
			rate := float64(nanos-g.nanos) / passed.Seconds()
			risen = risen || rate > float64(g.shown)+jumpNanos && rate > float64(g.shown)*(1+jumpPart)
		}
		s.glimpses[uid] = glimpse{now, nanos, g.shown}
	}
	return risen
}

// show notes what a sample says of a pod. Called with mu held.
func (s *Sampler) show(uid string, now time.Time, nanos uint64, rate *uint64) {
	g := glimpse{at: now, nanos: nanos}
	if rate != nil {
		g.shown = *rate
	}
	s.glimpses[uid] = g
}
