package pod

import (
	"cmp"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// Ends counts containers that ended, by upstream's name and labels; those of pods that are gone stay counted. Nil counts nothing.
type Ends struct {
	mu     sync.Mutex
	counts map[end]float64
}

type end struct {
	kind   string // "container", "init_container", "ephemeral_container"
	code   int32
	reason string
}

// NewEnds starts at nothing.
func NewEnds() *Ends { return &Ends{counts: map[end]float64{}} }

func (e *Ends) count(one end) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counts[one]++
}

var terminated = prometheus.NewDesc("kubelet_terminated_containers_total", "Cumulative number of containers that ended, well or not, by their exit code.",
	[]string{"container_type", "exit_code", "reason"}, nil)

// Describe is prometheus.Collector's.
func (e *Ends) Describe(out chan<- *prometheus.Desc) { out <- terminated }

// Collect is prometheus.Collector's.
func (e *Ends) Collect(out chan<- prometheus.Metric) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for one, n := range e.counts {
		out <- prometheus.MustNewConstMetric(terminated, prometheus.CounterValue, n, one.kind, strconv.Itoa(int(one.code)), one.reason)
	}
}

// endsSeen are the ends of one pod's containers that its status told of last, by container ID.
type endsSeen map[string]bool

// add takes a status in and counts the ends that are new in it; counter nil counts none.
func (s *endsSeen) add(status *corev1.PodStatus, counter *Ends) {
	now := endsSeen{}
	for _, list := range []struct {
		kind     string
		statuses []corev1.ContainerStatus
	}{
		{"init_container", status.InitContainerStatuses}, {"container", status.ContainerStatuses}, {"ephemeral_container", status.EphemeralContainerStatuses},
	} {
		for i := range list.statuses {
			cs := &list.statuses[i]
			for _, t := range []*corev1.ContainerStateTerminated{cs.LastTerminationState.Terminated, cs.State.Terminated} {
				if t == nil {
					continue
				}
				id := cmp.Or(t.ContainerID, cs.ContainerID, cs.Name) // of what was lost there is no more than the container's name
				if !(*s)[id] && !now[id] {
					counter.count(end{list.kind, t.ExitCode, t.Reason})
				}
				now[id] = true
			}
		}
	}
	*s = now
}
