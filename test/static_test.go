package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	changesOnItsWayOut(t, c, write)
	sharesName(t, c, dir)
	if err := os.Remove(filepath.Join(dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "pods", "-o", "name"); out != "" {
			return fmt.Errorf("still there: %s", out)
		}
		return nil
	})
	makesRoom(t, c, write)
}

// changesOnItsWayOut: while a static pod ends because its manifest changed, that changes again, back to what it was and to something else. The pod ends in its own
// time, deleting its mirror meanwhile changes nothing, and what begins then is what the manifest says by then.
func changesOnItsWayOut(t *testing.T, c *cluster.Cluster, write func(string)) {
	t.Helper()
	slow := strings.NewReplacer("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 6", "name: main,", "name: main, lifecycle: {preStop: {sleep: {seconds: 5}}},").Replace(staticPod)
	write(strings.Replace(slow, "one", "slow", 1))
	stopped := func(began *corev1.Pod) {
		t.Helper()
		cluster.Eventually(t, func() error {
			events, err := c.Client().CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Killing,involvedObject.uid=" + began.Annotations[corev1.MirrorPodAnnotationKey]})
			if err == nil && len(events.Items) == 0 {
				err = errors.New("nothing of the pod is being ended")
			}
			return err
		})
	}
	was := staticSays(t, c, "slow")
	write(staticPod)
	stopped(was)
	write(strings.Replace(slow, "one", "slow", 1))
	c.Kubectl("delete", "pod", "web-n1", "--wait=false")
	write(strings.Replace(staticPod, "one", "three", 1))
	if is := staticSays(t, c, "three"); is.Status.ContainerStatuses[0].ContainerID == was.Status.ContainerStatuses[0].ContainerID {
		t.Error("the container that was ended goes on")
	}

	write(strings.Replace(slow, "one", "back", 1))
	was = staticSays(t, c, "back")
	write(staticPod)
	stopped(was)
	write(strings.Replace(slow, "one", "back", 1))
	cluster.Eventually(t, func() error {
		p, err := c.Client().CoreV1().Pods("default").Get(t.Context(), "web-n1", metav1.GetOptions{})
		if err == nil && (!cluster.Ready(p) || p.Status.ContainerStatuses[0].ContainerID == was.Status.ContainerStatuses[0].ContainerID) {
			err = errors.New("the former pod has not begun anew")
		}
		return err
	})
	staticSays(t, c, "back")
	write(staticPod)
	staticSays(t, c, "one")
}

// sharesName: of two manifests of one name the first file's pod runs, the log says so, and the other's takes its place when that is gone.
func sharesName(t *testing.T, c *cluster.Cluster, dir string) {
	t.Helper()
	other := filepath.Join(dir, "zother.yaml")
	if err := os.WriteFile(other, []byte(strings.Replace(staticPod, "one", "other", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		if want := other + ": the pod default/web-n1 is in " + filepath.Join(dir, "web.yaml") + " already"; !strings.Contains(c.Output(), want) {
			return fmt.Errorf("the log does not say %q", want)
		}
		return nil
	})
	staticSays(t, c, "one")
	if err := os.Rename(filepath.Join(dir, "web.yaml"), filepath.Join(dir, ".web.yaml")); err != nil {
		t.Fatal(err)
	}
	staticSays(t, c, "other")
	if err := errors.Join(os.Rename(filepath.Join(dir, ".web.yaml"), filepath.Join(dir, "web.yaml")), os.Remove(other)); err != nil {
		t.Fatal(err)
	}
	staticSays(t, c, "one")
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

// TestStaticPodsEnd: a static pod that ended, by itself or because its deadline was over, does not begin anew with Skiff, nor because its mirror is deleted; one
// whose manifest changes does, and one whose manifest goes while Skiff is away leaves nothing.
func TestStaticPodsEnd(t *testing.T) {
	t.Parallel()
	dir, host := filepath.Join(t.TempDir(), "manifests"), t.TempDir()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, policy, more, command string) {
		t.Helper()
		manifest := fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: %s
  terminationGracePeriodSeconds: 1%s
  volumes: [{name: host, hostPath: {path: %q}}]
  containers:
  - name: main
    image: skiff.dev/web:1
    command: [sh, -c, "echo ran >> /host/%s; %s"]
    volumeMounts: [{name: host, mountPath: /host}]
`, name, policy, more, host, name, command)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(manifest), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("done", "OnFailure", "", "true")
	write("failed", "Never", "", "exit 3")
	write("late", "Always", "\n  activeDeadlineSeconds: 4", "sleep inf")
	write("left", "Never", "", "true")
	c := cluster.Start(t, "--pod-manifest-path", dir, "--node-name", "n1")
	want := map[string]string{"done": "Succeeded  0", "failed": "Failed  3", "late": "Failed DeadlineExceeded"}
	shown := func(name, not string) *corev1.Pod {
		t.Helper()
		return c.WaitPod(name+"-n1", want[name], func(p *corev1.Pod) bool {
			if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Terminated == nil || string(p.UID) == not {
				return false
			}
			is := fmt.Sprintf("%s %s %d", p.Status.Phase, p.Status.Reason, p.Status.ContainerStatuses[0].State.Terminated.ExitCode)
			return strings.HasPrefix(is, want[name]) // what the shell makes of its end is its own affair
		})
	}
	ran := func(name string, times int) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(host, name))
		if n := strings.Count(string(text), "ran"); n != times {
			t.Errorf("%s ran %d times, not %d (%v)", name, n, times, err)
		}
	}
	before := map[string]*corev1.Pod{}
	for name := range want {
		before[name] = shown(name, "")
	}
	c.WaitPodDone("left-n1")

	c.Kill()
	if err := os.Remove(filepath.Join(dir, "left.yaml")); err != nil {
		t.Fatal(err)
	}
	write("new", "Always", "", "sleep inf")
	c.Up()
	c.WaitPodReady("new-n1") // begins after those that were there
	for name := range want {
		now := shown(name, "")
		if now.UID != before[name].UID || !now.Status.StartTime.Equal(before[name].Status.StartTime) {
			t.Errorf("%s is shown by another: %s since %s, then %s since %s", name, before[name].UID, before[name].Status.StartTime, now.UID, now.Status.StartTime)
		}
	}
	c.WaitPodGone("left-n1")
	c.Kubectl("delete", "pod", "done-n1", "failed-n1", "--wait=false")
	for _, name := range []string{"done", "failed"} {
		shown(name, string(before[name].UID))
		ran(name, 1)
	}
	want["failed"] = "Failed  4"
	write("failed", "Never", "", "exit 4")
	shown("failed", string(before["failed"].UID))
	ran("failed", 2)
}

// staticSays waits until the static pod is the one of that value, and ready.
func staticSays(t *testing.T, c *cluster.Cluster, want string) *corev1.Pod {
	t.Helper()
	cluster.Eventually(t, func() error {
		if out, err := c.TryKubectl("exec", "web-n1", "--", "sh", "-c", "echo $V"); err != nil || out != want+"\n" {
			return fmt.Errorf("exec says %q, not %q (%v)", out, want, err)
		}
		return nil
	})
	return c.WaitPodReady("web-n1")
}

func sameContainer(t *testing.T, a, b *corev1.Pod, after string) {
	t.Helper()
	if x, y := a.Status.ContainerStatuses[0], b.Status.ContainerStatuses[0]; x.ContainerID != y.ContainerID || y.RestartCount != 0 {
		t.Errorf("after %s the container is another: %s, then %s", after, x.ContainerID, y.ContainerID)
	}
}
