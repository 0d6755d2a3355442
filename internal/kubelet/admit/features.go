package admit

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/kubelet/pod"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

// Unsupported says which features a pod needs that its node doesn't declare (KEP-5328); nil if there are none.
func Unsupported(one *corev1.Pod, declared []string) *pod.Verdict {
	missing := filter.Undeclared(cluster.PodOf(one), declared)
	if len(missing) == 0 {
		return nil
	}
	return &pod.Verdict{Reason: "PodFeatureUnsupported", Message: "Pod requires node features that are not available: " + strings.Join(missing, ", ")}
}
