package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"skiff.dev/skiff/test/cluster"
)

// TestAutoscale: figures are there seconds after the start; load brings pods within seconds, and its end takes them away again.
func TestAutoscale(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t).With(stockKubectl(t))
	began := time.Now()
	example, err := os.ReadFile(filepath.Join("..", "examples", "autoscale.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// The example's wait is for people.
	c.Apply(strings.ReplaceAll(string(example), "stabilizationWindowSeconds: 15", "stabilizationWindowSeconds: 6"))
	eventually(t, c, "top nodes", func() error {
		out, err := c.TryKubectl("top", "nodes", "--no-headers")
		if fields := strings.Fields(out); err != nil || len(fields) != 5 || !strings.HasSuffix(fields[1], "m") || !strings.HasSuffix(fields[3], "Mi") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	t.Logf("top nodes works %s after the cluster was ready", time.Since(began).Round(100*time.Millisecond))
	c.Kubectl("rollout", "status", "deployment/burner", "--timeout=3m")
	topPods(t, c)
	rawMetrics(t, c)
	kubeletMetrics(t, c)
	scraped(t, c)
	scrapedByToken(t, c)
	scrapedByPrometheus(t, c)
	autoscaleCommand(t, c)

	eventually(t, c, "the target's usage", func() error { return targets(c, "0%/50%", "1%/50%", "2%/50%", "3%/50%") })
	c.Kubectl("scale", "deployment/load", "--replicas=1")
	loaded := time.Now()
	eventually(t, c, "pods for the load", func() error { return available(c, func(n int32) bool { return n > 1 }) })
	t.Logf("new pods are available %s after the load began", time.Since(loaded).Round(100*time.Millisecond))
	events := c.Kubectl("get", "events", "--field-selector=reason=SuccessfulRescale", "-o", "jsonpath={.items[*].message}")
	if !strings.Contains(events, "reason: cpu resource utilization (percentage of request) above target") {
		t.Errorf("events: %s", events)
	}

	c.Kubectl("scale", "deployment/load", "--replicas=0")
	c.Kubectl("wait", "pod", "-l", "app=load", "--for=delete", "--timeout=3m")
	idle := time.Now()
	eventually(t, c, "one pod when the load is over", func() error { return available(c, func(n int32) bool { return n == 1 }) })
	t.Logf("one pod is left %s after the load ended", time.Since(idle).Round(100*time.Millisecond))
	described := c.Kubectl("describe", "hpa", "burner")
	for _, want := range []string{"ValidMetricFound", "All metrics below target", "AbleToScale"} {
		if !strings.Contains(described, want) {
			t.Errorf("describe hpa lacks %q:\n%s", want, described)
		}
	}
}

func eventually(t *testing.T, c *cluster.Cluster, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(cluster.Patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	out, _ := c.TryKubectl("describe", "hpa")
	t.Fatalf("%s: not within %s: %v\n%s", what, cluster.Patience, err, out)
}

// topPods: stock kubectl's view of pods and of their containers.
func topPods(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	eventually(t, c, "top pods", func() error {
		out, err := c.TryKubectl("top", "pods", "--no-headers", "-l", "app=burner")
		if fields := strings.Fields(out); err != nil || len(fields) != 3 || !strings.HasPrefix(fields[0], "burner-") || !strings.HasSuffix(fields[2], "Mi") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	if out := c.Kubectl("top", "pods", "--containers", "-A", "--no-headers"); !strings.Contains(out, "default") || !strings.Contains(out, " web ") {
		t.Errorf("top pods --containers -A:\n%s", out)
	}
	if out := c.Kubectl("get", "pods.metrics.k8s.io"); !strings.HasPrefix(out, "NAME") || !strings.Contains(out, "MEMORY") || !strings.Contains(out, "burner-") {
		t.Errorf("get pods.metrics.k8s.io:\n%s", out)
	}
	if out, err := c.TryKubectl("top", "pod", "nonesuch"); err == nil || !strings.Contains(out, `"nonesuch" not found`) {
		t.Errorf("top of a pod that is not there: %v: %s", err, out)
	}
}

func rawMetrics(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	var list metricsv1beta1.PodMetricsList
	raw := c.Kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dburner")
	if err := json.Unmarshal([]byte(raw), &list); err != nil || list.Kind != "PodMetricsList" || len(list.Items) != 1 || len(list.Items[0].Containers) != 1 {
		t.Errorf("%v: %s", err, raw)
	}
	if out, err := c.TryKubectl("delete", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/x"); err == nil {
		t.Errorf("figures can be deleted: %s", out)
	}
}

// kubeletMetrics: what Prometheus scrapes of a node.
func kubeletMetrics(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	node := strings.TrimSpace(c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	for path, wants := range map[string][]string{
		"metrics/cadvisor": {
			`container_cpu_usage_seconds_total{container="web",cpu="total",id="/`, `container_memory_working_set_bytes{container="web",id="/`,
			`image="skiff.dev/web:1"`, `container_network_receive_bytes_total{container="",id="/`, `interface="eth0"`, "machine_cpu_cores ", "container_scrape_error 0",
		},
		"metrics/resource": {`container_cpu_usage_seconds_total{container="web",namespace="default",pod="burner-`, "resource_scrape_error 0"},
		"metrics/probes":   {`prober_probe_total{container="web",namespace="default",pod="burner-`, `probe_type="Readiness",result="successful"`},
	} {
		out := c.Kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/"+path)
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s lacks %q:\n%.3000s", path, want, out)
			}
		}
	}
}

// autoscaleCommand: kubectl's own way to an autoscaler, and how it is shown.
func autoscaleCommand(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	c.Kubectl("autoscale", "deployment", "load", "--min=1", "--max=2", "--cpu-percent=70")
	out := c.Kubectl("get", "hpa", "load")
	header, line, _ := strings.Cut(out, "\n")
	if strings.Join(strings.Fields(header), " ") != "NAME REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE" || !strings.Contains(line, "Deployment/load") || !strings.Contains(line, "/70%") {
		t.Errorf("get hpa:\n%s", out)
	}
	if out := c.Kubectl("get", "horizontalpodautoscalers.v1.autoscaling", "load", "-o", "jsonpath={.apiVersion} {.spec.targetCPUUtilizationPercentage}"); out != "autoscaling/v1 70" {
		t.Errorf("as v1: %s", out)
	}
	c.Kubectl("delete", "hpa", "load")
	if out, err := c.TryKubectl("autoscale", "deployment", "load", "--min=3", "--max=2"); err == nil {
		t.Errorf("more at least than at most: %s", out)
	}
}

func available(c *cluster.Cluster, enough func(n int32) bool) error {
	d, err := c.Client().AppsV1().Deployments("default").Get(context.Background(), "burner", metav1.GetOptions{})
	if err == nil && !enough(d.Status.AvailableReplicas) {
		err = fmt.Errorf("%d are available", d.Status.AvailableReplicas)
	}
	return err
}

// targets checks what an autoscaler shows.
func targets(c *cluster.Cluster, any ...string) error {
	var h autoscalingv2.HorizontalPodAutoscaler
	out, err := c.TryKubectl("get", "hpa", "burner", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &h)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	line, err := c.TryKubectl("get", "hpa", "burner", "--no-headers")
	for _, want := range any {
		if strings.Contains(line, "cpu: "+want) {
			return err
		}
	}
	return fmt.Errorf("%s: conditions %v", line, h.Status.Conditions)
}
