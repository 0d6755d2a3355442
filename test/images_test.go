package test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// TestImages: import, list, pull and remove; what pods do with images that are there and with those that are not.
func TestImages(t *testing.T) {
	t.Parallel()
	whole := cluster.New(t)
	dropped := cluster.SaveImage(t, peerImage(t), "test.example/dropped:1")
	if err := os.MkdirAll(filepath.Join(whole.DataDir, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := whole.Run("mv", dropped, filepath.Join(whole.DataDir, "images", "dropped.tar")); err != nil {
		t.Fatal(err, out)
	}
	whole.Up()
	address := serveRegistry(t, whole)
	skiff := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := whole.Skiff(append([]string{"image"}, args...)...)
		if err != nil {
			t.Fatalf("skiff image %v: %v\n%s", args, err, out)
		}
		return out
	}
	t.Run("built in", func(t *testing.T) {
		if out := skiff(t, "ls"); !regexp.MustCompile(`(?m)^skiff\.dev/web +1 +[0-9a-f]{12} +\d+\.\dMB$`).MatchString(out) {
			t.Errorf("ls:\n%s", out)
		}
	})
	t.Run("archive in the data dir", func(t *testing.T) {
		cluster.Eventually(t, func() error {
			if out := skiff(t, "ls", "-o", "name"); !strings.Contains(out, "test.example/dropped:1") {
				return fmt.Errorf("ls:\n%s", out)
			}
			return nil
		})
	})
	t.Run("import, use and remove", func(t *testing.T) {
		c := whole.For(t)
		archive := cluster.SaveImage(t, peerImage(t), "test.example/imported:1")
		if out := skiff(t, "import", archive); !strings.Contains(out, "imported test.example/imported:1") {
			t.Errorf("import: %s", out)
		}
		c.Kubectl("run", "imported", "--image=test.example/imported:1", "--image-pull-policy=Never", "--", "udp")
		c.WaitPodReady("imported")
		c.Kubectl("delete", "pod", "imported", "--now")
		if out := skiff(t, "rm", "test.example/imported:1"); !strings.Contains(out, "removed test.example/imported:1") {
			t.Errorf("rm: %s", out)
		}
		if out := skiff(t, "ls"); strings.Contains(out, "imported") {
			t.Errorf("ls after rm:\n%s", out)
		}
		if out, err := c.Skiff("image", "rm", "test.example/imported:1"); err == nil || strings.Count(strings.TrimSpace(out), "\n") > 0 {
			t.Errorf("rm of what is not there: %v: %s", err, out)
		}
	})
	t.Run("import from standard input", func(t *testing.T) {
		cmd := whole.Command("image", "import", "-")
		f, err := os.Open(cluster.SaveImage(t, peerImage(t), "test.example/piped:1"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.Stdin = f
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "imported test.example/piped:1") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("import of something else", func(t *testing.T) {
		for _, file := range []string{write(t, "not an archive"), "/does/not/exist.tar"} {
			out, err := whole.Skiff("image", "import", file)
			if err == nil || strings.Count(strings.TrimSpace(out), "\n") > 0 || !strings.Contains(out, file) {
				t.Errorf("%v: %s", err, out)
			}
		}
	})
	t.Run("pull", func(t *testing.T) {
		push(t, whole, address+"/peer:pulled")
		if out := skiff(t, "pull", address+"/peer:pulled"); !strings.Contains(out, "pulled "+address+"/peer:pulled as sha256:") {
			t.Errorf("pull: %s", out)
		}
		if out := skiff(t, "ls", "-o", "name"); !strings.Contains(out, address+"/peer:pulled") {
			t.Errorf("ls:\n%s", out)
		}
		if out, err := whole.Skiff("image", "pull", address+"/peer:nonesuch"); err == nil || !strings.Contains(out, "not found") {
			t.Errorf("pull of what is not there: %v: %s", err, out)
		}
	})
	t.Run("pull policies", func(t *testing.T) { pullPolicies(t, whole.Space(t, "policies"), address) })
	t.Run("images that are not there", func(t *testing.T) { missingImages(t, whole.Space(t, "missing"), address) })
	t.Run("images as volumes", func(t *testing.T) { imageVolumes(t, whole.Space(t, "volumes"), address) })
	t.Run("an image that comes late", func(t *testing.T) {
		c := whole.For(t)
		c.Kubectl("run", "late", "--image="+address+"/peer:late", "--", "udp")
		c.WaitPod("late", "in ErrImagePull or ImagePullBackOff", waitingFor("ErrImagePull", "ImagePullBackOff"))
		push(t, c, address+"/peer:late")
		c.WaitPodReady("late")
	})
}

// serveRegistry runs a registry on the cluster's host and returns its address.
func serveRegistry(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	l := listen(t, c, "127.0.0.1:5000")
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return l.Addr().(*net.TCPAddr).String()
}

// push puts the peer image into the registry.
func push(t *testing.T, c *cluster.Cluster, ref string) {
	t.Helper()
	pushImage(t, c, ref, peerImage(t))
}

func pushImage(t *testing.T, c *cluster.Cluster, ref string, image v1.Image) {
	t.Helper()
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image, remote.WithTransport(&http.Transport{DialContext: c.Host().Dial})); err != nil {
		t.Fatal(err)
	}
}

// waitingFor is true of a pod whose first container waits for one of the reasons.
func waitingFor(reasons ...string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
			return false
		}
		for _, r := range reasons {
			if p.Status.ContainerStatuses[0].State.Waiting.Reason == r {
				return true
			}
		}
		return false
	}
}

func pullPolicies(t *testing.T, c *cluster.Cluster, address string) {
	ref := address + "/peer:policies"
	push(t, c, ref)
	for _, p := range []struct{ name, policy, event string }{
		{"absent", "IfNotPresent", "Successfully pulled image"},
		{"present", "IfNotPresent", "already present on machine"},
		{"always", "Always", "Successfully pulled image"},
		{"never", "Never", "already present on machine"},
	} {
		c.Kubectl("run", p.name, "--image="+ref, "--image-pull-policy="+p.policy, "--", "udp")
		c.WaitPodReady(p.name)
		cluster.Eventually(t, func() error {
			if out := c.Kubectl("get", "events", "--field-selector=reason=Pulled,involvedObject.name="+p.name); !strings.Contains(out, p.event) {
				return fmt.Errorf("%s: no event with %q:\n%s", p.name, p.event, out)
			}
			return nil
		})
	}
}

func missingImages(t *testing.T, c *cluster.Cluster, address string) {
	c.Kubectl("run", "unknown", "--image="+address+"/nonesuch:1")
	c.Kubectl("run", "unreachable", "--image=127.0.0.1:1/none:1")
	c.Kubectl("run", "never", "--image=test.example/nonesuch:1", "--image-pull-policy=Never")
	c.Apply("apiVersion: v1\nkind: Pod\nmetadata: {name: misnamed}\nspec: {containers: [{name: main, image: \"Not/A/Name\"}]}\n")
	c.WaitPod("never", "in ErrImageNeverPull", waitingFor("ErrImageNeverPull"))
	c.WaitPod("misnamed", "in InvalidImageName", waitingFor("InvalidImageName"))
	for name, why := range map[string]string{"unknown": "not found", "unreachable": "connection refused"} {
		p := c.WaitPod(name, "in ImagePullBackOff", waitingFor("ImagePullBackOff"))
		if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "Back-off pulling image") || !strings.Contains(m, why) {
			t.Errorf("%s: the status says %q, which does not tell %q", name, m, why)
		}
		out := c.Kubectl("describe", "pod", name)
		for _, want := range []string{why, "Failed to pull image", "Error: ErrImagePull", "Back-off pulling image", "Error: ImagePullBackOff"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: describe does not say %q:\n%s", name, want, out)
			}
		}
	}
}
