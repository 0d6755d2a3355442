package test

import (
	"fmt"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// TestResize: a pod that runs gets other resources in place: limits it had none of, and a container that wants to begin anew for memory does.
// A pod gets other resources as a whole, too. What the node hasn't got the API server refuses; where it lets that through, the kubelet says that it is
// infeasible, and changes nothing.
func TestResize(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--disable-admission-plugins", "PodResizeValidator")
	c.Up()
	applyWeb(t, c)
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: grow}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: one, image: "skiff.dev/web:1", command: [sleep, 1d], resources: {requests: {cpu: 20m}}}
  - {name: two, image: "skiff.dev/web:1", command: [sleep, 1d], resources: {requests: {memory: 35Mi}}}
  - name: anew
    image: skiff.dev/web:1
    command: [sleep, 1d]
    resources: {requests: {memory: 35Mi}, limits: {memory: 45Mi}}
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
---
apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 0
  resources: {requests: {cpu: 20m}, limits: {memory: 40Mi}}
  containers: [{name: c, image: "skiff.dev/web:1", command: [sleep, 1d]}]
`)
	c.Kubectl("wait", "--for=condition=Ready", "pod/grow", "pod/whole", "--timeout=3m")
	resize := func(containers string) {
		c.Kubectl("patch", "pod", "grow", "--subresource=resize", "-p", `{"spec":{"containers":[`+containers+`]}}`)
	}
	status := func(path string) string { return c.Kubectl("get", "pod", "grow", "-o", "jsonpath="+path) }
	resize(`{"name":"one","resources":{"requests":{"cpu":"25m"},"limits":{"cpu":"35m"}}},` +
		`{"name":"two","resources":{"requests":{"memory":"30Mi"},"limits":{"memory":"50Mi"}}},` +
		`{"name":"anew","resources":{"limits":{"memory":"40Mi"}}}`)
	eventually(t, c, "the resize", func() error {
		got := status(`{.status.conditions[*].type} {range .status.containerStatuses[*]}{.name}={.restartCount} {.resources.limits} {end}`)
		for _, want := range []string{`one=0 {"cpu":"35m"}`, `two=0 {"memory":"50Mi"}`, `anew=1 {"memory":"40Mi"}`} {
			if !strings.Contains(got, want) || strings.Contains(got, "Resize") {
				return fmt.Errorf("want %s and no condition: %s", want, got)
			}
		}
		return nil
	})
	limit := func(container, v1, v2 string) string {
		return strings.TrimSpace(c.Kubectl("exec", "grow", "-c", container, "--", "sh", "-c", "cat /sys/fs/cgroup/"+v1+" 2>/dev/null || cat /sys/fs/cgroup/"+v2))
	}
	if got := limit("one", "cpu/cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(got, "3500") {
		t.Errorf("CPU quota: %s", got)
	}
	for container, want := range map[string]string{"two": "52428800", "anew": "41943040"} {
		if got := limit(container, "memory/memory.limit_in_bytes", "memory.max"); got != want {
			t.Errorf("memory limit of %s: %s, want %s", container, got, want)
		}
	}
	resize(`{"name":"two","resources":{"requests":{"memory":"900Ti"},"limits":{"memory":"900Ti"}}}`)
	eventually(t, c, "the refusal", func() error {
		if got := status(`{.status.conditions[?(@.type=="PodResizePending")].reason} {.status.containerStatuses[1].resources.limits.memory}`); got != "Infeasible 50Mi" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	c.Kubectl("patch", "pod", "whole", "--subresource=resize", "-p", `{"spec":{"resources":{"requests":{"cpu":"30m"},"limits":{"memory":"60Mi"}}}}`)
	eventually(t, c, "the resize of the pod as a whole", func() error {
		got := c.Kubectl("get", "pod", "whole", "-o", "jsonpath={.status.resources} {.status.allocatedResources} {.status.conditions[*].type}")
		const want = `{"limits":{"memory":"60Mi"},"requests":{"cpu":"30m","memory":"40Mi"}} {"cpu":"30m","memory":"40Mi"} `
		if !strings.HasPrefix(got, want) || strings.Contains(got, "Resize") {
			return fmt.Errorf("want %s and no condition: %s", want, got)
		}
		return nil
	})
	if got := strings.TrimSpace(c.Kubectl("exec", "whole", "--", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max")); got != "62914560" {
		t.Errorf("memory limit of a container that has none of its own: %s", got)
	}
	for _, reason := range []string{"ResizeStarted", "ResizeCompleted", "ResizeInfeasible"} {
		eventually(t, c, reason, func() error {
			if out := c.Kubectl("get", "events", "-o", "jsonpath={.items[*].reason}"); !strings.Contains(out, reason) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	c.Stop()
	c.Flags()
	c.Up()
	const refusal = "node didn't have enough allocatable resources: memory, requested: "
	if out, err := c.TryKubectl("patch", "pod", "whole", "--subresource=resize", "-p", `{"spec":{"resources":{"requests":{"memory":"900Ti"},"limits":{"memory":"900Ti"}}}}`); err == nil || !strings.Contains(out, refusal) {
		t.Errorf("%v: %s", err, out)
	}
}
