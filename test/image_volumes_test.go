package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// imageVolumes (KEP-4639): what an image holds is a volume, read-only, as a whole or below a subPath, pulled as the reference's own policy says.
func imageVolumes(t *testing.T, c *cluster.Cluster, address string) {
	ref := address + "/site:1"
	pushSite(t, c, ref, "one")
	c.Apply(imageVolumePod("first", ref, "Always", "site"))
	c.WaitPodReady("first")
	says := func(pod, path, want string) {
		t.Helper()
		if out := c.Kubectl("exec", pod, "--", "cat", path); out != want {
			t.Errorf("%s of %s is %q, want %q", path, pod, out, want)
		}
	}
	says("first", "/whole/site/page", "one")
	says("first", "/part/page", "one")
	if out, err := c.TryKubectl("exec", "first", "--", "sh", "-c", "echo no > /whole/site/page"); err == nil || !strings.Contains(out, "read-only file system") {
		t.Errorf("writing to an image: %v: %s", err, out)
	}

	pushSite(t, c, ref, "two")
	c.Apply(imageVolumePod("cached", ref, "IfNotPresent", "site"))
	c.WaitPodReady("cached")
	says("cached", "/part/page", "one")
	c.Apply(imageVolumePod("fresh", ref, "Always", "site"))
	c.WaitPodReady("fresh")
	says("fresh", "/whole/site/page", "two")
	says("first", "/whole/site/page", "one")

	late := address + "/site:late"
	c.Apply(imageVolumePod("late", late, "Always", "site"))
	c.Apply(imageVolumePod("never", late, "Never", "site"))
	c.Apply(imageVolumePod("astray", ref, "IfNotPresent", "nowhere/at-all"))
	c.WaitPod("never", "in ErrImageNeverPull", waitingFor("ErrImageNeverPull"))
	p := c.WaitPod("late", "in ImagePullBackOff", waitingFor("ImagePullBackOff"))
	if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, late) {
		t.Errorf("the status says %q, which does not name %s", m, late)
	}
	p = c.WaitPod("astray", "in CreateContainerError", waitingFor("CreateContainerError"))
	if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "nowhere/at-all") {
		t.Errorf("the status says %q, which does not name the subPath", m)
	}
	pushSite(t, c, late, "late")
	c.WaitPodReady("late")
	says("late", "/part/page", "late")
}

func imageVolumePod(name, ref, policy, subPath string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: skiff.dev/web:1
    volumeMounts: [{name: site, mountPath: /whole}, {name: site, mountPath: /part, subPath: %q}]
  volumes: [{name: site, image: {reference: %q, pullPolicy: %s}}]
`, name, subPath, ref, policy)
}

// pushSite puts an image with one page into the registry.
func pushSite(t *testing.T, c *cluster.Cluster, ref, page string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "page")
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	pushImage(t, c, ref, cluster.BuildImage(t, map[string]string{"site/page": file}, "/none"))
}
