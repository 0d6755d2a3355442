package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

const staticPod = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.dev/web:1", env: [{name: V, value: "one"}]}]
`

// TestStaticPods: a manifest's pod runs and is shown in the API, where nothing ends it; with its manifest it changes, goes, and outlives Skiff.
func TestStaticPods(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "manifests")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(staticPod)
	c := cluster.Start(t, "--pod-manifest-path", dir, "--node-name", "n1")
	const name = "web-n1"
	ready := func(after string) *corev1.Pod {
		t.Helper()
		return c.WaitPod(name, "ready as another than "+after, func(p *corev1.Pod) bool {
			if string(p.UID) == after || p.DeletionTimestamp != nil {
				return false
			}
			for _, cond := range p.Status.Conditions {
				if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
					return true
				}
			}
			return false
		})
	}
	first := ready("")
	if o := first.OwnerReferences; first.Annotations["kubernetes.io/config.source"] != "file" || len(o) != 1 || o[0].Kind != "Node" || o[0].Name != "n1" ||
		first.Annotations[corev1.MirrorPodAnnotationKey] == "" || first.Annotations[corev1.MirrorPodAnnotationKey] != first.Annotations["kubernetes.io/config.hash"] {
		t.Errorf("the mirror: %v, %v", first.Annotations, o)
	}
	if out := c.Kubectl("exec", name, "--", "sh", "-c", "echo $V"); out != "one\n" {
		t.Errorf("exec says %q", out)
	}
	c.Kubectl("delete", "pod", name, "--wait=false")
	again := ready(string(first.UID))
	sameContainer(t, first, again, "its mirror was deleted")

	c.Kill()
	c.Up()
	back := ready("")
	sameContainer(t, first, back, "Skiff started anew")

	write(strings.Replace(staticPod, "one", "two", 1))
	changed := ready(string(back.UID))
	if out := c.Kubectl("exec", name, "--", "sh", "-c", "echo $V"); out != "two\n" {
		t.Errorf("after the change exec says %q (mirror %s)", out, changed.UID)
	}
	if err := os.Remove(filepath.Join(dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, 30*time.Second, func() error {
		if out := c.Kubectl("get", "pods", "-o", "name"); out != "" {
			return fmt.Errorf("still there: %s", out)
		}
		return nil
	})
	makesRoom(t, c, write)
}

// makesRoom: a static pod for which there is too little left ends one that is of less importance.
func makesRoom(t *testing.T, c *cluster.Cluster, write func(string)) {
	nodes, err := c.Client().CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	most := fmt.Sprintf("%dm", nodes.Items[0].Status.Allocatable.Cpu().MilliValue()*6/10)
	asking := strings.Replace(staticPod, "name: main,", "name: main, resources: {requests: {cpu: "+most+"}},", 1)
	c.Apply(strings.Replace(asking, "name: web", "name: lesser", 1))
	c.WaitPodReady("lesser")
	write(asking)
	c.WaitPod("lesser", "preempted", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Preempting"
	})
	c.WaitPodReady("web-n1")
}

func sameContainer(t *testing.T, a, b *corev1.Pod, after string) {
	t.Helper()
	if x, y := a.Status.ContainerStatuses[0], b.Status.ContainerStatuses[0]; x.ContainerID != y.ContainerID || y.RestartCount != 0 {
		t.Errorf("after %s the container is another: %s, then %s", after, x.ContainerID, y.ContainerID)
	}
}
