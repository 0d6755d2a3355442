package test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
	"skiff.dev/skiff/test/cluster"
)

// TestUIPending: the page of a pod that has no node says what skiff explain says, node by node, and goes with what changes.
func TestUIPending(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--controllers=serviceaccount-controller")
	c.Server()
	cs := fast(t, c)
	for i := range 4 {
		n := schedulertest.Node(i)
		n.Spec.Unschedulable = i == 3
		hollow(t, cs, n)
	}
	c.Kubectl("taint", "node", "hollow-00002", "gpu=a100:NoSchedule")
	at := func(p *corev1.Pod, node string) *corev1.Pod {
		p.Spec.NodeName = node
		return p
	}
	create(t, cs, at(asking("web-0", "31"), "hollow-00000"))
	create(t, cs, at(asking("web-1", "20"), "hollow-00001"))
	create(t, cs, at(asking("web-2", "10"), "hollow-00001"))
	create(t, cs, asking("big", "2500m"))
	create(t, cs, asking("huge", "640"))
	apart := asking("apart", "1")
	apart.Labels = map[string]string{"app": "db"}
	apart.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": "hollow-00000"}
	apart.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
		{TopologyKey: "kubernetes.io/hostname", LabelSelector: &metav1.LabelSelector{}}}}}
	create(t, cs, apart)
	foreign := asking("foreign", "1")
	foreign.Spec.SchedulerName = "typo"
	create(t, cs, foreign)
	gated := asking("gated", "1")
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/quota"}}
	create(t, cs, gated)

	b := browse(t, c)
	uiSignIn(b)
	for _, k := range []struct{ pod, want string }{
		{"big", "Nearest: fits on hollow-00001 if 500m CPU were free."},
		{"big", "cpu: 2500m asked, 2 of 32 free (default/web-1 20, default/web-2 10)"},
		{"big", "Preemption: no pod is less important than this one (priority 0)."},
		{"big", "not tolerated: gpu=a100:NoSchedule"},
		{"big", "Tried once, last"},
		{"huge", "Nearest: no node is large enough, even empty: hollow-00000, the nearest to it, has 32 CPU in all, and the pod asks for 640."},
		{"apart", "kubernetes.io/hostname=hollow-00000 has 1 pod that it must not be with (any): default/web-0"},
		{"foreign", `Its schedulerName is "typo", and this scheduler places only pods of default-scheduler`},
		{"gated", "It waits until its scheduling gates are removed: example.com/quota."},
	} {
		b.goTo("pod/default/" + k.pod)
		b.sees("main h1", k.pod)
		b.sees(".explained", k.want)
		b.keepPicture("pending-" + k.pod)
	}
	b.goTo("pod/default/big")
	b.sees(".explained", "fits on hollow-00001 if 500m CPU were free")
	c.Kubectl("uncordon", "hollow-00003")
	cluster.Eventually(t, func() error {
		if node := c.Kubectl("get", "pod", "big", "-o", "jsonpath={.spec.nodeName}"); node != "hollow-00003" {
			return fmt.Errorf("it is on %q", node)
		}
		return nil
	})
}
