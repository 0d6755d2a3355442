package test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
	"skiff.dev/skiff/test/cluster"
)

// gangManifest is a PodGroup that needs three pods.
const gangManifest = `
apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {name: training}
spec: {schedulingPolicy: {gang: {minCount: 3}}}
`

func gangPod(k int) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: worker-%d, labels: {app: worker}}
spec:
  schedulingGroup: {podGroupName: training}
  containers: [{name: c, image: web, resources: {requests: {cpu: "20"}}}]
`, k)
}

// TestGangs has a gang wait for its pods, then for room, be killed amid that, and go together.
func TestGangs(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--controllers=serviceaccount-controller,podgroup-protection-controller", "--runtime-config=scheduling.k8s.io/v1beta1=true")
	c.Server()
	cs := fast(t, c)
	for i := range 2 {
		hollow(t, cs, schedulertest.Node(i)) // each has 32 CPUs
	}
	until := func(what, want string, args ...string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if got, err := c.TryKubectl(args...); err != nil || strings.TrimSpace(got) != want {
				return fmt.Errorf("%s: %q (%v), want %q", what, got, err, want)
			}
			return nil
		})
	}
	nodes := func(want string) {
		t.Helper()
		until("nodes of the pods", want, "get", "pods", "-l", "app=worker", "-o", `jsonpath={range .items[*]}{.spec.nodeName}{";"}{end}`)
	}
	cluster.Eventually(t, func() error {
		_, err := c.TryKubectl("get", "serviceaccount", "default")
		return err
	})
	if got := c.Kubectl("api-resources", "--api-group=scheduling.k8s.io", "-o", "name"); !strings.Contains(got, "podgroups.scheduling.k8s.io") || !strings.Contains(got, "workloads.scheduling.k8s.io") {
		t.Errorf("served: %s", got)
	}
	c.Apply(gangPod(0))
	c.Apply(gangManifest)
	c.Apply(gangPod(1))
	cluster.Eventually(t, func() error {
		got, err := c.Skiff("explain", "pod", "worker-1")
		if want := "PodGroup training has 2 of the 3 pods that it needs at least"; err != nil || !strings.Contains(got, want) || !strings.Contains(got, "waits for its group") {
			return fmt.Errorf("%s (%v), want %q", got, err, want)
		}
		return nil
	})
	condition := func(name string) []string {
		return []string{"get", "pod", name, "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}: {.status.conditions[?(@.type=="PodScheduled")].message}`}
	}
	until("why it waits", "NotReadyForScheduling: waiting for minCount pods from a gang to appear in scheduling queue", condition("worker-0")...)

	c.Apply(gangPod(2)) // two find a node of their own, and the third none
	const short = "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining"
	until("the group's condition", "False Unschedulable "+short, "get", "podgroup", "training", "-o", `jsonpath={.status.conditions[0].status} {.status.conditions[0].reason} {.status.conditions[0].message}`)
	until("why it waits", "Unschedulable: "+short, condition("worker-0")...)
	until("why it waits", "Unschedulable: 0/2 nodes are available: 2 Insufficient cpu.", condition("worker-2")...)
	nodes(";;;")
	create(t, cs, asking("other", "12")) // which is not in anybody's way
	until("the node of another pod", "bound", "get", "pod", "other", "-o", "go-template={{if .spec.nodeName}}bound{{end}}")

	c.Kill()
	c.Server()
	nodes(";;;")
	hollow(t, cs, schedulertest.Node(2))
	cluster.Eventually(t, func() error {
		got, err := c.TryKubectl("get", "pods", "-l", "app=worker", "-o", `jsonpath={range .items[*]}{.spec.nodeName}{"\n"}{end}`)
		if on := strings.Fields(got); err != nil || len(on) != 3 || on[0] == on[1] || on[0] == on[2] || on[1] == on[2] {
			return fmt.Errorf("pods on %v (%v)", on, err)
		}
		return nil
	})
	if got := strings.Fields(c.Kubectl("get", "podgroups")); len(got) < 10 || got[1] != "POLICY" || got[6] != "Gang" || got[7] != "3" {
		t.Errorf("columns: %v", got)
	}
	until("the group's condition", "True Scheduled", "get", "podgroup", "training", "-o", `jsonpath={.status.conditions[0].status} {.status.conditions[0].reason}`)

	c.Kubectl("delete", "podgroup", "training", "--wait=false")
	until("the group that is protected", "scheduling.k8s.io/podgroup-protection", "get", "podgroup", "training", "-o", "jsonpath={.metadata.finalizers[*]}")
	c.Kubectl("delete", "pods", "-l", "app=worker", "--force", "--grace-period=0")
	until("the groups left", "", "get", "podgroups", "-o", "name")
}

// groupsNotServed: where nobody asked for groups there are none, and pods lose what they say of one.
func groupsNotServed(t *testing.T, c *cluster.Cluster) {
	if got := c.Kubectl("api-resources", "--api-group=scheduling.k8s.io", "-o", "name"); strings.TrimSpace(got) != "priorityclasses.scheduling.k8s.io" {
		t.Errorf("served: %s", got)
	}
	cs, p := fast(t, c), asking("alone", "1")
	p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: new("training")}
	create(t, cs, p)
	got, err := cs.CoreV1().Pods("default").Get(context.Background(), p.Name, metav1.GetOptions{})
	if err != nil || got.Spec.SchedulingGroup != nil {
		t.Errorf("the pod has the group %v (%v)", got.Spec.SchedulingGroup, err)
	}
	c.Kubectl("delete", "pod", p.Name, "--grace-period=0", "--force")
}
