// Package test holds the tests of whole clusters: the real binary, real containers.
package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

// TestTranscript is the README's transcript: a workload is applied, looked at, served, changed, healed and removed; with the kubectl that is
// built in and with the machine's own.
func TestTranscript(t *testing.T) {
	t.Parallel()
	t.Run("skiff kubectl", func(t *testing.T) {
		t.Parallel()
		transcript(t, cluster.Start(t))
	})
	t.Run("stock kubectl", func(t *testing.T) {
		t.Parallel()
		transcript(t, cluster.Start(t).With(stockKubectl(t)))
	})
}

// stockKubectl is the machine's own, or else the built-in one under its own name, which is how it is used where there is no other.
func stockKubectl(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("kubectl")
	if err != nil {
		path = t.TempDir() + "/kubectl"
		if err := os.Symlink(cluster.Binary(t, "skiff"), path); err != nil {
			t.Fatal(err)
		}
		t.Log("this machine has no kubectl of its own; the built-in one is taken, through a link named kubectl")
	}
	return path
}

func transcript(t *testing.T, whole *cluster.Cluster) {
	applyWeb(t, whole)
	steps := []struct {
		name string
		do   func(*testing.T, *cluster.Cluster)
	}{
		{"get", getWeb},
		{"describe", describeWeb},
		{"services answer and spread", servicesAnswer},
		{"logs", logsShowRequests},
		{"logs -f", logsFollow},
		{"exec", execStreams},
		{"exec -it", execTerminal},
		{"port-forward", portForward},
		{"scale, under get -w", scaleWatched},
		{"set env, rollout status, rollout undo", updateAndUndo},
		{"a killed container is restarted", killContainer},
		{"a deleted pod is replaced", deletePod},
		{"top", topWeb},
		{"delete", deleteWeb},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) { step.do(t, whole.For(t)) })
	}
}

func getWeb(t *testing.T, c *cluster.Cluster) {
	out := c.Kubectl("get", "pods", "-o", "wide")
	if n := len(regexp.MustCompile(`(?m)^web-\S+ +1/1 +Running +0 +\S+ +10\.42\.0\.\d+ +\S+ +<none> +<none>`).FindAllString(out, -1)); n != 3 {
		t.Errorf("want three running pods with addresses:\n%s", out)
	}
	for kind, want := range map[string]string{
		"deployments":    `web +3/3 +3 +3 +\d+s`,
		"replicasets":    `web-\S+ +3 +3 +3 +\d+s`,
		"nodes":          ` Ready +<none> +\S+ +v1\.37\.`,
		"services":       `web +NodePort +10\.43\.\d+\.\d+ +<none> +80:30080/TCP`,
		"events":         `Normal +Started +pod/web-`,
		"endpointslices": `web-\S+ +IPv4 +8080 +10\.42\.0\.\d+,10\.42\.0\.\d+,10\.42\.0\.\d+`,
		"namespaces":     `kube-system +Active`,
	} {
		if out := c.Kubectl("get", kind); !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("get %s: no match for %q in\n%s", kind, want, out)
		}
	}
}

func describeWeb(t *testing.T, c *cluster.Cluster) {
	pod := podNames(t, c, "app=web")[0]
	for what, wants := range map[string][]string{
		"pod/" + pod: {
			"Status: Running", "Ready: True", "Image: skiff.dev/web:1", "Controlled By: ReplicaSet/web-", "POD_IP: (v1:status.podIP)", "QoS Class: Burstable",
			"Successfully assigned default/" + pod, "Container created", "Container started",
		},
		"deployment/web": {"Replicas: 3 desired | 3 updated | 3 total | 3 available | 0 unavailable", "Scaled up replica set web-", "NewReplicaSet: web-"},
		"service/web":    {"Type: NodePort", "NodePort: http 30080/TCP", "Endpoints: 10.42.0."},
		"node":           {"InternalIP: " + cluster.HostIP, "Ready True", "PodCIDR: 10.42.0.0/24", "Allocated resources:"},
	} {
		out := squeeze(c.Kubectl("describe", what))
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("describe %s lacks %q:\n%s", what, want, out)
			}
		}
	}
}

func servicesAnswer(t *testing.T, c *cluster.Cluster) {
	for _, url := range []string{"http://" + serviceIP(c, "web"), "http://127.0.0.1:30080", "http://" + cluster.HostIP + ":30080"} {
		allAnswer(t, url, 3, func() (string, error) { return c.HTTP(url) })
	}
	out := c.Kubectl("exec", podNames(t, c, "app=web")[0], "--", "sh", "-c",
		"i=0; while [ $i -lt 60 ]; do wget -q -O - http://web.default.svc.cluster.local; i=$((i+1)); done")
	seen := map[string]bool{}
	for _, name := range answerer.FindAllString(out, -1) {
		seen[name] = true
	}
	if len(seen) != 3 {
		t.Errorf("from inside a pod, by name: %d of 3 replicas answered:\n%s", len(seen), out)
	}
}

func logsShowRequests(t *testing.T, c *cluster.Cluster) {
	out := c.Kubectl("logs", "-l", "app=web", "--tail", "5", "--prefix", "--timestamps")
	if !regexp.MustCompile(`\[pod/web-\S+/web\] 2\S+Z .*GET / 200`).MatchString(out) {
		t.Errorf("logs show no request:\n%s", out)
	}
}

// scaleWatched looks at a scaling through get -w, which must show each pod on its way to Running and none twice the same.
func scaleWatched(t *testing.T, c *cluster.Cluster) {
	watch := start(t, c.KubectlCommand("get", "pods", "-l", "app=web", "-o", "wide", "-w"))
	for range 4 {
		watch.waitFor(t, regexp.MustCompile(`NAME|Running`))
	}
	before := podNames(t, c, "app=web")
	c.Kubectl("scale", "deployment", "web", "--replicas=5")
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
	after := podNames(t, c, "app=web")
	if len(after) != 5 {
		t.Errorf("%d pods after scaling to 5", len(after))
	}
	for range len(after) - len(before) {
		watch.waitFor(t, regexp.MustCompile(`0/1 +Pending`))
	}
	watch.waitFor(t, regexp.MustCompile(`0/1 +ContainerCreating`))
	for range len(after) - len(before) {
		watch.waitFor(t, regexp.MustCompile(`1/1 +Running +0 +\S+ +10\.42\.0\.`))
	}
	c.Kubectl("scale", "deployment", "web", "--replicas=3")
	watch.waitFor(t, regexp.MustCompile(`Terminating|Completed`))
	waitForPods(t, c, "app=web", 3)
}

func updateAndUndo(t *testing.T, c *cluster.Cluster) {
	ip := serviceIP(c, "web")
	says := func(want bool) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if body, err := c.HTTP("http://" + ip); err != nil || strings.Contains(body, "ahoy") != want {
				return fmt.Errorf("want %v, got %q, %v", want, body, err)
			}
			return nil
		})
	}
	c.Kubectl("set", "env", "deployment/web", "MESSAGE=ahoy")
	if out := c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m"); !strings.Contains(out, "successfully rolled out") {
		t.Errorf("rollout status: %s", out)
	}
	says(true)
	c.Kubectl("rollout", "undo", "deployment", "web")
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
	says(false)
	if out := c.Kubectl("rollout", "history", "deployment", "web"); !regexp.MustCompile(`(?m)^3 `).MatchString(out) {
		t.Errorf("history lacks revision 3:\n%s", out)
	}
	waitForPods(t, c, "app=web", 3)
}

func killContainer(t *testing.T, c *cluster.Cluster) {
	pod := podNames(t, c, "app=web")[0]
	before := restarts(t, c, pod)
	_, _ = c.TryKubectl("exec", pod, "--", "kill", "1") // the connection may end with the container
	c.WaitPod(pod, "restarted and Ready", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == before+1 && cluster.Ready(p)
	})
}

func deletePod(t *testing.T, c *cluster.Cluster) {
	pod := podNames(t, c, "app=web")[0]
	c.Kubectl("delete", "pod", pod)
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
	if names := waitForPods(t, c, "app=web", 3); strings.Contains(strings.Join(names, " "), pod) {
		t.Errorf("pods are %v after %s was deleted", names, pod)
	}
}

func topWeb(t *testing.T, c *cluster.Cluster) {
	cluster.Eventually(t, func() error {
		if out, err := c.TryKubectl("top", "pods", "-l", "app=web", "--no-headers"); err != nil || !regexp.MustCompile(`(?m)^web-\S+ +\d+m +\d+Mi`).MatchString(out) {
			return fmt.Errorf("top: %v: %s", err, out)
		}
		return nil
	})
}

func deleteWeb(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("delete", "-f", "../examples/web.yaml")
	c.Kubectl("wait", "pod", "-l", "app=web", "--for=delete", "--timeout=3m")
	cluster.Eventually(t, func() error {
		if body, err := c.HTTP("http://127.0.0.1:30080"); err == nil {
			return fmt.Errorf("the node port still answers: %s", body)
		}
		return nil
	})
	if out, err := c.TryKubectl("get", "deployments,replicasets,pods"); err != nil || !strings.Contains(out, "No resources found") {
		t.Errorf("something is left:\n%s", out)
	}
}

func applyWeb(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	raw, err := os.ReadFile("../examples/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(string(raw))
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
}

func serviceIP(c *cluster.Cluster, name string) string {
	return strings.TrimSpace(c.Kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}"))
}

// pods that match and aren't on their way out.
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

// waitForPods waits until exactly n pods match, and returns their names.
func waitForPods(t *testing.T, c *cluster.Cluster, selector string, n int) (names []string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if names = strings.Fields(c.Kubectl("get", "pods", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}")); len(names) != n {
			return fmt.Errorf("pods are %v, want %d", names, n)
		}
		return nil
	})
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

var answerer = regexp.MustCompile(`web-[a-z0-9]+-[a-z0-9]{5}\b`)

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

// allAnswer asks until each replica behind an address has answered. Every connection goes to any of them, so that a fixed number of questions would now and then miss one by chance:
// after 100 of them a replica of three that takes part is missed once in 10¹⁷ times.
func allAnswer(t *testing.T, what string, replicas int, ask func() (string, error)) (seen map[string]bool) {
	t.Helper()
	seen = map[string]bool{}
	for range 100 {
		body, err := ask()
		if err != nil {
			t.Errorf("%s: %v: %s", what, err, body)
			return seen
		}
		seen[answerer.FindString(body)] = true
		if len(seen) == replicas {
			return seen
		}
	}
	t.Errorf("%s: %d of %d replicas answered", what, len(seen), replicas)
	return seen
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }
