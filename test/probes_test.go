package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// TestProbes: readiness decides who gets requests, liveness restarts, startup holds the others back.
func TestProbes(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	subtests(t, c, map[string]func(*testing.T, *cluster.Cluster){
		"exec readiness":   execReadiness,
		"HTTP readiness":   httpReadiness,
		"TCP readiness":    tcpReadiness,
		"exec liveness":    execLiveness,
		"HTTP liveness":    httpLiveness,
		"startup":          startup,
		"failing startup":  failingStartup,
		"no probes at all": noProbes,
	})
}

// endpoints are the addresses behind a service, as its slices say.
func endpoints(c *cluster.Cluster, service string) string {
	return strings.TrimSpace(c.Kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name="+service,
		"-o", `jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]} {end}`))
}

func waitForEndpoints(t *testing.T, c *cluster.Cluster, service string, n int) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if got := endpoints(c, service); len(strings.Fields(got)) != n {
			return fmt.Errorf("service %s has the endpoints %q, want %d", service, got, n)
		}
		return nil
	})
}

func execReadiness(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  containers:
    - {name: main, image: "skiff.dev/web:1", readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: p}, ports: [{port: 80, targetPort: 8080}]}
`)
	c.WaitPod("p", "running but not ready", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning && !cluster.Ready(p) })
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "events"); !strings.Contains(out, "Readiness probe failed: cat: /tmp/ready: no such file or directory") {
			return fmt.Errorf("events do not say why:\n%s", out)
		}
		return nil
	})
	ip := serviceIP(c, "s")
	if body, err := c.HTTP("http://" + ip); err == nil {
		t.Errorf("nobody is ready, but an answer came: %s", body)
	}
	for range 2 {
		c.Kubectl("exec", "p", "--", "sh", "-c", "echo x > /tmp/ready")
		c.WaitPodReady("p")
		waitForEndpoints(t, c, "s", 1)
		cluster.Eventually(t, func() error { _, err := c.HTTP("http://" + ip); return err })
		c.Kubectl("exec", "p", "--", "rm", "/tmp/ready")
		c.WaitPod("p", "not ready", func(p *corev1.Pod) bool { return !cluster.Ready(p) })
		waitForEndpoints(t, c, "s", 0)
	}
	if p := c.WaitPod("p", "there", func(*corev1.Pod) bool { return true }); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("readiness restarted a container")
	}
}

func httpReadiness(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: good}
spec:
  containers:
    - name: main
      image: skiff.dev/web:1
      ports: [{name: http, containerPort: 8080}]
      readinessProbe: {httpGet: {path: /healthz, port: http, httpHeaders: [{name: X-Probe, value: "yes"}]}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec:
  containers: [{name: main, image: "skiff.dev/web:1", readinessProbe: {httpGet: {path: /healthz, port: 8081}, periodSeconds: 1}}]
`)
	c.WaitPodReady("good")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "events"); !strings.Contains(out, "Readiness probe failed: Get \"http://10.42.") || !strings.Contains(out, "connection refused") {
			return fmt.Errorf("events do not say why:\n%s", out)
		}
		return nil
	})
	if p := c.WaitPod("bad", "there", func(*corev1.Pod) bool { return true }); cluster.Ready(p) {
		t.Error("the other is ready too")
	}
}

func tcpReadiness(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers: [{name: main, image: "skiff.dev/web:1", readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}]
`)
	c.WaitPodReady("p")
}

func execLiveness(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: skiff.dev/web:1
      command: [sh, -c, "echo x > /tmp/alive; sleep 1000"]
      livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 2, initialDelaySeconds: 1}
`)
	c.WaitPodReady("p")
	time.Sleep(3 * time.Second)
	if p := c.WaitPodReady("p"); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("a live container was restarted")
	}
	c.Kubectl("exec", "p", "--", "rm", "/tmp/alive")
	c.WaitPod("p", "restarted", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && cluster.Ready(p) })
	if out := c.Kubectl("get", "events"); !strings.Contains(out, "Liveness probe failed") || !strings.Contains(out, "Container main failed liveness probe, will be restarted") {
		t.Errorf("events:\n%s", out)
	}
}

func httpLiveness(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.dev/web:1", livenessProbe: {httpGet: {path: /, port: 9999}, periodSeconds: 1, failureThreshold: 2}}]
`)
	c.WaitPod("p", "restarted", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount >= 1
	})
}

func startup(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: skiff.dev/web:1
      command: [sh, -c, "sleep 4; echo x > /tmp/up; sleep 1000"]
      startupProbe: {exec: {command: [cat, /tmp/up]}, periodSeconds: 1, failureThreshold: 20}
      livenessProbe: {exec: {command: [cat, /tmp/up]}, periodSeconds: 1, failureThreshold: 1}
`)
	c.WaitPod("p", "running but not started", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Running != nil && s[0].Started != nil && !*s[0].Started && !s[0].Ready
	})
	if p := c.WaitPodReady("p"); p.Status.ContainerStatuses[0].RestartCount != 0 || !*p.Status.ContainerStatuses[0].Started {
		t.Errorf("its status is %+v", p.Status.ContainerStatuses[0])
	}
}

func failingStartup(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.dev/web:1", startupProbe: {exec: {command: [cat, /nothing]}, periodSeconds: 1, failureThreshold: 2}}]
`)
	c.WaitPod("p", "restarted", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount >= 1
	})
	if out := c.Kubectl("get", "events"); !strings.Contains(out, "Container main failed startup probe, will be restarted") {
		t.Errorf("events:\n%s", out)
	}
}

func noProbes(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image=skiff.dev/web:1")
	c.WaitPodReady("p")
}
