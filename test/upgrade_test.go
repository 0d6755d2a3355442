package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skiff.dev/skiff/internal/version"
	"skiff.dev/skiff/test/cluster"
)

// TestUpgrade: another release takes the place of the one that runs, first on the server's host and then on the agent's. The pods do not notice.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	c := cluster.StartNodes(t, 2)
	c.Apply(strings.Replace(spreadOverNodes, "replicas: 3", "replicas: 2", 1))
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
	byNode := podsByNode(t, c.Cluster, 2)
	const running = `jsonpath={range .items[*]}{.metadata.uid} {.status.podIP} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount} {.status.containerStatuses[*].state.running.startedAt}{"\n"}{end}`
	before := c.Kubectl("get", "pods", "--sort-by=.metadata.name", "-o", running)
	versions := func(want ...string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			got := strings.Fields(c.Kubectl("get", "nodes", "--sort-by=.metadata.name", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}"))
			if strings.Join(got, " ") != strings.Join(want, " ") {
				return fmt.Errorf("the nodes are of %q, want %q", got, want)
			}
			return nil
		})
	}
	newer, bin := anotherRelease(t)
	versions(version.Kubernetes, version.Kubernetes)

	c.Stop()
	c.Use(bin)
	c.Server()
	if out := c.Kubectl("get", "--raw=/version"); !strings.Contains(out, newer) {
		t.Errorf("the server says it is\n%s", out)
	}
	versions(newer, version.Kubernetes) // an agent of the older release goes on with a newer server
	c.Kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=3m")
	podToPod(t, c.Cluster, byNode)

	agent := c.Agents[0]
	agent.Stop()
	agent.Use(bin)
	agent.Agent()
	versions(newer, newer)
	podToPod(t, c.Cluster, byNode)
	if after := c.Kubectl("get", "pods", "--sort-by=.metadata.name", "-o", running); after != before {
		t.Errorf("pods before:\n%safter:\n%s", before, after)
	}
	c.Kubectl("scale", "deployment/web", "--replicas=4")
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
}

// anotherRelease is Skiff with another version and the programs beside it. The version is changed in the program itself: to build another one takes a minute.
func anotherRelease(t *testing.T) (as, bin string) {
	t.Helper()
	as = strings.Replace(version.Kubernetes, "+skiff", "+sloop", 1)
	program, err := os.ReadFile(cluster.Binary(t, "skiff"))
	if err != nil {
		t.Fatal(err)
	}
	if as == version.Kubernetes || !bytes.Contains(program, []byte(version.Kubernetes)) {
		t.Fatalf("the program does not carry its version %s", version.Kubernetes)
	}
	dir, beside := t.TempDir(), filepath.Dir(cluster.Binary(t, "skiff"))
	bin = filepath.Join(dir, "skiff")
	if err := os.WriteFile(bin, bytes.ReplaceAll(program, []byte(version.Kubernetes), []byte(as)), 0o755); err != nil {
		t.Fatal(err)
	}
	others, err := os.ReadDir(beside)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range others {
		if path, err := filepath.EvalSymlinks(filepath.Join(beside, o.Name())); err == nil && o.Name() != "skiff" {
			if err := os.Symlink(path, filepath.Join(dir, o.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	return as, bin
}
