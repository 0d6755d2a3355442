// Package podgroupprotection lets a PodGroup go only once its pods are over: admission has given it a finalizer, and this controller takes that away when the
// group's deletion has begun and no pod of it is left that has not ended.
package podgroupprotection

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/protection"
)

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{c}
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&corev1.Pod{}, podChanged),
			harness.On(&schedulingv1beta1.PodGroup{}, protection.Leaving[*schedulingv1beta1.PodGroup](api.PodGroupFinalizer)),
		},
		Reconcile: r.group,
	}
}

type reconciler struct{ client client.Client }

// podChanged wakes the group of a pod that went or ended.
func podChanged(old, current *corev1.Pod) []harness.Key {
	if old == nil || over(old) || current != nil && !over(current) {
		return nil
	}
	if name := api.PodGroupName(old); name != "" {
		return []harness.Key{{Namespace: old.Namespace, Name: name}}
	}
	return nil
}

func over(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func (r *reconciler) group(ctx context.Context, key harness.Key) (time.Duration, error) {
	var g schedulingv1beta1.PodGroup
	if err := r.client.Get(ctx, key, &g); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	return 0, protection.Settle(ctx, r.client, &g, api.PodGroupFinalizer, func(from crclient.Reader) (bool, error) { return inUse(ctx, from, &g) })
}

// inUse says whether a pod of the group is there that has not ended.
func inUse(ctx context.Context, from crclient.Reader, g *schedulingv1beta1.PodGroup) (bool, error) {
	var pods corev1.PodList
	if err := from.List(ctx, &pods, crclient.InNamespace(g.Namespace), crclient.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	return slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return api.PodGroupName(&p) == g.Name && !over(&p) }), nil
}
