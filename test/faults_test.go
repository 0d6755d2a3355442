package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// TestMalformedManifests: the status message says which field is wrong and why, as upstream's does.
func TestMalformedManifests(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--no-scheduler")
	c.Server()
	for _, m := range []struct{ name, manifest, want string }{
		{"name", "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: [{name: a, image: b}]}\n", `metadata.name: Invalid value: "Bad_Name"`},
		{"no containers", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n", "spec.containers: Required value"},
		{"unknown field", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, imag: c}]}\n", `unknown field "spec.containers[0].imag"`},
		{"wrong type", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, tty: maybe}]}\n", `cannot unmarshal string into Go struct field Container.spec.containers.tty of type bool`},
		{"unknown kind", "apiVersion: v1\nkind: Nonesuch\nmetadata: {name: a}\n", `no matches for kind "Nonesuch"`},
		{"unknown namespace", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: nowhere}\n", `namespaces "nowhere" not found`},
		{"port out of range", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 70000}]}\n",
			"spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"},
		{"node port taken out of range", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 80}]}\n",
			"provided port is not in the valid range. The range of valid ports is 30000-32767"},
		{"duplicate container", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}, {name: a, image: b}]}\n",
			`spec.containers[1].name: Duplicate value: "a"`},
		{"selector", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n" +
			"spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}}\n",
			"`selector` does not match template `labels`"},
	} {
		t.Run(m.name, func(t *testing.T) {
			if out, err := c.For(t).TryKubectl("create", "-f", write(t, m.manifest)); err == nil || !strings.Contains(out, m.want) {
				t.Errorf("want %q, got %v: %s", m.want, err, out)
			}
		})
	}
}

// TestDiskFull: on a full disk API writes fail with a reason, reads go on, and writes work again once there is room, without a restart; nothing is
// corrupted.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	t.Run("tmpfs", func(t *testing.T) {
		t.Parallel()
		c := cluster.New(t, "--no-agent", "--no-scheduler")
		c.MountTmpfs("256m")
		diskFull(t, c)
	})
	t.Run("ext4", func(t *testing.T) {
		if _, err := os.Stat("/dev/loop-control"); err != nil {
			t.Skipf("no file system of its own can be made here: %v", err)
		}
		t.Parallel()
		c := cluster.New(t, "--no-agent", "--no-scheduler")
		c.MountExt4("256m")
		diskFull(t, c)
	})
}

func diskFull(t *testing.T, c *cluster.Cluster) {
	c.Server()
	c.Kubectl("create", "configmap", "before", "--from-literal=a=b")
	filler := filepath.Join(c.DataDir, "filler")
	if out, err := c.Run("dd", "if=/dev/zero", "of="+filler, "bs=1M"); err == nil {
		t.Fatalf("the disk did not fill up: %s", out)
	}
	big := write(t, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: big-}\ndata: {a: %s}\n", strings.Repeat("x", 900_000)))
	var failed int
	for i := 0; i < 200 && failed < 20; i++ { // etcd has set some space aside
		out, err := c.TryKubectl("create", "--request-timeout=10s", "-f", big)
		if err == nil {
			continue
		}
		if !strings.Contains(out, "disk") {
			t.Fatalf("a write that failed does not say why: %s", out)
		}
		failed++
	}
	if failed == 0 {
		t.Fatal("200 MB were written to a full disk")
	}
	for _, args := range [][]string{{"label", "configmap", "before", "x=y"}, {"delete", "configmap", "before"}, {"create", "namespace", "n"}} {
		if out, err := c.TryKubectl(append(args, "--request-timeout=10s")...); err == nil || !strings.Contains(out, "disk") {
			t.Errorf("%v on a full disk: %v: %s", args, err, out)
		}
	}
	if out := c.Kubectl("get", "configmap", "before", "-o", "jsonpath={.data.a}"); out != "b" {
		t.Errorf("reading on a full disk gave %q", out)
	}
	for len(c.Kubectl("get", "namespaces", "-o", "name")) == 0 {
		t.Error("no namespaces on a full disk")
	}
	time.Sleep(6 * time.Second) // the members of the store that write now and then meet the full disk too
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		out, err := c.TryKubectl("create", "configmap", "after", "--from-literal=a=b")
		if err != nil && !strings.Contains(out, "already exists") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	count := strings.Count(c.Kubectl("get", "configmaps", "-o", "name"), "\n")
	c.Stop()
	c.Server()
	if now := strings.Count(c.Kubectl("get", "configmaps", "-o", "name"), "\n"); now != count {
		t.Errorf("%d config maps after a restart, %d before", now, count)
	}
}
