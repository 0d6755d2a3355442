package score

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

func node(name string, change func(n *corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
		"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}}}
	if change != nil {
		change(n)
	}
	return n
}

func TestChoose(t *testing.T) {
	owned := []metav1.OwnerReference{{UID: "owner", Controller: new(true)}}
	for _, tt := range []struct {
		name   string
		worse  func(n *corev1.Node)
		better func(n *corev1.Node)
		onBad  *corev1.PodSpec
		spec   corev1.PodSpec
	}{
		{name: "the emptier", onBad: &corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("4Gi")}}}}}},
		{name: "the balanced", onBad: &corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("3")}}}}}},
		{name: "the one without a soft taint", worse: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectPreferNoSchedule}}
		}},
		{name: "the preferred", spec: corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: corev1.NodeSelectorTerm{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "name", Operator: corev1.NodeSelectorOpIn, Values: []string{"better"}}}}}}}}}},
		{name: "the one with the image", spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "web"}}}, better: func(n *corev1.Node) {
			n.Status.Images = []corev1.ContainerImage{{Names: []string{"web:latest"}, SizeBytes: 900 << 20}}
		}},
		{name: "the one without a sibling", onBad: &corev1.PodSpec{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for turn := range 4 {
				n := cluster.New()
				n.Set(node("worse", tt.worse))
				n.Set(node("better", tt.better))
				if tt.onBad != nil {
					n.Place(cluster.PodOf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "there", OwnerReferences: owned}, Spec: *tt.onBad}), "worse")
				}
				p := cluster.PodOf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "new", OwnerReferences: owned}, Spec: tt.spec})
				if got := n.Node[Choose(p, n, []int{0, 1}, turn)].Name; got != "better" {
					t.Errorf("turn %d: chose %s", turn, got)
				}
			}
		})
	}
}

func TestEqualsAreTakenInTurn(t *testing.T) {
	n := cluster.New()
	n.Set(node("a", nil))
	n.Set(node("b", nil))
	p := cluster.PodOf(&corev1.Pod{})
	if Choose(p, n, []int{0, 1}, 0) == Choose(p, n, []int{0, 1}, 1) {
		t.Error("the same of two equal nodes twice")
	}
}
