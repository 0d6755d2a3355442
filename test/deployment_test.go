package test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"skiff.dev/skiff/test/cluster"
)

// deploymentPauses: changes of a paused Deployment are one rollout when it goes on, and no more old ReplicaSets stay than are wanted.
func deploymentPauses(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("Deployment", "web", "  replicas: 1\n  revisionHistoryLimit: 1\n"))
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	c.Kubectl("rollout", "pause", "deployment/web")
	c.Kubectl("set", "env", "deployment/web", "FIRST=1")
	c.Kubectl("set", "env", "deployment/web", "SECOND=2")
	wantField(t, c, "deployment/web", ".status.observedGeneration", field(c, "deployment/web", ".metadata.generation"))
	wantField(t, c, "deployment/web", `.status.conditions[?(@.type=="Progressing")].reason`, "DeploymentPaused")
	if sets := c.Kubectl("get", "replicasets", "-o", "name"); strings.Count(sets, "\n") != 1 {
		t.Errorf("a paused Deployment was rolled out:\n%s", sets)
	}
	c.Kubectl("rollout", "resume", "deployment/web")
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	wantRevisions(t, c, "deployment/web", 1, 2)
	wantField(t, c, "pod", ".items[*].spec.containers[0].env[*].name", "FIRST SECOND") // once the pod before has ended
	c.Kubectl("set", "env", "deployment/web", "THIRD=3")
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	cluster.Eventually(t, func() error {
		if sets := c.Kubectl("get", "replicasets", "-o", "name"); strings.Count(sets, "\n") != 2 {
			return fmt.Errorf("one old ReplicaSet is wanted:\n%s", sets)
		}
		return nil
	})
	wantRevisions(t, c, "deployment/web", 2, 3)
}

// deploymentGrows: a Deployment that is scaled in the middle of a rollout keeps the proportion of its revisions, and one whose template changes then goes over to the
// newest at once. A pod is available when it has been ready for minReadySeconds.
func deploymentGrows(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("Deployment", "web", "  replicas: 2\n  minReadySeconds: 3\n  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}\n"))
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	ready := parseTime(t, field(c, "pods", `.items[0].status.conditions[?(@.type=="Ready")].lastTransitionTime`))
	available := parseTime(t, field(c, "deployment/web", `.status.conditions[?(@.type=="Available")].lastTransitionTime`))
	if took := available.Sub(ready); took < 2*time.Second { // both are whole seconds
		t.Errorf("available %s after a pod was ready", took)
	}
	c.Kubectl("set", "image", "deployment/web", "c=nowhere.invalid/none:1")
	cluster.Eventually(t, func() error {
		if got := bySet(c); got != "2 1" {
			return fmt.Errorf("replicas by revision: %s", got)
		}
		return nil
	})
	c.Kubectl("scale", "deployment/web", "--replicas=4")
	cluster.Eventually(t, func() error {
		if got := bySet(c); got != "3 2" {
			return fmt.Errorf("replicas by revision: %s", got)
		}
		return nil
	})
	c.Kubectl("set", "image", "deployment/web", "c=skiff.dev/web:1")
	c.Kubectl("set", "env", "deployment/web", "THIRD=3")
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	if got := bySet(c); !strings.HasSuffix(got, " 4") || strings.Trim(strings.TrimSuffix(got, " 4"), "0 ") != "" {
		t.Errorf("replicas by revision: %s", got)
	}
	wantField(t, c, "deployment/web", ".status.replicas}/{.status.availableReplicas}/{.status.updatedReplicas", "4/4/4")
}

// bySet is how many replicas each ReplicaSet wants, the older revisions first.
func bySet(c *cluster.Cluster) string {
	out := c.Kubectl("get", "replicasets", "--sort-by=.metadata.annotations.deployment\\.kubernetes\\.io/revision", "-o", "jsonpath={.items[*].spec.replicas}")
	return strings.TrimSpace(out)
}

// deploymentRecreates: no pod of the new revision is there before the last of the old one has ended.
func deploymentRecreates(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("Deployment", "web", "  replicas: 2\n  strategy: {type: Recreate}\n"))
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	all, err := c.Client().CoreV1().Pods("deploy-recreate").Watch(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Stop()
	c.Kubectl("set", "env", "deployment/web", "MESSAGE=second")
	old, made := map[string]string{}, 0
	for patience := time.After(cluster.Patience); made < 2; {
		select {
		case e := <-all.ResultChan():
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				t.Fatalf("the watch ended: %v", e)
			}
			updated := len(p.Spec.Containers[0].Env) > 0
			switch {
			case e.Type == watch.Deleted || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
				delete(old, p.Name)
			case !updated:
				old[p.Name] = string(p.Status.Phase)
			case e.Type == watch.Added:
				if made++; len(old) > 0 {
					t.Errorf("%s was made while %v had not ended", p.Name, old)
				}
			}
		case <-patience:
			t.Fatalf("%d of 2 pods were made; of the old, %v are there", made, old)
		}
	}
	rolledOut(t, c, "deployment/web", "successfully rolled out")
}

// deploymentStuck: a rollout that cannot go on says so and takes no more pods away than it may; its sets are scaled in proportion, and the next rollout
// does not wait for it.
func deploymentStuck(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("Deployment", "web", "  replicas: 4\n  strategy: {rollingUpdate: {maxSurge: 2, maxUnavailable: 1}}\n"))
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	patience := func(seconds string) {
		c.Kubectl("patch", "deployment", "web", "-p", `{"spec":{"progressDeadlineSeconds":`+seconds+`}}`)
	}
	patience("3")
	c.Kubectl("set", "image", "deployment/web", "c=nowhere.invalid/none:1")
	if out, err := c.TryKubectl("rollout", "status", "deployment/web", "--timeout=3m"); err == nil || !strings.Contains(out, "exceeded its progress deadline") {
		t.Errorf("rollout status of a rollout that cannot go on: %v\n%s", err, out)
	}
	wantField(t, c, "deployment/web", `.status.conditions[?(@.type=="Progressing")].reason}/{.status.availableReplicas}/{.status.updatedReplicas`, "ProgressDeadlineExceeded/3/3")
	sizes := func(want string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			got := c.Kubectl("get", "replicasets", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[*].spec.replicas}")
			if got != want {
				return fmt.Errorf("ReplicaSets of %s, want %s", got, want)
			}
			return nil
		})
	}
	sizes("3 3")
	c.Kubectl("scale", "deployment/web", "--replicas=8")
	sizes("5 5")
	c.Kubectl("scale", "deployment/web", "--replicas=4")
	sizes("3 3")
	patience("600")
	c.Kubectl("set", "image", "deployment/web", "c=skiff.dev/web:1")
	c.Kubectl("set", "env", "deployment/web", "MESSAGE=third")
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	c.Kubectl("wait", "pods", "-l", "app=web", "--for=condition=Ready", "--timeout=3m")
	if images := c.Kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"); regexp.MustCompile("nowhere").MatchString(images) {
		t.Errorf("images %s", images)
	}
}

// replicaSet: pods that match are taken over, those that do not match any more are let go, and what a quota holds back is told.
func replicaSet(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("ReplicaSet", "web", "  replicas: 1\n"))
	wantField(t, c, "replicaset/web", ".status.availableReplicas", "1")
	adopts(t, c, "replicaset/web", "app=web", "app")
	c.Kubectl("create", "quota", "few", "--hard=pods=2")
	wantField(t, c, "quota/few", ".status.used.pods", "2") // one that was let go
	c.Kubectl("scale", "replicaset/web", "--replicas=2")
	wantField(t, c, "replicaset/web", `.status.conditions[?(@.type=="ReplicaFailure")].reason`, "FailedCreate")
	c.Kubectl("scale", "replicaset/web", "--replicas=1")
	wantField(t, c, "replicaset/web", ".status.conditions", "")
}

// adopts takes a pod away from its owner, which has it back at once; and takes from it what its owner knows it by, which makes another.
func adopts(t *testing.T, c *cluster.Cluster, owner, selector, label string) {
	t.Helper()
	_, name, _ := strings.Cut(owner, "/")
	pod := podNames(t, c, selector)[0]
	uid := field(c, "pod/"+pod, ".metadata.uid")
	c.Kubectl("patch", "pod", pod, "--type=json", "-p", `[{"op": "remove", "path": "/metadata/ownerReferences"}]`)
	wantField(t, c, "pod/"+pod, ".metadata.uid}/{.metadata.ownerReferences[*].name", uid+"/"+name)
	c.Kubectl("label", "pod", pod, label+"-")
	wantField(t, c, "pod/"+pod, ".metadata.uid}/{.metadata.ownerReferences[*].name", uid+"/")
	cluster.Eventually(t, func() error {
		for _, p := range pods(t, c, selector) {
			if p.Name != pod {
				return nil
			}
		}
		return fmt.Errorf("%s has not made another pod for %s", owner, pod)
	})
}

func parseTime(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
