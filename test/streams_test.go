package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// logsFollow: a line shows up while logs -f runs, and logs -f ends when it is told to.
func logsFollow(t *testing.T, c *cluster.Cluster) {
	pod := podNames(t, c, "app=web")[0]
	ip := strings.TrimSpace(c.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}"))
	logs := start(t, c.KubectlCommand("logs", "-f", pod))
	logs.waitFor(t, regexp.MustCompile(`serving on`))
	for i := range 3 {
		mark := fmt.Sprintf("/mark-%d", i)
		if _, err := c.HTTP("http://" + ip + ":8080" + mark); err != nil {
			t.Fatal(err)
		}
		logs.waitFor(t, regexp.MustCompile("GET "+mark+" 200"))
	}
}

// execStreams: input, output, errors and exit codes get through whole.
func execStreams(t *testing.T, c *cluster.Cluster) {
	pod := podNames(t, c, "app=web")[0]
	cmd := c.KubectlCommand("exec", "-i", pod, "--", "sh", "-c", "cat; echo oops >&2; exit 7")
	cmd.Stdin = strings.NewReader(strings.Repeat("line\n", 200_000))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("exit code %d (%v), want 7: %s", cmd.ProcessState.ExitCode(), err, stderr.String())
	}
	if stdout.Len() != 1_000_000 || !strings.Contains(stderr.String(), "oops") {
		t.Errorf("got %d bytes of output, errors %q", stdout.Len(), stderr.String())
	}
	if out, err := c.TryKubectl("exec", pod, "--", "nonesuch"); err == nil || !strings.Contains(out, "nonesuch") {
		t.Errorf("a command that is not there: %v: %s", err, out)
	}
	if out, err := c.TryKubectl("exec", pod, "-c", "nonesuch", "--", "sh"); err == nil || !strings.Contains(out, "container nonesuch is not valid for pod") &&
		!strings.Contains(out, "container not found") {
		t.Errorf("a container that is not there: %v: %s", err, out)
	}
}

// execTerminal: a shell on a real terminal.
func execTerminal(t *testing.T, c *cluster.Cluster) {
	pod := podNames(t, c, "app=web")[0]
	shell := startOnTerminal(t, c.KubectlCommand("exec", "-it", pod, "--", "sh"), 24, 80)
	shell.press(t, "echo $((6*7))-answer; hostname\n")
	shell.waitFor(t, regexp.MustCompile(`^(/ # )?42-answer`))
	shell.waitFor(t, regexp.MustCompile(`^(/ # )?`+pod))
	shell.press(t, "exit 3\n")
	if code := shell.exitCode(t); code != 3 {
		t.Errorf("exit code %d, want 3:\n%s", code, shell)
	}
}

// portForward fetches pages through kubectl port-forward, several at once and one after the other.
func portForward(t *testing.T, c *cluster.Cluster) {
	forward := start(t, c.KubectlCommand("port-forward", "service/web", ":80"))
	port := forward.waitFor(t, regexp.MustCompile(`127\.0\.0\.1:(\d+) -> 8080`))[1]
	for range 2 {
		done := make(chan error, 5)
		for range cap(done) {
			go func() {
				body, err := c.HTTP("http://127.0.0.1:" + port)
				if err == nil && !answerer.MatchString(body) {
					err = fmt.Errorf("a page of nobody: %q", body)
				}
				done <- err
			}()
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Errorf("through port-forward: %v", err)
			}
		}
	}
}

// peerImage holds the peer program and the built-in image's shell.
func peerImage(t *testing.T) v1.Image {
	t.Helper()
	web := cluster.Binary(t, "skiff-web")
	return cluster.BuildImage(t, map[string]string{
		"bin/peer": cluster.GoBuild(t, "skiff.dev/skiff/test/peer"),
		"bin/sh":   web, "bin/cat": web, "bin/kill": web,
	}, "/bin/peer")
}

const peerName = "test.example/peer:1"

// importPeer puts the peer image into the cluster's runtime.
func importPeer(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	if out, err := c.Skiff("image", "import", cluster.SaveImage(t, peerImage(t), peerName)); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
}

// TestStreams is what the transcript leaves out of logs, exec, attach, cp and port-forward.
func TestStreams(t *testing.T) {
	t.Parallel()
	whole := cluster.Start(t)
	importPeer(t, whole)
	for name, kubectl := range map[string][]string{"skiff kubectl": {cluster.Binary(t, "skiff"), "kubectl"}, "stock kubectl": {stockKubectl(t)}} {
		t.Run(name, func(t *testing.T) {
			c := whole.With(kubectl...).Space(t, strings.ReplaceAll(name, " ", "-"))
			c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: streams}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: web, image: "skiff.dev/web:1"}
    - {name: cat, image: "skiff.dev/web:1", command: [cat], stdin: true}
    - {name: tty, image: "skiff.dev/web:1", command: [sh], stdin: true, tty: true}
    - {name: peer, image: "` + peerName + `", args: [udp]}
`)
			c.WaitPodReady("streams")
			t.Run("the terminal's size", func(t *testing.T) { terminalSize(t, c.For(t)) })
			t.Run("Ctrl-C", func(t *testing.T) { ctrlC(t, c.For(t)) })
			t.Run("attach", func(t *testing.T) { attach(t, c.For(t)) })
			t.Run("attach to a terminal", func(t *testing.T) { attachTerminal(t, c.For(t)) })
			t.Run("cp", func(t *testing.T) { copyFiles(t, c.For(t)) })
			t.Run("logs of an earlier container", func(t *testing.T) { previousLogs(t, c.For(t)) })
			t.Run("logs --since and --tail", func(t *testing.T) { someLogs(t, c.For(t)) })
			t.Run("port-forward to nothing", func(t *testing.T) { portForwardNowhere(t, c.For(t)) })
			t.Run("run --rm -it", func(t *testing.T) { runOnce(t, c.For(t)) })
		})
	}
}

func terminalSize(t *testing.T, c *cluster.Cluster) {
	window := startOnTerminal(t, c.KubectlCommand("exec", "-it", "streams", "-c", "peer", "--", "peer", "window"), 33, 97)
	window.waitFor(t, regexp.MustCompile(`33 rows, 97 columns`))
	window.resize(t, 44, 111)
	window.waitFor(t, regexp.MustCompile(`44 rows, 111 columns`))
	window.press(t, "\n")
	if code := window.exitCode(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, window)
	}
}

func ctrlC(t *testing.T, c *cluster.Cluster) {
	shell := startOnTerminal(t, c.KubectlCommand("exec", "-it", "streams", "-c", "web", "--", "sh"), 24, 80)
	shell.press(t, "echo be'gin'; sleep 100\n")
	shell.waitFor(t, regexp.MustCompile(`^(/ # )?begin`))
	time.Sleep(300 * time.Millisecond) // sleep is what the key is for, not the shell before it
	shell.press(t, "\x03")
	shell.press(t, "echo we'nt' on\n")
	shell.waitFor(t, regexp.MustCompile(`^(/ # )?went on`))
	shell.press(t, "exit\n")
	shell.exitCode(t)
}

func attach(t *testing.T, c *cluster.Cluster) {
	cmd := c.KubectlCommand("attach", "-i", "streams", "-c", "cat")
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	attached := start(t, cmd)
	for _, word := range []string{"one", "two"} {
		// A line that comes before the other end is attached is the container's all the same; only its echo is missed.
		cluster.Eventually(t, func() error {
			fmt.Fprintln(keyboard, word)
			time.Sleep(100 * time.Millisecond)
			if !strings.Contains(attached.String(), word) {
				return fmt.Errorf("attach shows no echo of %q: %s", word, attached)
			}
			return nil
		})
	}
	if out := c.Kubectl("logs", "streams", "-c", "cat"); !strings.Contains(out, "one\n") || !strings.Contains(out, "two\n") {
		t.Errorf("what was typed is not in the log:\n%s", out)
	}
}

func attachTerminal(t *testing.T, c *cluster.Cluster) {
	shell := startOnTerminal(t, c.KubectlCommand("attach", "-it", "streams", "-c", "tty"), 24, 80)
	cluster.Eventually(t, func() error {
		shell.press(t, "echo $((6*7))-answer\n")
		time.Sleep(100 * time.Millisecond)
		if !strings.Contains(shell.String(), "42-answer") {
			return fmt.Errorf("no answer: %q", shell)
		}
		return nil
	})
}

func copyFiles(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.txt": "alpha\n", "sub/b.txt": strings.Repeat("beta\n", 100_000)} {
		file := filepath.Join(dir, "there", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.Kubectl("cp", filepath.Join(dir, "there"), "streams:/copied", "-c", "web")
	if out := c.Kubectl("exec", "streams", "-c", "web", "--", "sh", "-c", "cat /copied/a.txt; wc -c < /copied/sub/b.txt"); squeeze(out) != "alpha 500000" {
		t.Errorf("in the container: %q", out)
	}
	c.Kubectl("cp", "streams:/copied", filepath.Join(dir, "back"), "-c", "web")
	if out, err := c.Run("diff", "-r", filepath.Join(dir, "there"), filepath.Join(dir, "back")); err != nil {
		t.Errorf("there and back again differ: %v\n%s", err, out)
	}
}

func previousLogs(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: previous}
spec:
  volumes: [{name: v, emptyDir: {}}]
  containers:
    - name: main
      image: skiff.dev/web:1
      volumeMounts: [{name: v, mountPath: /v}]
      command: [sh, -c, "echo x >> /v/n; echo life $(wc -l < /v/n); [ $(wc -l < /v/n) -ge 2 ] && sleep 1000; exit 1"]
`)
	c.WaitPod("previous", "restarted once", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	if out := c.Kubectl("logs", "previous", "--previous"); squeeze(out) != "life 1" {
		t.Errorf("the earlier container's log: %q", out)
	}
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("logs", "previous"); squeeze(out) != "life 2" {
			return fmt.Errorf("the present container's log: %q", out)
		}
		return nil
	})
	c.Kubectl("delete", "pod", "previous", "--now")
	if out, err := c.TryKubectl("logs", "streams", "-c", "web", "--previous"); err == nil || !strings.Contains(out, "previous terminated container") {
		t.Errorf("logs of an earlier container where there was none: %v: %s", err, out)
	}
}

func someLogs(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "counter", "--image=skiff.dev/web:1", "--restart=Never", "--command", "--", "sh", "-c",
		"for i in 1 2 3 4 5; do echo early $i; done; sleep 8; echo late")
	c.WaitPodDone("counter")
	ended, err := time.Parse(time.RFC3339, c.Kubectl("get", "pod", "counter", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.finishedAt}"))
	if err != nil {
		t.Fatal(err)
	}
	if out := c.Kubectl("logs", "counter", "--tail=2"); out != "early 5\nlate\n" {
		t.Errorf("the last two lines: %q", out)
	}
	since := (time.Since(ended) + 4*time.Second).Round(time.Second).String() // half of what lies between the early lines and the late one
	if out := c.Kubectl("logs", "counter", "--since="+since); out != "late\n" {
		t.Errorf("the last %s: %q", since, out)
	}
	if out := c.Kubectl("logs", "counter", "--limit-bytes=11"); out != "early 1\near" {
		t.Errorf("the first eleven bytes: %q", out)
	}
}

func portForwardNowhere(t *testing.T, c *cluster.Cluster) {
	forward := start(t, c.KubectlCommand("port-forward", "pod/streams", ":9"))
	port := forward.waitFor(t, regexp.MustCompile(`127\.0\.0\.1:(\d+) -> 9`))[1]
	if body, err := c.HTTP("http://127.0.0.1:" + port); err == nil {
		t.Errorf("nobody listens there, but an answer came: %s", body)
	}
	forward.waitFor(t, regexp.MustCompile(`(?i)connection refused|lost connection to pod`))
}

func runOnce(t *testing.T, c *cluster.Cluster) {
	shell := startOnTerminal(t, c.KubectlCommand("run", "once", "--rm", "-it", "--image=skiff.dev/web:1", "--restart=Never", "--command", "--", "sh"), 24, 80)
	cluster.Eventually(t, func() error {
		shell.press(t, "\n")
		time.Sleep(200 * time.Millisecond)
		if !strings.Contains(shell.String(), "If you don't see a command prompt") && !strings.Contains(shell.String(), "All commands and output") {
			return fmt.Errorf("not attached: %q", shell)
		}
		return nil
	})
	shell.press(t, "echo $((6*7))-answer\nexit\n")
	shell.waitFor(t, regexp.MustCompile(`42-answer`))
	shell.waitFor(t, regexp.MustCompile(`pod "once" deleted`))
	c.WaitPodGone("once")
}
