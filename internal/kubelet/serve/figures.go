package serve

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	summary, err := s.cfg.Summary(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	s.json(w, summary)
}

// resource shows the summary in the form metrics-server scrapes.
func (s *Server) resource(w http.ResponseWriter, r *http.Request) {
	got, err := s.cfg.Summary(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	summary, ok := got.(*stats.Summary)
	if !ok {
		http.Error(w, "there are no figures", http.StatusInternalServerError)
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(resourceMetrics{summary})
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// resourceMetrics are the names that /metrics/resource is documented to have.
type resourceMetrics struct{ summary *stats.Summary }

var (
	containerLabels = []string{"container", "pod", "namespace"}
	podLabels       = []string{"pod", "namespace"}

	nodeCPU         = prometheus.NewDesc("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", nil, nil)
	nodeMemory      = prometheus.NewDesc("node_memory_working_set_bytes", "Current working set of the node in bytes", nil, nil)
	nodeSwap        = prometheus.NewDesc("node_swap_usage_bytes", "Current swap usage of the node in bytes", nil, nil)
	podCPU          = prometheus.NewDesc("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", podLabels, nil)
	podMemory       = prometheus.NewDesc("pod_memory_working_set_bytes", "Current working set of the pod in bytes", podLabels, nil)
	podSwap         = prometheus.NewDesc("pod_swap_usage_bytes", "Current amount of the pod swap usage in bytes", podLabels, nil)
	containerCPU    = prometheus.NewDesc("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", containerLabels, nil)
	containerMemory = prometheus.NewDesc("container_memory_working_set_bytes", "Current working set of the container in bytes", containerLabels, nil)
	containerSwap   = prometheus.NewDesc("container_swap_usage_bytes", "Current amount of the container swap usage in bytes", containerLabels, nil)
	containerStart  = prometheus.NewDesc("container_start_time_seconds", "Start time of the container since unix epoch in seconds", containerLabels, nil)
	scrapeError     = prometheus.NewDesc("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", nil, nil)
)

func (m resourceMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodeCPU, nodeMemory, nodeSwap, podCPU, podMemory, podSwap, containerCPU, containerMemory, containerSwap, containerStart, scrapeError} {
		c <- d
	}
}

func (m resourceMetrics) Collect(c chan<- prometheus.Metric) {
	send := func(cpu *stats.CPUStats, memory *stats.MemoryStats, swap *stats.SwapStats, cpuDesc, memoryDesc, swapDesc *prometheus.Desc, labels ...string) {
		if cpu != nil && cpu.UsageCoreNanoSeconds != nil {
			c <- prometheus.NewMetricWithTimestamp(cpu.Time.Time,
				prometheus.MustNewConstMetric(cpuDesc, prometheus.CounterValue, float64(*cpu.UsageCoreNanoSeconds)/1e9, labels...))
		}
		if memory != nil && memory.WorkingSetBytes != nil {
			c <- prometheus.NewMetricWithTimestamp(memory.Time.Time,
				prometheus.MustNewConstMetric(memoryDesc, prometheus.GaugeValue, float64(*memory.WorkingSetBytes), labels...))
		}
		if swap != nil && swap.SwapUsageBytes != nil {
			c <- prometheus.NewMetricWithTimestamp(swap.Time.Time,
				prometheus.MustNewConstMetric(swapDesc, prometheus.GaugeValue, float64(*swap.SwapUsageBytes), labels...))
		}
	}
	send(m.summary.Node.CPU, m.summary.Node.Memory, m.summary.Node.Swap, nodeCPU, nodeMemory, nodeSwap)
	for i := range m.summary.Pods {
		p := &m.summary.Pods[i]
		send(p.CPU, p.Memory, p.Swap, podCPU, podMemory, podSwap, p.PodRef.Name, p.PodRef.Namespace)
		for j := range p.Containers {
			one := &p.Containers[j]
			labels := []string{one.Name, p.PodRef.Name, p.PodRef.Namespace}
			send(one.CPU, one.Memory, one.Swap, containerCPU, containerMemory, containerSwap, labels...)
			if !one.StartTime.IsZero() {
				c <- prometheus.MustNewConstMetric(containerStart, prometheus.GaugeValue, float64(one.StartTime.UnixNano())/1e9, labels...)
			}
		}
	}
	c <- prometheus.MustNewConstMetric(scrapeError, prometheus.GaugeValue, 0)
}

// volumeMetrics are what is used of the volumes of claims, once each however many pods use one.
type volumeMetrics struct {
	summary func(context.Context) (any, error)
}

var volumeDescs = func() (out [6]*prometheus.Desc) {
	for i, d := range [][2]string{
		{"capacity_bytes", "Capacity in bytes of the volume"}, {"available_bytes", "Number of available bytes in the volume"}, {"used_bytes", "Number of used bytes in the volume"},
		{"inodes", "Maximum number of inodes in the volume"}, {"inodes_free", "Number of free inodes in the volume"}, {"inodes_used", "Number of used inodes in the volume"},
	} {
		out[i] = prometheus.NewDesc("kubelet_volume_stats_"+d[0], d[1], []string{"namespace", "persistentvolumeclaim"}, nil)
	}
	return out
}()

func (m volumeMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range volumeDescs {
		c <- d
	}
}

func (m volumeMetrics) Collect(c chan<- prometheus.Metric) {
	got, err := m.summary(context.Background())
	summary, ok := got.(*stats.Summary)
	if err != nil || !ok {
		return
	}
	seen := map[stats.PVCReference]bool{}
	for i := range summary.Pods {
		for _, v := range summary.Pods[i].VolumeStats {
			if v.PVCRef == nil || seen[*v.PVCRef] {
				continue
			}
			seen[*v.PVCRef] = true
			for i, n := range []*uint64{v.CapacityBytes, v.AvailableBytes, v.UsedBytes, v.Inodes, v.InodesFree, v.InodesUsed} {
				if n != nil {
					c <- prometheus.MustNewConstMetric(volumeDescs[i], prometheus.GaugeValue, float64(*n), v.PVCRef.Namespace, v.PVCRef.Name)
				}
			}
		}
	}
}

// ownMetrics are what /metrics shows of the kubelet.
func (s *Server) ownMetrics() prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	count := func(name, help string, of func() int) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(of()) }))
	}
	count("kubelet_running_pods", "Number of pods that have a running pod sandbox", func() (n int) {
		for _, v := range s.cfg.Pods.List() {
			if len(v.Sandboxes) > 0 && v.Sandboxes[0].Ready {
				n++
			}
		}
		return n
	})
	count("kubelet_running_containers", "Number of containers currently running", func() (n int) {
		for _, v := range s.cfg.Pods.List() {
			for i := range v.Containers {
				if v.Containers[i].Running() {
					n++
				}
			}
		}
		return n
	})
	if s.cfg.Summary != nil {
		registry.MustRegister(volumeMetrics{s.cfg.Summary})
	}
	registry.MustRegister(s.cfg.Counts...)
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kubelet_node_name", Help: "The node's name. The count is always 1.", ConstLabels: prometheus.Labels{"node": s.cfg.NodeName},
	}, func() float64 { return 1 }))
	return registry
}
