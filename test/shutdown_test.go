package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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
	manifests := t.TempDir()
	if err := os.WriteFile(filepath.Join(manifests, "web.yaml"), []byte(staticPod), 0o644); err != nil {
		t.Fatal(err)
	}
	c := cluster.New(t, "--shutdown-grace-period=30s", "--shutdown-grace-period-critical-pods=10s", "--pod-manifest-path="+manifests, "--node-name=n1")
	defer c.Remove()
	c.Env("DBUS_SYSTEM_BUS_ADDRESS=" + host.Address())
	c.Up()
	locks := func(want string) {
		t.Helper()
		cluster.Eventually(t, func() error {
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
	first := c.WaitPodReady("web-n1")
	if start, end := shutdownTimes(t, c); start != 0 || end != 0 {
		t.Errorf("before any shutdown one is said to have lasted from %f to %f", start, end)
	}

	began := float64(time.Now().Unix())
	host.Prepare(true)
	ready := func(want string) {
		t.Helper()
		cluster.Eventually(t, func() error {
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
	for _, name := range []string{"ordinary", "critical", "web-n1"} { // at once
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

	start, end := shutdownTimes(t, c)
	if start < began || end < start+2 || end > float64(time.Now().Unix()+1) { // the ordinary pod takes two seconds
		t.Errorf("a shutdown that began after %f is said to have lasted from %f to %f", began, start, end)
	}
	if err := os.WriteFile(filepath.Join(manifests, "late.yaml"), []byte(strings.Replace(staticPod, "name: web", "name: late", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, c, "late-n1", "Failed NodeShutdown : Pod was rejected: Pod was rejected as the node is shutting down.")

	host.Prepare(false)
	ready("True KubeletReady kubelet is posting ready status")
	locks("skiff shutdown delay")
	c.Apply(ender("again", "", shared, "true"))
	c.WaitPodReady("again")
	c.WaitPodReady("late-n1")
	second := c.WaitPodReady("web-n1")
	if second.UID == first.UID {
		t.Error("a pod that was shown to have ended runs again")
	}
	if out := howEnded(c, "ordinary"); !strings.HasPrefix(out, "Failed Terminated") {
		t.Errorf("ordinary, which nobody made anew, is %s", out)
	}

	// A host that does go down.
	host.Prepare(true)
	locks("")
	wantEnd(t, c, "web-n1", "Failed Terminated TerminationByKubelet: Pod was terminated in response to imminent node shutdown.")
	start, end = shutdownTimes(t, c)
	c.Kill()
	host.Prepare(false)
	c.Up()
	if third := c.WaitPod("web-n1", "ready as another", func(p *corev1.Pod) bool { return p.UID != second.UID && cluster.Ready(p) }); third.Status.Reason != "" {
		t.Errorf("after the host came back the static pod is %s", third.Status.Reason)
	}
	if a, b := shutdownTimes(t, c); a != start || b != end {
		t.Errorf("the last shutdown was from %f to %f, after it %f to %f", start, end, a, b)
	}

	c.Remove()
	if _, err := os.Stat(filepath.Join(logind.Settings, logind.File(c.Name()))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of logind's settings is left: %v", err)
	}
}

// shutdownTimes are the metrics of the node's last shutdown.
func shutdownTimes(t *testing.T, c *cluster.Cluster) (start, end float64) {
	t.Helper()
	metrics := c.Kubectl("get", "--raw", "/api/v1/nodes/n1/proxy/metrics")
	for name, to := range map[string]*float64{"start": &start, "end": &end} {
		found := regexp.MustCompile("(?m)^kubelet_graceful_shutdown_" + name + "_time_seconds (\\S+)$").FindStringSubmatch(metrics)
		if found == nil {
			t.Fatalf("there is no metric of a shutdown's %s", name)
		}
		n, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		*to = n
	}
	return start, end
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
	cluster.Eventually(t, func() error {
		if out := howEnded(c, name); out != want {
			return fmt.Errorf("%s: %s", name, out)
		}
		return nil
	})
}

// howEnded is a pod's phase, its reasons and its message, or why they can't be
// had: a static pod's mirror may not stand there yet.
func howEnded(c *cluster.Cluster, name string) string {
	const about = `{.status.phase} {.status.reason} {.status.conditions[?(@.type=="DisruptionTarget")].reason}: {.status.message}`
	out, err := c.TryKubectl("get", "pod", name, "-o", "jsonpath="+about)
	if err != nil {
		return err.Error()
	}
	return out
}
