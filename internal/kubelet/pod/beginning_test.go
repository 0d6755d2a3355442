package pod

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The start of a container that somebody will attach to is told a glance later, and no other.
func TestBeginning(t *testing.T) {
	interactive := corev1.EphemeralContainerCommon{Name: "debugger", Stdin: true}
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Containers:          []corev1.Container{{Name: "shell", Stdin: true}, {Name: "web"}},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: interactive}},
	}}
	start := time.Unix(1_790_000_000, 5)
	const running, exited = runtimeapi.ContainerState_CONTAINER_RUNNING, runtimeapi.ContainerState_CONTAINER_EXITED
	for what, c := range map[string]struct {
		name  string
		state runtimeapi.ContainerState
		ran   time.Duration
		held  bool
	}{
		"just begun":                      {"shell", running, glance - 1, true},
		"an ephemeral one":                {"debugger", running, 0, true},
		"ended":                           {"shell", exited, glance - 1, false},
		"long since":                      {"shell", running, glance, false},
		"the clock was set back":          {"shell", running, -time.Hour, false},
		"nobody attaches to it":           {"web", running, 0, false},
		"the pod's spec no longer has it": {"former", running, 0, false},
	} {
		s := &State{Observed: Observed{Containers: []Container{{Name: c.name, State: c.state, Started: start}}}}
		at := beginning(pod, s, start.Add(c.ran))
		if c.held != at.Equal(start.Add(glance)) || c.held == at.IsZero() {
			t.Errorf("%s: told at %v", what, at)
		}
	}
}
