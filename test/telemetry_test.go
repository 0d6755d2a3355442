package test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"skiff.dev/skiff/test/cluster"
)

// measured are a pod that writes to its disk, one that is held to less CPU and memory than it wants, and two of which one is asked a lot.
const measured = `
apiVersion: v1
kind: Pod
metadata: {name: disk}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: data, emptyDir: {}}]
  containers: [{name: main, image: "` + peerName + `", args: [disk], volumeMounts: [{name: data, mountPath: /data}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: held}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: skiff.dev/web:1
    command: [sh, -c, "sort /dev/zero; head -c 3000000 /dev/zero > /tmp/f; while :; do :; done"]
    resources: {limits: {cpu: 50m, memory: 24Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: asked}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: skiff.dev/web:1}]
---
apiVersion: v1
kind: Pod
metadata: {name: idle}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: skiff.dev/web:1}]
`

// TestFigures: what a node tells of containers is what they did: disk and network input and output, kills for want of memory, throttling, logs, processes.
func TestFigures(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, "--node-name=n1")
	importPeer(t, c)
	c.Apply(measured)
	asked := c.WaitPodReady("asked")
	for _, name := range []string{"disk", "held", "idle"} {
		c.WaitPodReady(name)
	}
	t.Run("containers, for scrapers", func(t *testing.T) { scrapedFigures(t, c.For(t)) })
	t.Run("network", func(t *testing.T) { networkFigures(t, c.For(t), "http://"+asked.Status.PodIP+":8080/") })
	t.Run("summary", func(t *testing.T) { summaryFigures(t, c.For(t)) })
}

const nodeFigures = "/api/v1/nodes/n1/proxy/"

// figure is the sum of a metric over the series that have all these labels ("pod=x").
func figure(t *testing.T, families []*dto.MetricFamily, name string, labels ...string) (sum float64, series int) {
	t.Helper()
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			var has []string
			for _, l := range m.Label {
				has = append(has, l.GetName()+"="+l.GetValue())
			}
			if !slices.ContainsFunc(labels, func(want string) bool { return !slices.Contains(has, want) }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				series++
			}
		}
	}
	return sum, series
}

func scrapedFigures(t *testing.T, c *cluster.Cluster) {
	cluster.Eventually(t, func() error {
		families, err := scrape(c, nodeFigures+"metrics/cadvisor", "*/*")
		if err != nil {
			return err
		}
		for name, want := range map[string]struct {
			pod, container string
			least, most    float64
		}{
			"container_fs_writes_bytes_total":           {"disk", "main", 4 << 20, 8 << 20},
			"container_fs_reads_bytes_total":            {"disk", "main", 4 << 20, 64 << 20}, // the program, too
			"container_oom_events_total":                {"held", "main", 1, 1},
			"container_cpu_cfs_throttled_periods_total": {"held", "main", 1, 1e6},
			"container_cpu_cfs_throttled_seconds_total": {"held", "main", 0.01, 1e6},
			"container_spec_memory_limit_bytes":         {"held", "main", 24 << 20, 24 << 20},
			"container_spec_cpu_quota":                  {"held", "main", 5000, 5000},
			"container_memory_max_usage_bytes":          {"held", "main", 20 << 20, 24 << 20},
			"container_processes":                       {"held", "main", 1, 100},
		} {
			if got, n := figure(t, families, name, "pod="+want.pod, "container="+want.container); n != 1 || got < want.least || got > want.most {
				return fmt.Errorf("%s of %s is %f, in %d series; want %f to %f", name, want.pod, got, n, want.least, want.most)
			}
		}
		if _, err := os.Stat("/proc/pressure/cpu"); err == nil {
			if got, n := figure(t, families, "container_pressure_cpu_waiting_seconds_total", "id=/"); n != 1 || got <= 0 {
				return fmt.Errorf("the host waited for %f s, in %d series", got, n)
			}
		}
		return nil
	})
}

// networkFigures: what goes to a pod and comes from it is counted as that pod's.
func networkFigures(t *testing.T, c *cluster.Cluster, url string) {
	count := func(pod string) (received, sent float64) {
		t.Helper()
		families, err := scrape(c, nodeFigures+"metrics/cadvisor", "*/*")
		if err != nil {
			t.Fatal(err)
		}
		received, n := figure(t, families, "container_network_receive_bytes_total", "pod="+pod, "interface=eth0")
		sent, m := figure(t, families, "container_network_transmit_bytes_total", "pod="+pod, "interface=eth0")
		if n != 1 || m != 1 {
			t.Errorf("%s has %d and %d series", pod, n, m)
		}
		return received, sent
	}
	received, sent := count("asked")
	idleReceived, idleSent := count("idle")
	const requests, length = 200, 4000
	answers := 0
	for range requests {
		out, err := c.HTTP(url + strings.Repeat("x", length))
		if err != nil {
			t.Fatal(err)
		}
		answers += len(out)
	}
	cluster.Eventually(t, func() error { // figures are a second old at most
		r, s := count("asked")
		if r, s = r-received, s-sent; r < requests*length || r > 2*requests*length || s < float64(answers) || s > 2*float64(answers)+requests*2000 {
			return fmt.Errorf("received %f, sent %f bytes; %d requests of %d bytes were answered by %d", r, s, requests, length, answers)
		}
		return nil
	})
	if r, s := count("idle"); r-idleReceived > length*requests/10 || s-idleSent > length*requests/10 {
		t.Errorf("the pod beside it received %f and sent %f bytes", r-idleReceived, s-idleSent)
	}
}

func summaryFigures(t *testing.T, c *cluster.Cluster) {
	var summary stats.Summary
	cluster.Eventually(t, func() error {
		summary = stats.Summary{}
		if err := json.Unmarshal([]byte(c.Kubectl("get", "--raw", nodeFigures+"stats/summary")), &summary); err != nil {
			return err
		}
		i := slices.IndexFunc(summary.Pods, func(p stats.PodStats) bool { return p.PodRef.Name == "held" })
		if i < 0 || len(summary.Pods[i].Containers) != 1 {
			return fmt.Errorf("pods: %+v", summary.Pods)
		}
		held := summary.Pods[i]
		main := held.Containers[0]
		switch {
		case held.Network == nil || held.Network.Name != "eth0" || held.ProcessStats == nil || *held.ProcessStats.ProcessCount == 0:
			return fmt.Errorf("the pod: %+v", held)
		case main.Memory == nil || *main.Memory.AvailableBytes > 24<<20 || *main.Memory.WorkingSetBytes == 0 || main.CPU == nil || *main.CPU.UsageCoreNanoSeconds == 0:
			return fmt.Errorf("its container: %+v", main)
		case main.Logs == nil || *main.Logs.InodesUsed < 2 || *main.Logs.CapacityBytes == 0:
			return fmt.Errorf("its logs: %+v", main.Logs)
		case main.Rootfs == nil || *main.Rootfs.UsedBytes < 3_000_000: // measured once a minute
			return fmt.Errorf("its layer: %+v", main.Rootfs)
		}
		return nil
	})
	node := summary.Node
	if node.Fs == nil || *node.Fs.CapacityBytes == 0 || *node.Fs.InodesFree == 0 || node.Runtime == nil || *node.Runtime.ImageFs.UsedBytes == 0 ||
		node.Rlimit == nil || *node.Rlimit.NumOfRunningProcesses == 0 || node.Network == nil || node.Swap == nil || *node.Memory.AvailableBytes == 0 {
		t.Errorf("the node: %+v", node)
	}
	if _, err := os.Stat("/proc/pressure/io"); err == nil && (node.CPU.PSI == nil || node.CPU.PSI.Some.Total == 0 || node.Memory.PSI == nil || node.IO == nil || node.IO.PSI == nil) {
		t.Errorf("the pressure on the node: %+v, %+v, %+v", node.CPU.PSI, node.Memory.PSI, node.IO)
	}
	families, err := scrape(c, nodeFigures+"metrics/resource", "*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node_cpu_usage_seconds_total", "node_memory_working_set_bytes", "node_swap_usage_bytes"} {
		if _, n := figure(t, families, name); n != 1 {
			t.Errorf("%s has %d series", name, n)
		}
	}
	for _, name := range []string{"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_start_time_seconds"} {
		if _, n := figure(t, families, name, "pod=held", "container=main", "namespace=default"); n != 1 {
			t.Errorf("%s has %d series", name, n)
		}
	}
}
