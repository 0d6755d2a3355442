package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func list(cpu, memory string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for name, text := range map[corev1.ResourceName]string{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory} {
		if text != "" {
			l[name] = resource.MustParse(text)
		}
	}
	return l
}

func asking(uid, cpu, memory string) *corev1.Pod {
	p := &corev1.Pod{}
	p.UID = "u"
	if uid != "" {
		p.UID = "other"
	}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: list(cpu, memory)}}}
	return p
}

func TestFits(t *testing.T) {
	others := []*corev1.Pod{asking("", "2", "1Gi"), asking("other", "1", "1Gi")}
	for _, tt := range []struct{ cpu, memory, reason, message string }{
		{"1", "1Gi", "", ""},
		{"3", "1Gi", "Infeasible", "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"},
		{"1500m", "1Gi", "Deferred", "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"},
		{"1", "3Gi", "Deferred", "Node didn't have enough resource: memory, requested: 3221225472, used: 1073741824, capacity: 3758096384"},
	} {
		reason, message := fits(asking("", tt.cpu, tt.memory), others, list("2", "3.5Gi"))
		if reason != tt.reason || message != tt.message {
			t.Errorf("%s %s: %q %q", tt.cpu, tt.memory, reason, message)
		}
	}
}

// TestAllocated: a kubelet that starts again goes by what the status says was given.
func TestAllocated(t *testing.T) {
	p := asking("", "2", "1Gi")
	s := &State{}
	if withAllocated(p, s) != p {
		t.Error("a pod without a status has what it asks for")
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "c", ContainerID: "x", AllocatedResources: list("1", ""), Resources: &corev1.ResourceRequirements{Limits: list("3", "")},
	}}
	got := withAllocated(p, s).Spec.Containers[0].Resources
	if got.Requests.Cpu().String() != "1" || got.Limits.Cpu().String() != "3" || len(got.Requests) != 1 {
		t.Errorf("%v", got)
	}
	if p.Spec.Containers[0].Resources.Requests.Cpu().String() != "2" {
		t.Error("the pod itself changed")
	}
}

// TestAllocatedAsAWhole: what a pod as a whole was given is remembered, or read from the status; containers without limits have the pod's.
func TestAllocatedAsAWhole(t *testing.T) {
	p := asking("", "", "")
	p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("2", "")}
	p.Status.AllocatedResources = list("1", "1Gi")
	p.Status.Resources = &corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("2", "")}
	if withAllocated(p, &State{}) != p {
		t.Error("it has what it asks for")
	}
	p.Spec.Resources.Limits = list("3", "2Gi")
	for how, s := range map[string]*State{"status": {}, "memory": {Allocated: map[string]corev1.ResourceRequirements{whole: {Requests: list("1", "1Gi"), Limits: list("2", "")}}}} {
		got := withAllocated(p, s)
		if r := got.Spec.Resources; r.Limits.Cpu().String() != "2" || len(r.Limits) != 1 || r.Requests.Memory().String() != "1Gi" {
			t.Errorf("by its %s it has %v", how, r)
		}
		if size := sizeOf(got, &got.Spec.Containers[0]); size.Quota != 200_000 || size.Memory != 0 {
			t.Errorf("by its %s the container has %v", how, size)
		}
	}
	if size := sizeOf(p, &p.Spec.Containers[0]); size.Quota != 300_000 || size.Memory != 2<<30 {
		t.Errorf("the container is to have %v", size)
	}
}

func TestUnsized(t *testing.T) {
	pod := &corev1.Pod{}
	c := &corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Limits: list("10m", "")}}
	last := &Container{ID: "x", State: runtimeapi.ContainerState_CONTAINER_RUNNING, Size: &Size{Shares: 10, Quota: 1000}}
	s := &State{}
	if unsized(pod, c, last, s) {
		t.Error("it has what it should")
	}
	c.Resources.Limits = list("20m", "")
	if !unsized(pod, c, last, s) {
		t.Error("it has less than it should")
	}
	s.Sized = map[string]Size{"x": sizeOf(pod, c)}
	if unsized(pod, c, last, s) {
		t.Error("the runtime has been told")
	}
}
