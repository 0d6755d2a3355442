package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// TestDown: skiff down leaves nothing on the host but the cluster's data, with which the next up goes on; --purge removes that too.
func TestDown(t *testing.T) {
	t.Parallel()
	whole := cluster.Start(t)
	applyWeb(t, whole)
	whole.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: mounts}
spec:
  volumes:
    - {name: secret, secret: {secretName: s}}
    - {name: memory, emptyDir: {medium: Memory}}
  containers:
    - name: main
      image: skiff.dev/web:1
      volumeMounts: [{name: secret, mountPath: /s}, {name: memory, mountPath: /m, subPath: below}]
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {a: b}
`)
	whole.WaitPodReady("mounts")
	down := func(t *testing.T, c *cluster.Cluster, flags ...string) {
		t.Helper()
		out, err := c.Skiff(append([]string{"down", "--data-dir", c.DataDir}, flags...)...)
		if err != nil {
			t.Fatalf("skiff down: %v\n%s", err, out)
		}
		for _, left := range c.Leftovers() {
			t.Errorf("left behind: %s", left)
		}
	}
	t.Run("of a running cluster", func(t *testing.T) {
		c := whole.For(t)
		if len(c.Leftovers()) < 10 {
			t.Fatalf("a running cluster has more on its host than %q", c.Leftovers())
		}
		down(t, c)
		if err := c.Ended(); err != nil {
			t.Errorf("skiff ended with %v", err)
		}
	})
	t.Run("twice", func(t *testing.T) { down(t, whole.For(t)) })
	t.Run("the data is kept", func(t *testing.T) {
		c := whole.For(t)
		c.Up()
		c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
		c.WaitPodReady("mounts")
		allAnswer(t, "the node port", 3, func() (string, error) { return c.HTTP("http://127.0.0.1:30080") })
	})
	t.Run("after a crash", func(t *testing.T) {
		c := whole.For(t)
		c.Kill()
		down(t, c)
	})
	t.Run("--purge", func(t *testing.T) {
		c := whole.For(t)
		down(t, c, "--purge")
		if _, err := os.Stat(c.DataDir); err == nil {
			t.Error("the data dir is still there")
		}
	})
	t.Run("where there is no cluster", func(t *testing.T) {
		c := whole.For(t)
		if out, err := c.Skiff("down", "--data-dir", c.DataDir); err != nil || !strings.Contains(out, "there is no cluster at "+c.DataDir) {
			t.Errorf("got %v: %s", err, out)
		}
	})
}

// TestTwoClustersOnOneHost: different data dirs, ports and ranges are all it takes.
func TestTwoClustersOnOneHost(t *testing.T) {
	t.Parallel()
	first := cluster.Start(t)
	second := first.Host().New(t, "--listen=127.0.0.1:7443", "--kubelet-listen=0.0.0.0:0", "--pod-cidr=10.52.0.0/16", "--service-cidr=10.53.0.0/16",
		"--service-node-port-range=31000-31999", "--node-name=second")
	second.Up()
	if out := second.Output(); !strings.Contains(out, "setting=proxy-healthz-bind-address") || !strings.Contains(out, "another program has the port") {
		t.Errorf("it does not say that the proxy's health port is taken:\n%s", out)
	}
	applyWeb(t, first)
	raw, err := os.ReadFile("../examples/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	second.Apply(strings.ReplaceAll(string(raw), "30080", "31080"))
	second.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")

	// works checks that a cluster serves, and that only its own pods answer.
	works := func(t *testing.T, c *cluster.Cluster, port int) {
		t.Helper()
		own := strings.Join(podNames(t, c, "app=web"), " ")
		for _, url := range []string{fmt.Sprintf("http://127.0.0.1:%d", port), "http://" + serviceIP(c, "web")} {
			for pod := range allAnswer(t, url, 3, func() (string, error) { return c.HTTP(url) }) {
				if !strings.Contains(own, pod) {
					t.Errorf("%s: %s answered, which is none of %s", url, pod, own)
				}
			}
		}
		out := c.Kubectl("exec", podNames(t, c, "app=web")[0], "--", "wget", "-q", "-O", "-", "http://web.default.svc.cluster.local")
		if pod := answerer.FindString(out); pod == "" || !strings.Contains(own, pod) {
			t.Errorf("by name from inside a pod: %q, want one of %s", out, own)
		}
		if n := strings.Count(c.Kubectl("get", "nodes", "-o", "name"), "node/"); n != 1 {
			t.Errorf("%d nodes", n)
		}
	}
	t.Run("both serve", func(t *testing.T) {
		works(t, first.For(t), 30080)
		works(t, second.For(t), 31080)
	})
	t.Run("one restarts", func(t *testing.T) {
		c := second.For(t)
		before := lives(t, first.For(t))
		c.Kill()
		works(t, first.For(t), 30080)
		c.Up()
		works(t, c, 31080)
		if after := lives(t, first.For(t)); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("the other's containers changed:\nbefore %v\nafter  %v", before, after)
		}
	})
	t.Run("one goes", func(t *testing.T) {
		c := first.For(t)
		if out, err := c.Skiff("down", "--purge", "--data-dir", c.DataDir); err != nil {
			t.Fatalf("skiff down: %v\n%s", err, out)
		}
		works(t, second.For(t), 31080)
		if _, err := os.Stat(filepath.Join(second.DataDir, "cluster.json")); err != nil {
			t.Error(err)
		}
	})
}
