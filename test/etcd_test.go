package test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// etcdServer is a real etcd in a process of its own on a cluster's host.
type etcdServer struct {
	t    *testing.T
	c    *cluster.Cluster
	bin  string
	data string
	cmd  *exec.Cmd
}

const etcdURL = "http://127.0.0.1:2379"

func (e *etcdServer) start() {
	e.t.Helper()
	const peer = "http://127.0.0.1:2380"
	e.cmd = e.c.Program(e.bin, "--name", "outside", "--data-dir", e.data, "--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "outside="+peer, "--log-level", "error")
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	cluster.Eventually(e.t, func() error {
		_, err := e.c.HTTP(etcdURL + "/health")
		return err
	})
}

func (e *etcdServer) kill() {
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
}

// TestExternalEtcd: the data lives in another process. While that is away requests fail soon and say why; when it is back all goes on.
func TestExternalEtcd(t *testing.T) {
	t.Parallel()
	bin := cluster.GoBuild(t, "go.etcd.io/etcd/server/v3")
	whole := cluster.New(t, "--etcd-endpoints", etcdURL)
	etcd := &etcdServer{t: t, c: whole, bin: bin, data: filepath.Join(t.TempDir(), "etcd")}
	etcd.start()
	t.Cleanup(func() { etcd.kill() })
	whole.Up()
	applyWeb(t, whole)
	before := lives(t, whole)

	t.Run("away", func(t *testing.T) {
		c := whole.For(t)
		etcd.kill()
		began := time.Now()
		out, err := c.TryKubectl("create", "configmap", "lost", "--from-literal=a=b")
		if took := time.Since(began); err == nil || took > 20*time.Second {
			t.Errorf("a write without etcd: %v after %s: %s", err, took, out)
		}
		t.Logf("a write without etcd said after %s: %s", time.Since(began).Round(time.Millisecond), strings.TrimSpace(out))
		if out, err := c.TryKubectl("get", "--raw=/readyz"); err == nil {
			t.Errorf("it says it is ready: %s", out)
		}
		for range 10 {
			if _, err := c.HTTP("http://127.0.0.1:30080"); err != nil {
				t.Errorf("services do not answer without etcd: %v", err)
			}
		}
	})
	t.Run("back", func(t *testing.T) {
		c := whole.For(t)
		etcd.start()
		cluster.Eventually(t, func() error {
			if out, err := c.TryKubectl("get", "--raw=/readyz"); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		if out, err := c.TryKubectl("get", "configmap", "lost"); err == nil {
			t.Errorf("the write that failed was done: %s", out)
		}
		c.Kubectl("scale", "deployment/web", "--replicas=4")
		c.Kubectl("rollout", "status", "deployment/web", "--timeout=3m")
		c.Kubectl("scale", "deployment/web", "--replicas=3")
		waitForPods(t, c, "app=web", 3)
		after := lives(t, c)
		for pod, was := range before {
			if now, there := after[pod]; there && now != was {
				t.Errorf("%s was touched: %s, now %s", pod, was, now)
			}
		}
	})
	t.Run("away for longer than a lease", func(t *testing.T) {
		c := whole.For(t)
		before := lives(t, c)
		etcd.kill()
		time.Sleep(12 * time.Second)
		etcd.start()
		cluster.Eventually(t, func() error {
			out, err := c.TryKubectl("get", "nodes")
			if err != nil || !strings.Contains(out, " Ready ") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
		if after := lives(t, c); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("containers changed:\nbefore %v\nafter  %v", before, after)
		}
	})
	t.Run("skiff restarts", func(t *testing.T) {
		c := whole.For(t)
		before := lives(t, c)
		c.Kill()
		c.Up()
		if after := lives(t, c); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("containers changed:\nbefore %v\nafter  %v", before, after)
		}
	})
}
