package cluster

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// amounts are CPU, memory in MiB and what is called something else.
func amounts(cpu, memory string, others ...corev1.ResourceName) corev1.ResourceList {
	list := corev1.ResourceList{}
	if cpu != "" {
		list[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		list[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	for _, name := range others {
		list[name] = resource.MustParse("2")
	}
	return list
}

func asking(list corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Requests: list}}
}

// What a pod takes of a node, what it is guessed to use when nodes are compared, and what else it takes.
func TestSumsOfPods(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	sidecar := func(c corev1.Container) corev1.Container { c.RestartPolicy = &always; return c }
	spec := func(init []corev1.Container, containers ...corev1.Container) corev1.PodSpec {
		return corev1.PodSpec{InitContainers: init, Containers: containers}
	}
	one := spec(nil, asking(amounts("1", "100Mi")))
	status := func(allocated, actual corev1.ResourceList, resize ...string) corev1.PodStatus {
		s := corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "c", AllocatedResources: allocated, Resources: &corev1.ResourceRequirements{Requests: actual}}}}
		for _, reason := range resize {
			s.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: reason}}
		}
		return s
	}
	for _, row := range []struct {
		what   string
		spec   corev1.PodSpec
		status corev1.PodStatus
		want   string // milli CPU, MiB of memory, ephemeral storage; likewise guessed; others
	}{
		{"containers together", spec(nil, asking(amounts("1", "100Mi")), asking(amounts("500m", "50Mi"))), corev1.PodStatus{}, "1500 150 0, 1500 150, map[]"},
		{"nothing", spec(nil, asking(nil), asking(nil)), corev1.PodStatus{}, "0 0 0, 200 400, map[]"},
		{"nothing of one", spec(nil, asking(amounts("1", ""))), corev1.PodStatus{}, "1000 0 0, 1000 200, map[]"},
		{"none, said so", spec(nil, asking(amounts("0", "0"))), corev1.PodStatus{}, "0 0 0, 0 0, map[]"},
		{"other resources", spec(nil, asking(amounts("1", "", "ephemeral-storage", "hugepages-2Mi", "e.com/a")), asking(amounts("1", "", "e.com/a"))), corev1.PodStatus{},
			"2000 0 2, 2000 400, map[e.com/a:4 hugepages-2Mi:2]"},
		{"an init container that needs more", spec([]corev1.Container{asking(amounts("3", "10Mi"))}, asking(amounts("1", "100Mi"))), corev1.PodStatus{}, "3000 100 0, 3000 100, map[]"},
		{"init containers one after the other", spec([]corev1.Container{asking(amounts("3", "")), asking(amounts("2", "300Mi"))}, asking(amounts("1", "100Mi"))), corev1.PodStatus{},
			"3000 300 0, 3000 300, map[]"},
		{"a sidecar", spec([]corev1.Container{sidecar(asking(amounts("1", "10Mi")))}, asking(amounts("1", "100Mi"))), corev1.PodStatus{}, "2000 110 0, 2000 110, map[]"},
		{"an init container beside a sidecar", spec([]corev1.Container{sidecar(asking(amounts("1", "10Mi"))), asking(amounts("3", "10Mi"))}, asking(amounts("1", "100Mi"))), corev1.PodStatus{},
			"4000 110 0, 4000 110, map[]"},
		{"an init container before a sidecar", spec([]corev1.Container{asking(amounts("3", "10Mi")), sidecar(asking(amounts("1", "10Mi")))}, asking(amounts("1", "100Mi"))), corev1.PodStatus{},
			"3000 110 0, 3000 110, map[]"},
		{"overhead", func() corev1.PodSpec {
			s := spec(nil, asking(amounts("1", "")))
			s.Overhead = amounts("250m", "64Mi")
			return s
		}(), corev1.PodStatus{},
			"1250 64 0, 1250 264, map[]"},
		{"the pod's own", func() corev1.PodSpec {
			s := spec(nil, asking(amounts("1", "100Mi", "e.com/a")))
			s.Resources = &corev1.ResourceRequirements{Requests: amounts("3", "")}
			return s
		}(), corev1.PodStatus{}, "3000 100 0, 3000 100, map[e.com/a:2]"},
		{"resized to less, not yet", one, status(amounts("2", "300Mi"), amounts("2", "300Mi")), "2000 300 0, 2000 300, map[]"},
		{"resized to more, not yet", one, status(amounts("500m", "50Mi"), amounts("500m", "50Mi")), "1000 100 0, 1000 100, map[]"},
		{"resized to less, on the way", one, status(amounts("1", "100Mi"), amounts("2", "300Mi")), "2000 300 0, 2000 300, map[]"},
		{"resized to what cannot be", one, status(amounts("500m", "50Mi"), amounts("500m", "50Mi"), corev1.PodReasonInfeasible), "500 50 0, 500 50, map[]"},
		{"resized to what cannot be now", one, status(amounts("500m", "50Mi"), amounts("500m", "50Mi"), corev1.PodReasonDeferred), "1000 100 0, 1000 100, map[]"},
	} {
		p := PodOf(&corev1.Pod{Spec: row.spec, Status: row.status})
		got := fmt.Sprintf("%d %d %d, %d %d, %v", p.Requests[CPU], p.Requests[Memory]>>20, p.Requests[Ephemeral], p.Estimate[CPU], p.Estimate[Memory]>>20, p.Extended)
		if got != row.want || p.Requests[Pods] != 1 {
			t.Errorf("%s: %s, want %s", row.what, got, row.want)
		}
	}
}

// Host ports are those of containers that run at the same time, each on an address and by a protocol, TCP if none is named.
func TestPortsOfPods(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	with := func(ports ...corev1.ContainerPort) corev1.Container { return corev1.Container{Ports: ports} }
	sidecar := with(corev1.ContainerPort{HostPort: 3})
	sidecar.RestartPolicy = &always
	p := PodOf(&corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{with(corev1.ContainerPort{HostPort: 9}), sidecar}, Containers: []corev1.Container{
		with(corev1.ContainerPort{ContainerPort: 8}, corev1.ContainerPort{HostPort: 1, HostIP: "0.0.0.0", Protocol: corev1.ProtocolUDP}, corev1.ContainerPort{HostPort: 2, HostIP: "::1"})}}})
	if got, want := fmt.Sprint(p.Ports), "[{ UDP 1} {::1 TCP 2} { TCP 3}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
