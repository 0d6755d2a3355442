// Package podgroupprotection lets a PodGroup go only once its pods are over: admission has given it a finalizer, and this controller takes that away when the
// group's deletion has begun and no pod of it is left that has not ended.
package podgroupprotection

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{c}
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&corev1.Pod{}, podChanged),
			harness.On(&schedulingv1beta1.PodGroup{}, groupChanged),
		},
		Reconcile: r.group,
	}
}

type reconciler struct{ client client.Client }

// groupChanged wakes groups that are being deleted and still protected, and those that lack the protection.
func groupChanged(_, current *schedulingv1beta1.PodGroup) []harness.Key {
	if current == nil || (current.DeletionTimestamp != nil) != protected(current) {
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

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

func protected(g *schedulingv1beta1.PodGroup) bool {
	return slices.Contains(g.Finalizers, api.PodGroupFinalizer)
}

func (r *reconciler) group(ctx context.Context, key harness.Key) (time.Duration, error) {
	var g schedulingv1beta1.PodGroup
	if err := r.client.Get(ctx, key, &g); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if (g.DeletionTimestamp != nil) != protected(&g) {
		return 0, nil
	}
	changed := g.DeepCopy()
	if g.DeletionTimestamp == nil {
		changed.Finalizers = append(changed.Finalizers, api.PodGroupFinalizer)
	} else {
		for _, from := range []crclient.Reader{r.client, r.client.Live()} { // a pod may have come a moment ago through another server
			if used, err := inUse(ctx, from, &g); used || err != nil {
				return 0, err
			}
		}
		changed.Finalizers = slices.DeleteFunc(changed.Finalizers, func(f string) bool { return f == api.PodGroupFinalizer })
	}
	if err := r.client.Update(ctx, changed); crclient.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("change the protection of %s: %w", key, err)
	}
	return 0, nil
}

// inUse says whether a pod of the group is there that has not ended.
func inUse(ctx context.Context, from crclient.Reader, g *schedulingv1beta1.PodGroup) (bool, error) {
	var pods corev1.PodList
	if err := from.List(ctx, &pods, crclient.InNamespace(g.Namespace), crclient.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	return slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return api.PodGroupName(&p) == g.Name && !over(&p) }), nil
}
