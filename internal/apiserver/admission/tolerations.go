package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/registry"
)

// outageSeconds is how long a pod stays on a node that isn't ready or can't be reached, unless it says otherwise.
const outageSeconds = 300

// defaultTolerations (DefaultTolerationSeconds) gives pods that say nothing about node outages upstream's five minutes.
func defaultTolerations(_ context.Context, a *registry.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || !is(a, "", "pods") || a.Operation != create && a.Operation != update {
		return nil
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !toleratesEviction(pod.Spec.Tolerations, key) {
			seconds := int64(outageSeconds)
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
			})
		}
	}
	return nil
}

func toleratesEviction(tolerations []corev1.Toleration, key string) bool {
	for _, t := range tolerations {
		if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}
