package pod

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	corev1 "k8s.io/api/core/v1"
)

// TestEnds: each end counts once, however often and wherever the status tells of it; what the API knew before doesn't.
func TestEnds(t *testing.T) {
	ended := func(id, reason string, code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id, Reason: reason, ExitCode: code}}
	}
	status := func(of ...corev1.ContainerStatus) *corev1.PodStatus { return &corev1.PodStatus{ContainerStatuses: of} }
	counter, seen := NewEnds(), endsSeen{}

	seen.add(status(corev1.ContainerStatus{Name: "a", State: ended("a1", "Error", 1)}), nil)
	seen.add(status(corev1.ContainerStatus{Name: "a", State: ended("a1", "Error", 1)}), counter)
	seen.add(status(corev1.ContainerStatus{Name: "a", ContainerID: "a2", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, LastTerminationState: ended("a1", "Error", 1)}), counter)
	seen.add(status(corev1.ContainerStatus{Name: "a", State: ended("a2", "Error", 1), LastTerminationState: ended("a1", "Error", 1)}), counter)
	seen.add(status(corev1.ContainerStatus{Name: "a", LastTerminationState: ended("a2", "Error", 1)}), counter)
	seen.add(status(corev1.ContainerStatus{Name: "a", State: ended("a4", "Error", 1), LastTerminationState: ended("a2", "Error", 1)}), counter)
	lost := status(corev1.ContainerStatus{Name: "a", ContainerID: "a3", State: ended("", "ContainerStatusUnknown", 137)})
	lost.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", State: ended("i1", "Completed", 0)}}
	lost.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "e", State: ended("e1", "OOMKilled", 137)}}
	seen.add(lost, counter)
	seen.add(lost, counter)

	registry := prometheus.NewRegistry()
	registry.MustRegister(counter)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d kinds of figures, %v", len(families), err)
	}
	var out strings.Builder
	if _, err := expfmt.MetricFamilyToText(&out, families[0]); err != nil {
		t.Fatal(err)
	}
	want := `# HELP kubelet_terminated_containers_total Cumulative number of containers that ended, well or not, by their exit code.
# TYPE kubelet_terminated_containers_total counter
kubelet_terminated_containers_total{container_type="container",exit_code="1",reason="Error"} 2
kubelet_terminated_containers_total{container_type="container",exit_code="137",reason="ContainerStatusUnknown"} 1
kubelet_terminated_containers_total{container_type="ephemeral_container",exit_code="137",reason="OOMKilled"} 1
kubelet_terminated_containers_total{container_type="init_container",exit_code="0",reason="Completed"} 1
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
