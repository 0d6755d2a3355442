package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/kubelet/logind"
	"skiff.dev/skiff/internal/kubelet/logind/logindtest"
	"skiff.dev/skiff/test/cluster"
)

// TestHostShutdown: when the host shuts down its pods end, ordinary ones before critical ones, and the API knows it before the host goes on; the node takes
// no others until the shutdown is called off.
func TestHostShutdown(t *testing.T) {
	t.Parallel()
	host, err := logindtest.Start(t.TempDir(), logind.Settings)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	c := cluster.New(t, "--shutdown-grace-period=30s", "--shutdown-grace-period-critical-pods=10s")
	defer c.Remove()
	c.Env("DBUS_SYSTEM_BUS_ADDRESS=" + host.Address())
	c.Up()
	locks := func(want string) {
		t.Helper()
		cluster.Eventually(t, 40*time.Second, func() error {
			if got := strings.Join(host.Locks(), ", "); got != want {
				return fmt.Errorf("the host is held up by %q, not %q", got, want)
			}
			return nil
		})
	}
	locks("skiff shutdown delay")
	if d := host.Delay(); d != 35*time.Second {
		t.Errorf("logind waits for %s", d)
	}

	shared := t.TempDir()
	c.Apply(ender("ordinary", "", shared, "sleep 2; echo ordinary >> /shared/order"))
	c.Apply(ender("critical", "system-node-critical", shared, "echo critical >> /shared/order"))
	c.Kubectl("run", "done", "--image=skiff.dev/web:1", "--restart=Never", "--command", "--", "sh", "-c", "true")
	c.WaitPodDone("done")
	c.WaitPodReady("ordinary")
	node := c.WaitPodReady("critical").Spec.NodeName

	host.Prepare(true)
	ready := func(want string) {
		t.Helper()
		cluster.Eventually(t, 10*time.Second, func() error {
			if out := c.Kubectl("get", "node", node, "-o", `jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason} {.message}{end}`); out != want {
				return fmt.Errorf("the node is %s", out)
			}
			return nil
		})
	}
	ready("False KubeletNotReady node is shutting down")
	c.Apply(strings.Replace(ender("late", "", shared, "true"), "spec:", "spec:\n  nodeName: "+node, 1))
	wantEnd(t, c, "late", "Failed NodeShutdown : Pod was rejected: Pod was rejected as the node is shutting down.")
	locks("")
	for _, name := range []string{"ordinary", "critical"} { // at once
		if out := howEnded(c, name); out != "Failed Terminated TerminationByKubelet: Pod was terminated in response to imminent node shutdown." {
			t.Errorf("%s: %s", name, out)
		}
	}
	if order, err := os.ReadFile(filepath.Join(shared, "order")); string(order) != "ordinary\ncritical\n" {
		t.Errorf("they ended in the order %q, %v", order, err)
	}
	if p := c.WaitPodDone("done"); p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the pod that had ended before is %s", p.Status.Phase)
	}

	host.Prepare(false)
	ready("True KubeletReady kubelet is posting ready status")
	locks("skiff shutdown delay")
	c.Apply(ender("again", "", shared, "true"))
	c.WaitPodReady("again")

	c.Remove()
	if _, err := os.Stat(filepath.Join(logind.Settings, logind.File(c.Name()))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of logind's settings is left: %v", err)
	}
}

// ender is a pod that does something before it ends.
func ender(name, priority, shared, last string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  priorityClassName: %q
  volumes: [{name: shared, hostPath: {path: %q}}]
  containers:
  - name: main
    image: skiff.dev/web:1
    lifecycle: {preStop: {exec: {command: [sh, -c, %q]}}}
    volumeMounts: [{name: shared, mountPath: /shared}]
`, name, priority, shared, last)
}

func wantEnd(t *testing.T, c *cluster.Cluster, name, want string) {
	t.Helper()
	cluster.Eventually(t, 10*time.Second, func() error {
		if out := howEnded(c, name); out != want {
			return fmt.Errorf("%s: %s", name, out)
		}
		return nil
	})
}

// howEnded is a pod's phase, its reasons and its message.
func howEnded(c *cluster.Cluster, name string) string {
	const about = `{.status.phase} {.status.reason} {.status.conditions[?(@.type=="DisruptionTarget")].reason}: {.status.message}`
	return c.Kubectl("get", "pod", name, "-o", "jsonpath="+about)
}
