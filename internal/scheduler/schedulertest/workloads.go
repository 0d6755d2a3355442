package schedulertest

import "slices"

// Workload is one of kube-scheduler's own benchmarks (scheduler_perf), by upstream's names of the case and of its size. Of sizes that differ in nothing
// else it is the largest that upstream runs regularly, besides those that have a floor of their own.
type Workload struct {
	Name string

	// Floor is what upstream's CI asks for, in pods a second on 6 cores; 0: nothing.
	Floor int
	Steps []Step

	Controllers []string // that it needs
	Served      []string // optional group-versions that it needs
	Config      string   // KubeSchedulerConfiguration; empty: the default profile
}

// Workloads are upstream's, with its numbers of nodes and pods divided by share; 1 leaves them as they are.
func Workloads(share int) []Workload {
	n := func(full int) int { return max(full/share, 1) }
	return slices.Concat(basic(n), affinities(n), spreadings(n), volumes(n), preemptions(n), batches(n), features(n), events(n), devices(n), sharedDevices(n), grouped(n), starvations(n))
}

// Bare says that there is nothing that the algorithm alone does not know, so that it can be measured by the workload.
func (w *Workload) Bare() bool {
	if len(w.Served) > 0 || len(w.Controllers) > 0 {
		return false
	}
	return !slices.ContainsFunc(w.Steps, func(s Step) bool { return !s.bare() })
}

// Nodes are all that a workload has at its beginning.
func (w *Workload) Nodes() (n int) {
	for _, s := range w.Steps {
		if s, ok := s.(Nodes); ok {
			n += s.Count
		}
	}
	return n
}

// Measured are the pods that count.
func (w *Workload) Measured() (n int) {
	for _, s := range w.Steps {
		if s, ok := s.(Pods); ok && s.Measured {
			n += s.Count
		}
	}
	return n
}

// Steady says that the pods that count are replaced as soon as they are bound, for a while.
func (w *Workload) Steady() bool {
	return slices.ContainsFunc(w.Steps, func(s Step) bool { p, ok := s.(Pods); return ok && p.Steady })
}
