package test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// chatty writes 1,300 lines of a kilobyte, which is more than one file takes, and waits for a file before its last words.
const chatty = `
apiVersion: v1
kind: Pod
metadata: {name: chatty, labels: {app: chatty}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: skiff.dev/web:1
      command:
        - sh
        - -c
        - |
          x=0123456789; x=$x$x$x$x$x$x$x$x$x$x; x=$x$x$x$x$x$x$x$x$x$x
          i=0; while [ $i -lt 1300 ]; do echo line $i $x; i=$((i+1)); done
          until [ -e /tmp/go ]; do sleep 0.1; done
          echo the last words; sleep 1000
`

// TestLogs: rotation, and search in the logs of pods that are and that were.
func TestLogs(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, "--container-log-max-size=1").Space(t, "logs")
	c.Apply(chatty)
	c.Apply(strings.NewReplacer("name: chatty, labels: {app: chatty}", "name: again", "sleep 1000", "exit 1").Replace(chatty))
	c.WaitPodReady("chatty")
	c.WaitPodReady("again")
	follow := start(t, c.KubectlCommand("logs", "-f", "chatty"))
	search := start(t, c.Command("logs", "-n", "logs", "-l", "app", "--search", "last words|newcomer", "-f"))
	cluster.Eventually(t, func() error {
		if files, _ := filepath.Glob(filepath.Join(c.DataDir, "logs", "pods", "logs_*", "main", "0.log.*.gz")); len(files) != 2 {
			return fmt.Errorf("no rotated, compressed file: %v", files)
		}
		return nil
	})
	c.Kubectl("exec", "chatty", "--", "sh", "-c", "echo > /tmp/go")
	follow.waitFor(t, regexp.MustCompile(`^the last words$`))
	search.waitFor(t, regexp.MustCompile(`^\S+Z logs/chatty/main the last words$`))

	t.Run("kubectl logs over files", func(t *testing.T) { logsOverFiles(t, c.For(t), follow.String()) })
	t.Run("search a pod that is gone", func(t *testing.T) { searchGone(t, c.For(t), search) })
	t.Run("the last hour's figures", func(t *testing.T) { history(t, c.For(t)) })
	t.Run("who may search", func(t *testing.T) { whoMaySearch(t, c.For(t)) })
}

func logsOverFiles(t *testing.T, c *cluster.Cluster, followed string) {
	all := c.Kubectl("logs", "chatty")
	if all != followed {
		t.Errorf("logs -f over the rotation has %d bytes, logs has %d", len(followed), len(all))
	}
	lines := strings.Split(strings.TrimSpace(all), "\n")
	if len(lines) != 1301 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines[:1300] {
		if !strings.HasPrefix(line, fmt.Sprintf("line %d ", i)) {
			t.Fatalf("line %d begins with %.20q", i, line)
		}
	}
	if out := c.Kubectl("logs", "chatty", "--tail=1250"); out != strings.Join(lines[51:], "\n")+"\n" {
		t.Errorf("the last 1,250 lines begin with %.20q and end with %.20q", out, out[max(0, len(out)-20):])
	}
	if out := c.Kubectl("logs", "chatty", "--limit-bytes=20", "--since=1h"); out != lines[0][:20] {
		t.Errorf("the first 20 bytes: %q", out)
	}
	if out := c.Kubectl("logs", "chatty", "--timestamps", "--limit-bytes=50"); !regexp.MustCompile(`^20\S+Z line 0 `).MatchString(out) {
		t.Errorf("with timestamps: %q", out)
	}
	stamped := strings.Split(strings.TrimSpace(c.Kubectl("logs", "chatty", "--timestamps")), "\n")
	at, _, _ := strings.Cut(stamped[700], " ")
	first := slices.IndexFunc(stamped, func(line string) bool { return strings.HasPrefix(line, at+" ") })
	out := c.Kubectl("get", "--raw", "/api/v1/namespaces/logs/pods/chatty/log?timestamps=true&sinceTime="+at)
	if want := strings.Join(stamped[first:], "\n") + "\n"; out != want {
		t.Errorf("since %s there are %d bytes that begin with %.50q, not %d that begin with %.50q", at, len(out), out, len(want), want)
	}
	whole, _, _ := strings.Cut(at, ".")
	if out := c.Kubectl("logs", "chatty", "--since-time="+whole+"Z"); !strings.HasSuffix(all, out) || len(out) < 600*1000 {
		t.Errorf("since %sZ there are %d bytes that begin with %.50q", whole, len(out), out)
	}
	// The run before, of which the first lines are in a rotated file.
	c.Kubectl("exec", "again", "--", "sh", "-c", "echo > /tmp/go")
	c.WaitPod("again", "there again", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && cluster.Ready(p) })
	if out := c.Kubectl("logs", "again", "--previous"); out != all {
		t.Errorf("the log of the run before has %d bytes, not %d", len(out), len(all))
	}
	if out := c.Kubectl("logs", "again", "--previous", "--tail=1260"); out != strings.Join(lines[41:], "\n")+"\n" {
		t.Errorf("the last 1,260 lines of the run before begin with %.20q", out)
	}
}

func searchGone(t *testing.T, c *cluster.Cluster, follow *program) {
	c.Kubectl("label", "pod", "chatty", "tier=last")
	c.Kubectl("delete", "pod", "chatty")
	c.Kubectl("run", "newcomer", "--image=skiff.dev/web:1", "--labels=app=other", "--restart=Never", "--command", "--", "sh", "-c", "echo a newcomer")
	follow.waitFor(t, regexp.MustCompile(`^\S+Z logs/newcomer/newcomer a newcomer$`))
	cluster.Eventually(t, func() error {
		out, err := c.Skiff("logs", "--search", `^line (7|1299) |newcomer`, "--since", "1h", "--selector", "app")
		var found []string
		for line := range strings.Lines(out) {
			words := strings.Fields(line)
			found = append(found, strings.Join(words[1:min(len(words), 4)], " "))
		}
		if got := strings.Join(found, ", "); err != nil || got != "logs/chatty/main line 7, logs/chatty/main line 1299, logs/newcomer/newcomer a newcomer" {
			return fmt.Errorf("found %s, %v", got, err)
		}
		return nil
	})
	cluster.Eventually(t, func() error {
		out, err := c.Skiff("logs", "-l", "tier=last", "--search", "last words", "-o", "json")
		if err != nil || !strings.Contains(out, `"gone":true`) || strings.Count(out, "\n") != 1 {
			return fmt.Errorf("by the labels it had last: %v\n%s", err, out)
		}
		return nil
	})
	if out, err := c.Skiff("logs", "-n", "logs", "nobody"); err == nil || !strings.Contains(out, "skiff: there is no pod nobody in the namespace logs") {
		t.Errorf("the logs of a pod that never was: %v\n%s", err, out)
	}
	if out, err := c.TryKubectl("logs", "chatty", "--tail=x"); err == nil || strings.Count(strings.ToLower(out), "error:") != 1 {
		t.Errorf("a wrong flag is not told once: %v\n%s", err, out)
	}
	if out, err := c.Skiff("logs", "--search", "("); err == nil || !strings.Contains(out, "skiff: search: error parsing regexp") {
		t.Errorf("a bad expression: %v, %s", err, out)
	}
}

func whoMaySearch(t *testing.T, c *cluster.Cluster) {
	node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	path := "/api/v1/nodes/" + node + "/proxy/logs/search"
	if out, err := c.TryKubectl("get", "--raw", path, "--as=eve"); err == nil || !strings.Contains(out, `cannot get resource "nodes/proxy"`) {
		t.Errorf("somebody without rights: %v, %s", err, out)
	}
	if out, err := c.TryKubectl("get", "--raw", path+"?sinceTime=yesterday"); err == nil || !strings.Contains(out, `sinceTime: parsing time "yesterday"`) {
		t.Errorf("a bad time: %v, %s", err, out)
	}
}

// history of a pod, as whoever plots it reads it.
func history(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "measured", "--image=skiff.dev/web:1")
	c.WaitPodReady("measured")
	node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	figures := regexp.MustCompile(`^\{"times":\[\d+.*"namespace":"logs","pod":"measured","uid":"[^"]+","container":"measured","cpu":\[[^]]*\d\],"memory":\[[^]]*\d\]`)
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/stats/history?namespace=logs&pod=measured&since=10m")
		if !figures.MatchString(out) || strings.Contains(out, "chatty") {
			return fmt.Errorf("the pod's history: %s", out)
		}
		return nil
	})
}

const shortLived = `
apiVersion: v1
kind: Event
metadata: {name: short-lived, namespace: default}
involvedObject: {kind: Pod, name: first, namespace: default}
type: Normal
reason: Happened
message: something happened
`

// TestLogsKept: the logs of pods that are gone are bounded in size and in time; the oldest go first. Events go when their time is over.
func TestLogsKept(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--log-keep-size=1", "--event-ttl=10s")
	c.Up()
	c.WaitReady()
	c.Apply(shortLived)
	kept := func(want string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			out, err := c.Skiff("logs", "--search", "^noise", "-o", "json")
			var found []string
			for _, name := range []string{"first", "second", "third"} {
				if strings.Contains(out, `"pod":"`+name+`"`) {
					found = append(found, name)
				}
			}
			folders, _ := filepath.Glob(filepath.Join(c.DataDir, "logs", "gone", "default_*"))
			if got := strings.Join(found, " "); err != nil || got != want || len(folders) != len(found) {
				return fmt.Errorf("there are logs of %q, not of %q (%v); folders: %v", got, want, err, folders)
			}
			return nil
		})
	}
	noisy := func(name string) {
		t.Helper()
		// What is random no compression makes smaller.
		c.Kubectl("run", name, "--image=skiff.dev/web:1", "--restart=Never", "--command", "--", "sh", "-c", "echo noise; head -c 450000 /dev/urandom")
		c.WaitPodDone(name)
		c.Kubectl("delete", "pod", name)
	}
	noisy("first")
	kept("first")
	noisy("second")
	kept("first second")
	noisy("third")
	kept("second third")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "event", "short-lived", "--ignore-not-found", "-o", "name"); out != "" {
			return fmt.Errorf("%s is still there", out)
		}
		return nil
	})
	c.Stop()
	c.Flags("--log-keep-hours=0")
	c.Up()
	c.WaitReady()
	kept("")
	noisy("first")
	kept("")
}
