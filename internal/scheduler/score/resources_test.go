package score

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// On a node of 10 CPU and 10 GiB, what counts is what a pod makes of the balance it finds: three quarters of the best where it changes nothing.
func TestBalance(t *testing.T) {
	for _, row := range []struct {
		what       string
		there, pod [2]string // CPU, memory
		memory     string    // of the node
		want       int64
	}{
		{what: "an empty node, and as much of both", there: [2]string{"0", "0"}, pod: [2]string{"4", "4Gi"}, want: 75},
		{what: "an empty node, and more of one", there: [2]string{"0", "0"}, pod: [2]string{"4", "8Gi"}, want: 65},
		{what: "what was missing", there: [2]string{"4", "0"}, pod: [2]string{"0", "4Gi"}, want: 85},
		{what: "still more of what there is more of", there: [2]string{"4", "0"}, pod: [2]string{"4", "0"}, want: 65},
		{what: "more than there is counts as all", there: [2]string{"20", "8Gi"}, pod: [2]string{"1", "2Gi"}, want: 80},
		{what: "a node without memory", there: [2]string{"1", "0"}, pod: [2]string{"4", "1Gi"}, memory: "0", want: 75},
		{what: "a pod that requests nothing", there: [2]string{"4", "0"}, pod: [2]string{"0", "0"}, want: 0},
	} {
		memory := row.memory
		if memory == "" {
			memory = "10Gi"
		}
		list := func(q [2]string) corev1.ResourceList {
			return corev1.ResourceList{"cpu": resource.MustParse(q[0]), "memory": resource.MustParse(q[1])}
		}
		pod := func(uid string, q [2]string) *cluster.Pod {
			p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list(q)}}}}}
			p.Name, p.UID = uid, "uid"
			return cluster.PodOf(p)
		}
		n := cluster.New()
		n.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: list([2]string{"10", memory})}})
		n.Place(pod("there", row.there), "n")
		for _, resources := range [][]string{nil, {"cpu", "memory", "example.com/unknown"}} {
			p := pod("new", row.pod)
			p.Profile = &profile.Profile{Balanced: resources, Weights: profile.Weights{NodeResourcesBalancedAllocation: 1}}
			if got := Load(p, n, 0); got != row.want {
				t.Errorf("%s, over %v: %d, want %d", row.what, resources, got, row.want)
			}
		}
	}
}
