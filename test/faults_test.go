package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// TestBadStarts: what is wrong is said in one line that names it and what to do; the exit code is not 0; nothing is left half-started.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, text string) string {
		file := filepath.Join(t.TempDir(), "skiff.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cases := []struct {
		name string
		args func(t *testing.T, c *cluster.Cluster) []string
		want string
	}{
		{"unknown flag", func(*testing.T, *cluster.Cluster) []string { return []string{"up", "--dta-dir=/x"} }, "unknown flag: --dta-dir"},
		{"unknown command", func(*testing.T, *cluster.Cluster) []string { return []string{"upp"} }, `unknown command "upp"`},
		{"corrupt configuration", func(t *testing.T, _ *cluster.Cluster) []string {
			return []string{"up", "--config", write(t, "listen: [\n")}
		}, "is not valid YAML"},
		{"no such configuration", func(*testing.T, *cluster.Cluster) []string {
			return []string{"up", "--config", "/does/not/exist.yaml"}
		}, "/does/not/exist.yaml: no such file"},
		{"unknown controller", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--controllers", "*,-nonesuch-controller"}
		}, "nonesuch-controller"},
		{"data dir is a file", func(t *testing.T, _ *cluster.Cluster) []string {
			return []string{"up", "--data-dir", filepath.Join(write(t, "x"), "below")}
		}, "data-dir: cannot create"},
		{"data dir read-only", func(*testing.T, *cluster.Cluster) []string {
			return []string{"up", "--data-dir", "/proc/skiff"}
		}, "data-dir: cannot create /proc/skiff"},
		{"foreign address", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--listen", "192.0.2.1:6443"}
		}, "192.0.2.1:6443 is not an address of this host"},
	}
	c := cluster.New(t)
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			oneLine(t, c, tc.want, tc.args(t, c)...)
		})
	}
	t.Run("not root", func(t *testing.T) {
		out, err := c.Run("setpriv", append([]string{"--reuid=65534", "--clear-groups"}, c.Command("up", "--data-dir", "/tmp/x").Args[2:]...)...)
		if err == nil || !strings.Contains(out, "must be root") {
			t.Errorf("got %v: %s", err, out)
		}
	})
	t.Run("port taken", func(t *testing.T) {
		var l net.Listener
		err := c.Host().Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:6443"); return err })
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		oneLine(t, c, "127.0.0.1:6443 is taken by another program", "up", "--data-dir", c.DataDir)
	})
	t.Run("missing shim", func(t *testing.T) {
		copied := filepath.Join(t.TempDir(), "skiff")
		if out, err := c.Run("cp", c.Binary(), copied); err != nil {
			t.Fatal(err, out)
		}
		out, err := c.Run(copied, "up", "--data-dir", c.DataDir)
		if err == nil || !strings.Contains(out, "containerd-shim-runc-v2 is missing beside skiff") {
			t.Errorf("got %v: %s", err, out)
		}
	})
}

// oneLine runs skiff and checks that it fails with one line holding want.
func oneLine(t *testing.T, c *cluster.Cluster, want string, args ...string) {
	t.Helper()
	out, err := c.Skiff(args...)
	if err == nil {
		t.Fatalf("it did not fail: %s", out)
	}
	if strings.Count(strings.TrimSpace(out), "\n") > 0 || !strings.Contains(out, want) {
		t.Errorf("want one line with %q, got:\n%s", want, out)
	}
}

// TestFaultsWhileRunning: a second process, bad manifests, missing images.
func TestFaultsWhileRunning(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	t.Run("second skiff on the same data dir", func(t *testing.T) {
		oneLine(t, c, fmt.Sprintf("is in use by another skiff (pid %d)", c.PID()), "up", "--data-dir", c.DataDir, "--listen", "127.0.0.1:7443")
	})
	t.Run("malformed manifests", func(t *testing.T) {
		for _, m := range []struct{ manifest, want string }{
			{"apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: [{name: a, image: b}]}\n", `metadata.name: Invalid value: "Bad_Name"`},
			{"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n", "spec.containers: Required value"},
			{"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, imag: c}]}\n", `unknown field "spec.containers[0].imag"`},
			{"apiVersion: v1\nkind: Nonesuch\nmetadata: {name: a}\n", `no matches for kind "Nonesuch"`},
			{"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}}\n",
				"`selector` does not match template `labels`"},
		} {
			file := filepath.Join(t.TempDir(), "m.yaml")
			if err := os.WriteFile(file, []byte(m.manifest), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := c.Skiff("kubectl", "create", "-f", file)
			if err == nil || !strings.Contains(out, m.want) {
				t.Errorf("want %q, got %v: %s", m.want, err, out)
			}
		}
	})
	t.Run("image that isn't there", func(t *testing.T) {
		c.Kubectl("run", "lost", "--image=127.0.0.1:1/none:1")
		cluster.Eventually(t, 30*time.Second, func() error {
			out := c.Kubectl("get", "pod", "lost")
			if !strings.Contains(out, "ErrImagePull") && !strings.Contains(out, "ImagePullBackOff") {
				return fmt.Errorf("status is\n%s", out)
			}
			return nil
		})
		if out := c.Kubectl("describe", "pod", "lost"); !strings.Contains(out, "connection refused") {
			t.Errorf("describe does not give the reason:\n%s", out)
		}
	})
}

// TestDiskFull: on a full disk API writes fail with a reason, reads go on, and writes work again once there is room, without a restart.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--no-scheduler")
	c.MountTmpfs("256m")
	c.Server()
	c.Kubectl("create", "configmap", "before", "--from-literal=a=b")
	filler := filepath.Join(c.DataDir, "filler")
	if out, err := c.Run("dd", "if=/dev/zero", "of="+filler, "bs=1M"); err == nil {
		t.Fatalf("the disk did not fill up: %s", out)
	}
	big := strings.Repeat("x", 900_000)
	var failed bool
	for i := range 200 { // etcd has preallocated some of its log
		file := filepath.Join(t.TempDir(), "cm.yaml")
		manifest := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big-%d}\ndata: {a: %s}\n", i, big)
		if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := c.Skiff("kubectl", "create", "--request-timeout=10s", "-f", file); err != nil {
			failed = true
			t.Logf("the first write that failed said: %s", out)
			break
		}
	}
	if !failed {
		t.Fatal("200 MB were written to a full disk")
	}
	if out := c.Kubectl("get", "configmap", "before", "-o", "jsonpath={.data.a}"); out != "b" {
		t.Errorf("reading on a full disk gave %q", out)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, 30*time.Second, func() error {
		out, err := c.Skiff("kubectl", "create", "configmap", "after", "--from-literal=a=b")
		if err != nil && !strings.Contains(out, "already exists") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}
