package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestRunsOf: which of a container's lives can be read, and by which name.
func TestRunsOf(t *testing.T) {
	ended := func(id string) *corev1.ContainerStateTerminated {
		return &corev1.ContainerStateTerminated{ContainerID: id}
	}
	running, waiting := &corev1.ContainerStateRunning{}, &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
	for name, tc := range map[string]struct {
		status corev1.ContainerStatus
		want   string
	}{
		"not begun":    {corev1.ContainerStatus{State: corev1.ContainerState{Waiting: waiting}}, ""},
		"begun":        {corev1.ContainerStatus{ContainerID: "a", State: corev1.ContainerState{Running: running}}, "a 0 running"},
		"ended":        {corev1.ContainerStatus{ContainerID: "a", State: corev1.ContainerState{Terminated: ended("a")}}, "a 0"},
		"again":        {corev1.ContainerStatus{ContainerID: "b", RestartCount: 1, State: corev1.ContainerState{Running: running}, LastTerminationState: corev1.ContainerState{Terminated: ended("a")}}, "a 0 previous, b 1 running"},
		"waits":        {corev1.ContainerStatus{ContainerID: "b", RestartCount: 1, State: corev1.ContainerState{Waiting: waiting}, LastTerminationState: corev1.ContainerState{Terminated: ended("b")}}, "b 1"},
		"never there":  {corev1.ContainerStatus{State: corev1.ContainerState{Terminated: ended("")}}, ""},
		"ended, twice": {corev1.ContainerStatus{ContainerID: "b", RestartCount: 1, State: corev1.ContainerState{Terminated: ended("b")}, LastTerminationState: corev1.ContainerState{Terminated: ended("a")}}, "a 0 previous, b 1"},
	} {
		var got []string
		for _, r := range runsOf(&corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{tc.status}}}) {
			one := fmt.Sprintf("%s %d", r.id, r.line.Restart)
			if r.previous {
				one += " previous"
			}
			if r.running {
				one += " running"
			}
			got = append(got, one)
		}
		if have := strings.Join(got, ", "); have != tc.want {
			t.Errorf("%s: %s, want %s", name, have, tc.want)
		}
	}
}

func TestStampedLines(t *testing.T) {
	long := strings.Repeat("x", longestLine)
	const stamp = "2026-01-02T03:04:05.6Z "
	var got []string
	err := stampedLines(strings.NewReader(stamp+"one\n"+stamp+"\n"+stamp+long+"\n"+stamp+"no end"), func(at time.Time, text []byte) error {
		if at.Format(time.RFC3339Nano) != strings.TrimSpace(stamp) {
			t.Errorf("%q at %s", text, at)
		}
		got = append(got, string(text))
		return nil
	})
	if want := []string{"one", "", long[len(stamp):], "x" + long[:len(stamp)-1], "no end"}; err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%v: %.80q", err, got)
	}
	if err := stampedLines(strings.NewReader("what\n"), func(time.Time, []byte) error { return nil }); err == nil || err.Error() != `a line without a time: "what\n"` {
		t.Errorf("%v", err)
	}
}
