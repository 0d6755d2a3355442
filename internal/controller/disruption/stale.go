package disruption

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
)

// podKey is where pods that are said to be disrupted queue, beside the budgets: no budget's name has a slash.
const podKey = "pod/"

// disruptedPod wakes for a pod that says it is about to be disrupted and still is there.
func disruptedPod(current *corev1.Pod) []harness.Key {
	if current == nil || !doomed(current) {
		return nil
	}
	return []harness.Key{{Namespace: current.Namespace, Name: podKey + current.Name}}
}

func doomed(p *corev1.Pod) bool {
	c := podstate.Condition(p, corev1.DisruptionTarget)
	return c != nil && c.Status == corev1.ConditionTrue && podstate.Active(p)
}

// reprieve takes back what a pod says about its disruption when that came to nothing: whoever set out to delete it must have failed.
func (r *reconciler) reprieve(ctx context.Context, key harness.Key) (time.Duration, error) {
	p := &corev1.Pod{}
	if err := r.client.Get(ctx, harness.Key{Namespace: key.Namespace, Name: strings.TrimPrefix(key.Name, podKey)}, p); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if !doomed(p) {
		return 0, nil
	}
	if left := podstate.Condition(p, corev1.DisruptionTarget).LastTransitionTime.Add(grace).Sub(r.now()); left > 0 {
		return left, nil
	}
	p = p.DeepCopy()
	podstate.Set(&p.Status, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(r.now()), ObservedGeneration: p.Generation,
	})
	if err := crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, p)); err != nil {
		return 0, fmt.Errorf("take back the disruption of pod %s: %w", p.Name, err)
	}
	return 0, nil
}
