package telemetry

import (
	"context"
	"net/http"
	"path/filepath"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Containers serves the figures under cAdvisor's names and labels, as dashboards and alerts written for Kubernetes expect them.
func (s *Sampler) Containers() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(&scrape{s, r.Context()})
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
}

// scrape is one answer in the making.
type scrape struct {
	s   *Sampler
	ctx context.Context
}

// Every cgroup has these labels; those of a pod have no container, the node's have nothing but the id.
var groupLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

func desc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append(append([]string{}, groupLabels...), more...), nil)
}

var (
	cpuTotal     = desc("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "cpu")
	lastSeen     = desc("container_last_seen", "Last time a container was seen by the exporter")
	startedAt    = desc("container_start_time_seconds", "Start time of the container since unix epoch in seconds.")
	workingSet   = desc("container_memory_working_set_bytes", "Current working set in bytes.")
	memoryUsed   = desc("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed")
	failuresOf   = desc("container_memory_failures_total", "Cumulative count of memory allocation failures.", "failure_type", "scope")
	processes    = desc("container_processes", "Number of processes running inside the container.")
	layerUsed    = desc("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", "device")
	layerLimit   = desc("container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", "device")
	machineCores = prometheus.NewDesc("machine_cpu_cores", "Number of logical CPU cores.", nil, nil)
	machineBytes = prometheus.NewDesc("machine_memory_bytes", "Amount of memory installed on the machine.", nil, nil)
	scrapeFailed = prometheus.NewDesc("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", nil, nil)
)

// detailed are the figures of a cgroup that detail reads, one line each.
var detailed = []struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(d *detail) float64
}{
	{desc("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds."), prometheus.CounterValue, func(d *detail) float64 { return seconds(d.user) }},
	{desc("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds."), prometheus.CounterValue, func(d *detail) float64 { return seconds(d.system) }},
	{desc("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals."), prometheus.CounterValue, func(d *detail) float64 { return float64(d.periods) }},
	{desc("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals."), prometheus.CounterValue, func(d *detail) float64 { return float64(d.throttled) }},
	{desc("container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled."), prometheus.CounterValue, func(d *detail) float64 { return seconds(d.throttledNanos) }},
	{desc("container_spec_cpu_shares", "CPU share of the container."), prometheus.GaugeValue, func(d *detail) float64 { return float64(d.shares) }},
	{desc("container_spec_cpu_period", "CPU period of the container."), prometheus.GaugeValue, func(d *detail) float64 { return float64(d.period) }},
	{desc("container_spec_memory_limit_bytes", "Memory limit for the container."), prometheus.GaugeValue, func(d *detail) float64 { return float64(d.memoryLimit) }},
	{desc("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes"), prometheus.GaugeValue, func(d *detail) float64 { return float64(d.memoryMax) }},
	{desc("container_memory_rss", "Size of RSS in bytes."), prometheus.GaugeValue, func(d *detail) float64 { return float64(d.rss) }},
	{desc("container_memory_cache", "Number of bytes of page cache memory."), prometheus.GaugeValue, func(d *detail) float64 { return float64(d.cache) }},
	{desc("container_memory_mapped_file", "Size of memory mapped files in bytes."), prometheus.GaugeValue, func(d *detail) float64 { return float64(d.mapped) }},
	{desc("container_memory_swap", "Container swap usage in bytes."), prometheus.GaugeValue, func(d *detail) float64 { return float64(d.swap) }},
	{desc("container_memory_failcnt", "Number of memory usage hits limits"), prometheus.CounterValue, func(d *detail) float64 { return float64(d.failures) }},
	{desc("container_oom_events_total", "Count of out of memory events observed for the container"), prometheus.CounterValue, func(d *detail) float64 { return float64(d.oomKills) }},
	{desc("container_fs_reads_total", "Cumulative count of reads completed", "device"), prometheus.CounterValue, func(d *detail) float64 { return float64(d.reads) }},
	{desc("container_fs_writes_total", "Cumulative count of writes completed", "device"), prometheus.CounterValue, func(d *detail) float64 { return float64(d.writes) }},
	{desc("container_fs_reads_bytes_total", "Cumulative count of bytes read", "device"), prometheus.CounterValue, func(d *detail) float64 { return float64(d.readBytes) }},
	{desc("container_fs_writes_bytes_total", "Cumulative count of bytes written", "device"), prometheus.CounterValue, func(d *detail) float64 { return float64(d.wroteByte) }},
}

// perDevice is how many of detailed, from the end, have a label for the device; all devices are summed up under "".
const perDevice = 4

var quotaDesc = desc("container_spec_cpu_quota", "CPU quota of the container.")

// pressured are the totals of /proc/pressure's kind, by resource: waiting and stalled.
var pressured = map[string][2]*prometheus.Desc{
	"cpu": {desc("container_pressure_cpu_waiting_seconds_total", "Total time duration tasks in the container have waited due to CPU congestion."),
		desc("container_pressure_cpu_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to CPU congestion.")},
	"memory": {desc("container_pressure_memory_waiting_seconds_total", "Total time duration tasks in the container have waited due to memory congestion."),
		desc("container_pressure_memory_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to memory congestion.")},
	"io": {desc("container_pressure_io_waiting_seconds_total", "Total time duration tasks in the container have waited due to IO congestion."),
		desc("container_pressure_io_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to IO congestion.")},
}

var trafficDescs = func() (out [2][4]*prometheus.Desc) {
	for i, way := range []string{"receive", "transmit"} {
		for j, what := range []string{"bytes", "packets", "errors", "packets_dropped"} {
			out[i][j] = desc("container_network_"+way+"_"+what+"_total", "Cumulative count of "+what+" ("+way+")", "interface")
		}
	}
	return out
}()

func seconds(nanos uint64) float64 { return float64(nanos) / float64(time.Second) }

// Describe says nothing in advance: which figures there are depends on the host.
func (*scrape) Describe(chan<- *prometheus.Desc) {}

// Collect takes a sample and reads the details of each cgroup.
func (c *scrape) Collect(out chan<- prometheus.Metric) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	summary, err := s.fresh(c.ctx, MaxAge)
	if err != nil {
		s.cfg.Log.Warn("cannot measure what containers use", "err", err)
		out <- prometheus.MustNewConstMetric(scrapeFailed, prometheus.GaugeValue, 1)
		return
	}
	e := exporter{out, s.taken}
	out <- prometheus.MustNewConstMetric(machineCores, prometheus.GaugeValue, float64(runtime.NumCPU()))
	node := summary.Node
	out <- prometheus.MustNewConstMetric(machineBytes, prometheus.GaugeValue, float64(*node.Memory.AvailableBytes+*node.Memory.WorkingSetBytes))
	e.figures([]string{"", "/", "", "", "", ""}, node.CPU, node.Memory, node.IO, node.StartTime.Time)
	pods := make(map[string]*stats.PodStats, len(summary.Pods))
	for i := range summary.Pods {
		pods[summary.Pods[i].PodRef.UID] = &summary.Pods[i]
	}
	for i := range s.groups {
		if p := pods[s.groups[i].sandbox.GetMetadata().GetUid()]; p != nil {
			e.pod(s.host, &s.groups[i], p, s.disk)
		}
	}
	out <- prometheus.MustNewConstMetric(scrapeFailed, prometheus.GaugeValue, 0)
}

type exporter struct {
	out chan<- prometheus.Metric
	at  time.Time
}

func (e exporter) send(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string, more ...string) {
	e.out <- prometheus.MustNewConstMetric(d, kind, v, append(append(make([]string, 0, len(labels)+len(more)), labels...), more...)...)
}

func (e exporter) figures(labels []string, cpu *stats.CPUStats, memory *stats.MemoryStats, io *stats.IOStats, began time.Time) {
	e.send(cpuTotal, prometheus.CounterValue, seconds(*cpu.UsageCoreNanoSeconds), labels, "total")
	e.send(memoryUsed, prometheus.GaugeValue, float64(*memory.UsageBytes), labels)
	e.send(workingSet, prometheus.GaugeValue, float64(*memory.WorkingSetBytes), labels)
	e.send(startedAt, prometheus.GaugeValue, float64(began.Unix()), labels)
	e.send(lastSeen, prometheus.GaugeValue, float64(e.at.Unix()), labels)
	e.pressure("cpu", cpu.PSI, labels)
	e.pressure("memory", memory.PSI, labels)
	if io != nil {
		e.pressure("io", io.PSI, labels)
	}
}

// pressure is nil where the kernel doesn't tell it.
func (e exporter) pressure(resource string, p *stats.PSIStats, labels []string) {
	if p != nil {
		e.send(pressured[resource][0], prometheus.CounterValue, seconds(p.Some.Total), labels)
		e.send(pressured[resource][1], prometheus.CounterValue, seconds(p.Full.Total), labels)
	}
}

func (e exporter) detail(labels []string, d *detail) {
	for i, f := range detailed {
		if i >= len(detailed)-perDevice {
			e.send(f.desc, f.kind, f.of(d), labels, "")
			continue
		}
		e.send(f.desc, f.kind, f.of(d), labels)
	}
	if d.quota > 0 {
		e.send(quotaDesc, prometheus.GaugeValue, float64(d.quota), labels)
	}
	e.send(failuresOf, prometheus.CounterValue, float64(d.faults), labels, "pgfault", "hierarchy")
	e.send(failuresOf, prometheus.CounterValue, float64(d.majorFaults), labels, "pgmajfault", "hierarchy")
}

// pod shows a pod's cgroup, its network under the name of its sandbox, and its containers.
func (e exporter) pod(h host, g *podGroups, p *stats.PodStats, disk *stats.FsStats) {
	ns, name := p.PodRef.Namespace, p.PodRef.Name
	labels := []string{"", g.dir, "", "", ns, name}
	e.figures(labels, p.CPU, p.Memory, p.IO, p.StartTime.Time)
	d := h.detail(g.dir)
	e.detail(labels, &d)
	if p.ProcessStats != nil {
		e.send(processes, prometheus.GaugeValue, float64(*p.ProcessStats.ProcessCount), labels)
	}
	sandbox := []string{"", filepath.Join(g.dir, g.sandbox.Id), "", g.sandbox.Id, ns, name}
	for _, l := range g.links {
		for i, t := range []traffic{l.rx, l.tx} {
			for j, n := range []uint64{t.bytes, t.packets, t.errors, t.dropped} {
				e.send(trafficDescs[i][j], prometheus.CounterValue, float64(n), sandbox, l.name)
			}
		}
	}
	for i, c := range g.containers {
		one := &p.Containers[i]
		dir := filepath.Join(g.dir, c.Id)
		labels := []string{one.Name, dir, imageOf(c), c.Id, ns, name}
		e.figures(labels, one.CPU, one.Memory, one.IO, one.StartTime.Time)
		d := h.detail(dir)
		e.detail(labels, &d)
		e.send(processes, prometheus.GaugeValue, float64(h.groups.processes(dir)), labels)
		if one.Rootfs != nil && one.Rootfs.UsedBytes != nil {
			e.send(layerUsed, prometheus.GaugeValue, float64(*one.Rootfs.UsedBytes), labels, "")
		}
		if disk != nil && disk.CapacityBytes != nil {
			e.send(layerLimit, prometheus.GaugeValue, float64(*disk.CapacityBytes), labels, "")
		}
	}
}

func imageOf(c *runtimeapi.Container) string {
	if name := c.GetImage().GetUserSpecifiedImage(); name != "" {
		return name
	}
	return c.GetImage().GetImage()
}
