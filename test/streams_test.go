package test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// portForward fetches a page through kubectl port-forward.
func portForward(t *testing.T, c *cluster.Cluster) {
	cmd := c.Command("kubectl", "port-forward", "service/web", ":80")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(line)
	if port == nil {
		t.Fatalf("port-forward said %q", line)
	}
	for range 3 {
		if body, err := c.HTTP("http://127.0.0.1:" + port[1]); err != nil || !answerer.MatchString(body) {
			t.Errorf("through port-forward: %q, %v", body, err)
		}
	}
}

// TestStreams: logs -f follows, exec carries input, output, errors, exit codes and a terminal; with the built-in kubectl and the machine's.
func TestStreams(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	applyWeb(t, c)
	pod := podNames(t, c, "app=web")[0]
	kubectls := map[string]func(args ...string) *exec.Cmd{"built in": func(args ...string) *exec.Cmd {
		return c.Command(append([]string{"kubectl"}, args...)...)
	}}
	if path, err := exec.LookPath("kubectl"); err == nil {
		kubectls["the machine's"] = func(args ...string) *exec.Cmd { return c.Program(path, args...) }
	} else {
		t.Log("this machine has no kubectl of its own; only the built-in one is tried")
	}
	for name, kubectl := range kubectls {
		t.Run(name, func(t *testing.T) {
			t.Run("exec", func(t *testing.T) {
				cmd := kubectl("exec", "-i", pod, "--", "sh", "-c", "cat; echo oops >&2; exit 7")
				cmd.Stdin = strings.NewReader(strings.Repeat("line\n", 20000))
				var stdout, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				err := cmd.Run()
				if cmd.ProcessState.ExitCode() != 7 {
					t.Errorf("exit code %d (%v), want 7: %s", cmd.ProcessState.ExitCode(), err, stderr.String())
				}
				if stdout.Len() != 100000 || !strings.Contains(stderr.String(), "oops") {
					t.Errorf("got %d bytes of output, errors %q", stdout.Len(), stderr.String())
				}
			})
			t.Run("terminal", func(t *testing.T) {
				// script gives kubectl a terminal, as a person's would.
				cmd := c.Program("script", "-qefc", strings.Join(kubectl("exec", "-it", pod, "--", "sh").Args, " "), "/dev/null")
				stdin, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				cmd.Stdout = &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() })
				fmt.Fprint(stdin, "echo $((6*7))-answer\nhostname\nexit\n")
				err = cmd.Wait()
				if !strings.Contains(out.String(), "42-answer") || !strings.Contains(out.String(), pod) {
					t.Errorf("the terminal showed %q, %v", out.String(), err)
				}
			})
			t.Run("logs -f", func(t *testing.T) {
				cmd := kubectl("logs", "-f", pod)
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
				ip := strings.TrimSpace(c.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}"))
				mark := fmt.Sprintf("/mark-%d", os.Getpid())
				found := make(chan bool, 1)
				go func() {
					for s := bufio.NewScanner(out); s.Scan(); {
						if strings.Contains(s.Text(), mark) {
							found <- true
							return
						}
					}
					found <- false
				}()
				time.Sleep(200 * time.Millisecond) // the follower is ahead of the line it waits for
				if _, err := c.HTTP("http://" + ip + ":8080" + mark); err != nil {
					t.Fatal(err)
				}
				select {
				case ok := <-found:
					if !ok {
						t.Error("logs -f ended without the line")
					}
				case <-time.After(10 * time.Second):
					t.Error("logs -f did not show a new line within 10 s")
				}
			})
		})
	}
}
