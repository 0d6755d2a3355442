// Package test walks through what the README promises, with the real binary and real containers.
package test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

// TestTranscript is the README's transcript: a workload is applied, looked at, served, changed, healed and removed.
func TestTranscript(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	applyWeb(t, c)

	t.Run("get", func(t *testing.T) {
		out := c.Kubectl("get", "pods", "-o", "wide")
		if n := len(regexp.MustCompile(`(?m)^web-\S+ +1/1 +Running +0 +\S+ +10\.42\.0\.\d+ `).FindAllString(out, -1)); n != 3 {
			t.Errorf("want three running pods with addresses:\n%s", out)
		}
		for kind, want := range map[string]string{
			"deployments": `web +3/3 +3 +3`,
			"nodes":       ` Ready +`,
			"services":    `web +NodePort +10\.43\.\d+\.\d+ +<none> +80:30080/TCP`,
			"events":      `Normal +Started +`,
		} {
			if out := c.Kubectl("get", kind); !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("get %s: no match for %q in\n%s", kind, want, out)
			}
		}
	})
	t.Run("describe", func(t *testing.T) {
		out := c.Kubectl("describe", "pod", "-l", "app=web")
		for _, want := range []string{"Status:           Running", "Ready:          True", "skiff.dev/web:1", "Successfully assigned default/web-", "Started container web"} {
			if !strings.Contains(squeeze(out), squeeze(want)) {
				t.Errorf("describe lacks %q:\n%s", want, out)
			}
		}
	})
	t.Run("services answer and spread", func(t *testing.T) {
		ip := strings.TrimSpace(c.Kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))
		for _, url := range []string{"http://" + ip, "http://127.0.0.1:30080", "http://" + cluster.HostIP + ":30080"} {
			if n := len(answerers(t, 60, func() (string, error) { return c.HTTP(url) })); n != 3 {
				t.Errorf("%s: %d of 3 replicas answered", url, n)
			}
		}
		pod := podNames(t, c, "app=web")[0]
		inPod := func() (string, error) {
			return c.Skiff("kubectl", "exec", pod, "--", "sh", "-c", "wget -q -O - http://web.default.svc.cluster.local")
		}
		if n := len(answerers(t, 20, inPod)); n != 3 {
			t.Errorf("from inside a pod, by name: %d of 3 replicas answered", n)
		}
	})
	t.Run("logs", func(t *testing.T) {
		if out := c.Kubectl("logs", "-l", "app=web", "--tail", "5"); !strings.Contains(out, "GET /") {
			t.Errorf("logs show no request:\n%s", out)
		}
	})
	t.Run("port-forward", func(t *testing.T) { portForward(t, c) })
	t.Run("scale", func(t *testing.T) {
		c.Kubectl("scale", "deployment", "web", "--replicas=5")
		c.Kubectl("rollout", "status", "deployment", "web", "--timeout=30s")
		if n := len(podNames(t, c, "app=web")); n != 5 {
			t.Errorf("%d pods after scaling to 5", n)
		}
		c.Kubectl("scale", "deployment", "web", "--replicas=3")
	})
	t.Run("update and undo", func(t *testing.T) {
		ip := strings.TrimSpace(c.Kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))
		says := func(want bool) {
			t.Helper()
			cluster.Eventually(t, 20*time.Second, func() error {
				if body, err := c.HTTP("http://" + ip); err != nil || strings.Contains(body, "ahoy") != want {
					return fmt.Errorf("want %v, got %q, %v", want, body, err)
				}
				return nil
			})
		}
		c.Kubectl("set", "env", "deployment/web", "MESSAGE=ahoy")
		if out := c.Kubectl("rollout", "status", "deployment", "web", "--timeout=60s"); !strings.Contains(out, "successfully rolled out") {
			t.Errorf("rollout status: %s", out)
		}
		says(true)
		c.Kubectl("rollout", "undo", "deployment", "web")
		c.Kubectl("rollout", "status", "deployment", "web", "--timeout=60s")
		says(false)
		if out := c.Kubectl("rollout", "history", "deployment", "web"); !regexp.MustCompile(`(?m)^3 `).MatchString(out) {
			t.Errorf("history lacks revision 3:\n%s", out)
		}
	})
	t.Run("a killed container is restarted", func(t *testing.T) {
		pod := podNames(t, c, "app=web")[0]
		before := restarts(t, c, pod)
		_, _ = c.Skiff("kubectl", "exec", pod, "--", "kill", "1") // the connection may end with the container
		cluster.Eventually(t, 30*time.Second, func() error {
			if now := restarts(t, c, pod); now != before+1 {
				return fmt.Errorf("%d restarts, want %d", now, before+1)
			}
			return nil
		})
		c.Kubectl("wait", "pod", pod, "--for=condition=Ready", "--timeout=30s")
	})
	t.Run("a deleted pod is replaced", func(t *testing.T) {
		pod := podNames(t, c, "app=web")[0]
		c.Kubectl("delete", "pod", pod)
		c.Kubectl("rollout", "status", "deployment", "web", "--timeout=30s")
		if names := podNames(t, c, "app=web"); len(names) != 3 || strings.Contains(strings.Join(names, " "), pod) {
			t.Errorf("pods are %v after %s was deleted", names, pod)
		}
	})
	t.Run("delete", func(t *testing.T) {
		c.Kubectl("delete", "-f", "../examples/web.yaml")
		c.Kubectl("wait", "pod", "-l", "app=web", "--for=delete", "--timeout=40s")
		if _, err := c.HTTP("http://127.0.0.1:30080"); err == nil {
			t.Error("the node port still answers")
		}
	})
}

// TestContainersOutliveSkiff: neither a crash nor an orderly stop touches a container, and the next start takes them over.
func TestContainersOutliveSkiff(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	applyWeb(t, c)
	ids := func() map[string]string {
		got := map[string]string{}
		for _, p := range pods(t, c, "app=web") {
			s := p.Status.ContainerStatuses[0]
			got[p.Name] = fmt.Sprintf("%s restarts=%d started=%s ip=%s", s.ContainerID, s.RestartCount, s.State.Running.StartedAt, p.Status.PodIP)
		}
		return got
	}
	before := ids()
	for name, end := range map[string]func(){"kill -9": c.Kill, "Ctrl-C": c.Stop} {
		ip := strings.TrimSpace(c.Kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))
		end()
		if body, err := c.HTTP("http://" + ip); err != nil {
			t.Errorf("%s: the service stopped answering: %v %s", name, err, body)
		}
		c.Up()
		c.Kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=30s")
		if after := ids(); !maps.Equal(before, after) {
			t.Errorf("%s: containers changed:\nbefore %v\nafter  %v", name, before, after)
		}
		// New work still gets done beside the old.
		c.Kubectl("scale", "deployment", "web", "--replicas=4")
		c.Kubectl("rollout", "status", "deployment", "web", "--timeout=30s")
		c.Kubectl("scale", "deployment", "web", "--replicas=3")
		cluster.Eventually(t, 20*time.Second, func() error {
			if n := len(podNames(t, c, "app=web")); n != 3 {
				return fmt.Errorf("%d pods", n)
			}
			return nil
		})
		before = ids()
	}
}

// TestPodsChangedWhileAway: what was deleted or killed while Skiff was away is put right when it returns.
func TestPodsChangedWhileAway(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	applyWeb(t, c)
	pod := podNames(t, c, "app=web")[0]
	before := restarts(t, c, pod)
	_, _ = c.Skiff("kubectl", "exec", pod, "--", "sh", "-c", "(sleep 2; kill 1) >/dev/null 2>&1 &")
	c.Kill()
	time.Sleep(2500 * time.Millisecond) // the container dies in the meantime
	c.Up()
	cluster.Eventually(t, 30*time.Second, func() error {
		if now := restarts(t, c, pod); now != before+1 {
			return fmt.Errorf("%d restarts, want %d", now, before+1)
		}
		return nil
	})
}

func applyWeb(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	raw, err := os.ReadFile("../examples/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(string(raw))
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=60s")
}

func pods(t *testing.T, c *cluster.Cluster, selector string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := json.Unmarshal([]byte(c.Kubectl("get", "pods", "-l", selector, "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	live := list.Items[:0]
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			live = append(live, p)
		}
	}
	return live
}

func podNames(t *testing.T, c *cluster.Cluster, selector string) (names []string) {
	t.Helper()
	for _, p := range pods(t, c, selector) {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		t.Fatalf("no pods with %s", selector)
	}
	return names
}

func restarts(t *testing.T, c *cluster.Cluster, pod string) int32 {
	t.Helper()
	p, err := c.Client().CoreV1().Pods("default").Get(context.Background(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Status.ContainerStatuses[0].RestartCount
}

var answerer = regexp.MustCompile(`web-[a-z0-9]+-[a-z0-9]+`)

// answerers asks n times and returns which pods answered.
func answerers(t *testing.T, n int, ask func() (string, error)) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for range n {
		body, err := ask()
		if err != nil {
			t.Errorf("%v: %s", err, body)
			return seen
		}
		seen[answerer.FindString(body)]++
	}
	return seen
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }
