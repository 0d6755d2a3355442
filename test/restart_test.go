package test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// TestContainersOutliveSkiff: neither a crash nor an orderly stop touches a container, and the next start takes them over.
func TestContainersOutliveSkiff(t *testing.T) {
	t.Parallel()
	whole := cluster.Start(t)
	applyWeb(t, whole)
	ends := []struct {
		name string
		end  func(*cluster.Cluster)
	}{
		{"kill -9", (*cluster.Cluster).Kill},
		{"SIGTERM", (*cluster.Cluster).Terminate},
		{"Ctrl-C", (*cluster.Cluster).Stop},
	}
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			c := whole.For(t)
			before := lives(t, c)
			ip := serviceIP(c, "web")
			e.end(c)
			for range 10 {
				if body, err := c.HTTP("http://" + ip); err != nil {
					t.Errorf("the service stopped answering: %v %s", err, body)
				}
			}
			c.Up()
			c.Kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=3m")
			time.Sleep(time.Second) // a restart that comes late is one all the same
			if after := lives(t, c); !maps.Equal(before, after) {
				t.Errorf("containers changed:\nbefore %v\nafter  %v", before, after)
			}
			if out := c.Kubectl("exec", podNames(t, c, "app=web")[0], "--", "sh", "-c", "echo here"); squeeze(out) != "here" {
				t.Errorf("exec in a container that was taken over: %q", out)
			}
			// New work gets done beside the old.
			c.Kubectl("scale", "deployment", "web", "--replicas=4")
			c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
			c.Kubectl("scale", "deployment", "web", "--replicas=3")
			waitForPods(t, c, "app=web", 3)
		})
	}
}

// lives says of each pod which container it is, since when it runs and where.
func lives(t *testing.T, c *cluster.Cluster) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, p := range pods(t, c, "app=web") {
		s := p.Status.ContainerStatuses[0]
		if s.State.Running == nil {
			t.Fatalf("pod %s does not run: %+v", p.Name, s.State)
		}
		got[p.Name] = fmt.Sprintf("%s restarts=%d started=%s ip=%s", s.ContainerID, s.RestartCount, s.State.Running.StartedAt, p.Status.PodIP)
	}
	return got
}

// TestPodsChangedWhileAway: what happened while Skiff was away is seen and put right when it returns.
func TestPodsChangedWhileAway(t *testing.T) {
	t.Parallel()
	whole := cluster.Start(t)
	applyWeb(t, whole)
	whole.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: ends}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "skiff.dev/web:1", command: [sh, -c, "while ! [ -e /tmp/end ]; do sleep 0.2; done; sleep 3; echo the end; exit 4"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: deleted}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.dev/web:1", command: [sleep, "1000"]}]
`)
	whole.WaitPodReady("ends")
	whole.WaitPodReady("deleted")
	pod := podNames(t, whole, "app=web")[0]
	before := restarts(t, whole, pod)
	whole.Kubectl("delete", "pod", "deleted", "--wait=false")
	whole.Kubectl("exec", pod, "--", "sh", "-c", "(sleep 3; kill 1) >/dev/null 2>&1 &")
	whole.Kubectl("exec", "ends", "--", "sh", "-c", ": > /tmp/end")
	whole.Kill()
	time.Sleep(4500 * time.Millisecond) // two containers end in the meantime
	whole.Up()
	t.Run("a container that died is restarted", func(t *testing.T) {
		whole.For(t).WaitPod(pod, "restarted once", func(p *corev1.Pod) bool {
			return p.Status.ContainerStatuses[0].RestartCount == before+1 && cluster.Ready(p)
		})
	})
	t.Run("a pod that ended has ended", func(t *testing.T) {
		p := whole.For(t).WaitPodDone("ends")
		if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 4 || p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("its status is %+v", p.Status.ContainerStatuses[0])
		}
	})
	t.Run("a pod that was being deleted is gone", func(t *testing.T) {
		whole.For(t).WaitPodGone("deleted")
	})
	t.Run("services answer", func(t *testing.T) {
		c := whole.For(t)
		allAnswer(t, "the node port", 3, func() (string, error) { return c.HTTP("http://127.0.0.1:30080") })
	})
}
