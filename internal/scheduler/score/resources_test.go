package score

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	config "k8s.io/kube-scheduler/config/v1"

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

// What the strategies of NodeResourcesFit make of a node that is full, over-full, or without a resource, and of pods that request nothing, which are guessed to
// use a tenth of a CPU and 200 MiB a container.
func TestFitOfExtremes(t *testing.T) {
	bend := []config.UtilizationShapePoint{{Utilization: 20, Score: 30}, {Utilization: 60, Score: 70}, {Utilization: 80, Score: 10}}
	fit := func(kind config.ScoringStrategyType, names ...string) *profile.Strategy {
		s := &profile.Strategy{Type: kind, Shape: bend}
		for _, name := range names {
			s.Resources = append(s.Resources, config.ResourceSpec{Name: name, Weight: 1})
		}
		return s
	}
	const least, most, ratio = config.LeastAllocated, config.MostAllocated, config.RequestedToCapacityRatio
	for _, row := range []struct {
		what       string
		rules      *profile.Strategy
		there, pod string // CPU; "" requests nothing
		want       int64
	}{
		{"least: full", fit(least, "cpu"), "7", "3", 0},
		{"least: more than full", fit(least, "cpu"), "9", "3", 0},
		{"least: a guess", fit(least, "cpu"), "", "", 98},
		{"least: of the default", nil, "", "4", (59 + 96) / 2},
		{"most: full", fit(most, "cpu"), "7", "3", 100},
		{"most: more than full", fit(most, "cpu"), "9", "3", 100},
		{"most: a guess", fit(most, "memory"), "", "", 3},
		{"most: of what is requested, without a guess", fit(most, "ephemeral-storage"), "", "", 0},
		{"a resource that the node has not", fit(most, "example.com/none"), "7", "3", 0},
		{"one that it has not beside one that it has", fit(most, "example.com/none", "cpu"), "7", "1", 80},
		{"ratio: before the first point", fit(ratio, "cpu"), "1", "0", 30},
		{"ratio: on a point", fit(ratio, "cpu"), "3", "3", 70},
		{"ratio: between two, up", fit(ratio, "cpu"), "2", "2", 50},
		{"ratio: between two, down", fit(ratio, "cpu"), "4", "3", 40},
		{"ratio: after the last", fit(ratio, "cpu"), "7", "3", 10},
		{"ratio: more than full", fit(ratio, "cpu"), "9", "3", 10},
		{"ratio: rounded", fit(ratio, "cpu", "memory"), "2", "550m", 33}, // of 35 and 30
	} {
		n := cluster.New()
		n.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			"cpu": resource.MustParse("10"), "memory": resource.MustParse("10Gi"), "ephemeral-storage": resource.MustParse("10Gi")}}})
		pod := func(uid types.UID, cpu string) *cluster.Pod {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Spec: corev1.PodSpec{Containers: []corev1.Container{{}}}}
			if cpu != "" {
				p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(cpu)}
			}
			return cluster.PodOf(p)
		}
		n.Place(pod("there", row.there), "n")
		p := pod("new", row.pod)
		p.Profile = &profile.Profile{Fit: row.rules, Weights: profile.Weights{NodeResourcesFit: 1}}
		if got := Load(p, n, 0); got != row.want {
			t.Errorf("%s: %d, want %d", row.what, got, row.want)
		}
	}
}
