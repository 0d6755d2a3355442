package probe

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Counts is how many attempts went well and how many did not, of each probe of the pods that are there. Nil counts nothing.
type Counts struct {
	mu   sync.Mutex
	pods map[types.UID]map[tally]float64
}

// tally names one counter of a pod.
type tally struct{ namespace, pod, container, kind, result string }

// NewCounts starts at nothing.
func NewCounts() *Counts { return &Counts{pods: map[types.UID]map[tally]float64{}} }

// Of is what a Report calls after each attempt of one probe; kind is "Liveness", "Readiness" or "Startup".
func (c *Counts) Of(pod *corev1.Pod, container, kind string) func(ok bool) {
	if c == nil {
		return func(bool) {}
	}
	uid, one := pod.UID, tally{pod.Namespace, pod.Name, container, kind, ""}
	return func(ok bool) {
		t := one
		if t.result = "failed"; ok {
			t.result = "successful"
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.pods[uid] == nil {
			c.pods[uid] = map[tally]float64{}
		}
		c.pods[uid][t]++
	}
}

// Forget a pod that is gone.
func (c *Counts) Forget(pod types.UID) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, pod)
}

var total = prometheus.NewDesc("prober_probe_total", "Cumulative number of a liveness, readiness or startup probe for a container by result.",
	[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}, nil)

// Describe is prometheus.Collector's.
func (c *Counts) Describe(out chan<- *prometheus.Desc) { out <- total }

// Collect is prometheus.Collector's.
func (c *Counts) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, tallies := range c.pods {
		for t, n := range tallies {
			out <- prometheus.MustNewConstMetric(total, prometheus.CounterValue, n, t.kind, t.result, t.container, t.pod, t.namespace, string(uid))
		}
	}
}
