package schedulertest

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	plain    = kind("pod")
	fleeting = light("light-pod", withoutGrace)
	tooLarge = kind("pod-h", takes("9", "500Mi", false), important(10))
)

func basic(n func(int) int) []Workload {
	return []Workload{
		{Name: "SchedulingBasic/5000Nodes_10000Pods", Floor: 680, Steps: []Step{some(n(5000)), Pods{Count: n(1000), Shape: plain},
			Pods{Count: n(10000), Shape: plain, Measured: true}}},
		{Name: "SchedulingBasic/5000Nodes_50000Pods", Floor: 790, Steps: []Step{some(n(5000)), Pods{Count: n(5000), Shape: plain},
			Pods{Count: n(50000), Shape: plain, Measured: true}}},
		{Name: "SchedulingDaemonset/15000Nodes", Floor: 1100, Steps: []Step{one(), some(n(15000)),
			Pods{Count: n(30000), Shape: light("daemonset", onNode(single)), Measured: true}}},
		{Name: "SchedulingWithMixedChurn/5000Nodes_10000Pods", Floor: 710, Steps: []Step{classes(10), some(n(5000)),
			Churn{Every: time.Second, Slots: 1, Objects: func(k int) []Object {
				return []Object{nodeOf(fmt.Sprintf("node-churn-%d", k), "0", "0", "0"), podOf(tooLarge, "churn", k), serviceOf("churn", fmt.Sprintf("service-churn-%d", k), "foo", 8080)}
			}},
			Pods{Count: n(10000), Shape: plain, Measured: true}}},
		{Name: "SchedulingWhileGated/1Node_10000GatedPods", Floor: 910, Steps: []Step{one(),
			Pods{Count: n(10000), Shape: light("gated-pod", gated("test.k8s.io/hold")), Loose: true}, Tried{},
			Pods{Count: n(20000), Shape: fleeting, Namespace: "deleting"}, Remove{Namespace: "deleting", PerSecond: 50},
			Pods{Count: n(20000), Shape: fleeting, Measured: true}}},
		{Name: "SchedulingDeletedPodsWithFinalizers/5000Node_5000DeletingPods", Floor: 830, Steps: []Step{some(n(5000)),
			Pods{Count: n(5000), Shape: light("finalized", finalized), Namespace: "deleting", Loose: true}, Remove{Namespace: "deleting", PerSecond: 100},
			Pods{Count: n(5000), Shape: fleeting, Measured: true}}},
		{Name: "SchedulingWithExtendedResource/5000pods_5000nodes_DRAExtendedResourceEnabled", Floor: 180, Steps: []Step{
			some(n(5000), labelled("node-with-extended-resource=true"), func(node *corev1.Node, i int) {
				node.Status.Capacity[corev1.ResourceName(bar(i))] = resource.MustParse("1") // the same list as what is allocatable
			}),
			Pods{Count: n(5000), Shape: light("extended", asksFor(bar)), Measured: true}}},
	}
}

// bar is a resource of one node only.
func bar(i int) string { return fmt.Sprintf("foo.com/bar-%d", i) }

func finalized(p *corev1.Pod, _ int) { p.Finalizers = []string{"test.k8s.io/finalizer"} }

// onNode binds pods to a node by name, as a DaemonSet's are.
func onNode(name string) feature {
	return func(p *corev1.Pod, _ int) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}}}}}}
	}
}
