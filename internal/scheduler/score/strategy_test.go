package score

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	config "k8s.io/kube-scheduler/config/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// Of a resource that no plug-in has, devices count; of the others they do not.
func TestStrategiesByDevices(t *testing.T) {
	n := cluster.New()
	list := func(cpu, gadgets string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(cpu), "example.com/gadget": resource.MustParse(gadgets)}
	}
	n.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "devices"}, Status: corev1.NodeStatus{Allocatable: list("10", "0")}})
	n.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "plug-in"}, Status: corev1.NodeStatus{Allocatable: list("10", "4")}})
	p := cluster.PodOf(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("4", "1")}}}}})
	devices := func(r corev1.ResourceName) (used, all int64) { return 3, 8 } // of which the pod takes one
	fit := profile.Profile{Fit: &profile.Strategy{Type: config.MostAllocated, Resources: []config.ResourceSpec{{Name: "cpu", Weight: 1}, {Name: "example.com/gadget", Weight: 1}}},
		Weights: profile.Weights{NodeResourcesFit: 2}}
	balanced := profile.Profile{Balanced: []string{"cpu", "example.com/gadget"}, Weights: profile.Weights{NodeResourcesBalancedAllocation: 3}}
	for _, tt := range []struct {
		rules  profile.Profile
		backed []corev1.ResourceName
		node   int
		want   int64
		counts bool
	}{
		{fit, []corev1.ResourceName{"example.com/gadget"}, 0, 2 * ((40+50)/2 - 40), true},
		{fit, []corev1.ResourceName{"example.com/gadget"}, 1, 0, true},
		{fit, nil, 0, 0, false},
		{balanced, []corev1.ResourceName{"example.com/gadget"}, 0, 3 * (50 + (50+95-81)/2 - 75), true},
		{balanced, []corev1.ResourceName{"example.com/gadget"}, 1, 0, true},
		{profile.Profile{Balanced: balanced.Balanced}, []corev1.ResourceName{"example.com/gadget"}, 0, 0, false},
		{profile.Profile{Fit: fit.Fit}, []corev1.ResourceName{"example.com/gadget"}, 0, 0, false},
	} {
		p.Profile, p.Backed = &tt.rules, tt.backed
		if got, counts := ByDevices(p, n, tt.node, devices), CountsDevices(p); got != tt.want || counts != tt.counts {
			t.Errorf("%+v on %s: %d, want %d; counts: %t", tt.rules, n.Name(tt.node), got, tt.want, counts)
		}
	}
	if p.Profile = nil; CountsDevices(p) {
		t.Error("devices count without a profile")
	}
}

// A node of 10 CPU, 10 GiB and 4 gadgets; with the pod there, 4 CPU, 8 GiB and 1 gadget are used.
func TestStrategies(t *testing.T) {
	n := cluster.New()
	list := func(cpu, memory, gadgets string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory), "example.com/gadget": resource.MustParse(gadgets)}
	}
	n.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: list("10", "10Gi", "4")}})
	p := cluster.PodOf(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("4", "8Gi", "1")}}}}})
	gadgets := []config.ResourceSpec{{Name: "cpu", Weight: 1}, {Name: "example.com/gadget", Weight: 3}, {Name: "example.com/unknown", Weight: 9}}
	both := []config.ResourceSpec{{Name: "cpu", Weight: 1}, {Name: "memory", Weight: 1}}
	for _, one := range []struct {
		name  string
		rules profile.Profile
		want  int64
	}{
		{"least", profile.Profile{Fit: &profile.Strategy{Type: config.LeastAllocated, Resources: gadgets}}, (60 + 3*75) / 4},
		{"most", profile.Profile{Fit: &profile.Strategy{Type: config.MostAllocated, Resources: both}}, (40 + 80) / 2},
		{"ratio", profile.Profile{Fit: &profile.Strategy{Type: config.RequestedToCapacityRatio, Resources: both, Shape: []config.UtilizationShapePoint{
			{Utilization: 0, Score: 0}, {Utilization: 50, Score: 100}, {Utilization: 100, Score: 0}}}}, (80 + 40) / 2},
		{"ratio leaves out what is worth nothing", profile.Profile{Fit: &profile.Strategy{Type: config.RequestedToCapacityRatio, Resources: both,
			Shape: []config.UtilizationShapePoint{{Utilization: 40, Score: 0}, {Utilization: 80, Score: 70}}}}, 70},
		{"balanced over two", profile.Profile{Balanced: []string{"cpu", "example.com/gadget"}}, 71},
		{"balanced over three", profile.Profile{Balanced: []string{"cpu", "memory", "example.com/gadget"}}, 63},
	} {
		rules := one.rules
		if rules.Balanced == nil {
			rules.NodeResourcesFit = 1
		} else {
			rules.NodeResourcesBalancedAllocation = 1
		}
		p.Profile = &rules
		if got := Load(p, n, 0); got != one.want {
			t.Errorf("%s: %d, want %d", one.name, got, one.want)
		}
		rules.NodeResourcesFit, rules.NodeResourcesBalancedAllocation = 10*rules.NodeResourcesFit, 10*rules.NodeResourcesBalancedAllocation
		if got := Load(p, n, 0); got != 10*one.want {
			t.Errorf("%s, weighted: %d, want %d", one.name, got, 10*one.want)
		}
	}
}
