// Package volumeprotection lets claims, volumes and VolumeAttributesClasses go only once nobody uses them: admission has given them a finalizer, and these controllers take it
// away when their deletion has begun and the last use is over.
package volumeprotection

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/protection"
)

// NewClaims returns the controller of claims.
func NewClaims(c client.Client) harness.Controller {
	r := &reconciler{c}
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&corev1.Pod{}, podChanged),
			harness.On(&corev1.PersistentVolumeClaim{}, protection.Leaving[*corev1.PersistentVolumeClaim](api.ClaimFinalizer)),
		},
		Reconcile: r.claim,
	}
}

// NewVolumes returns the controller of volumes.
func NewVolumes(c client.Client) harness.Controller {
	r := &reconciler{c}
	return harness.Controller{
		Watches:   []harness.Watch{harness.On(&corev1.PersistentVolume{}, protection.Leaving[*corev1.PersistentVolume](api.VolumeFinalizer))},
		Reconcile: r.volume,
	}
}

type reconciler struct{ client client.Client }

// podChanged wakes the claims of a pod that went.
func podChanged(old, current *corev1.Pod) (keys []harness.Key) {
	if current != nil || old == nil {
		return nil
	}
	for i := range old.Spec.Volumes {
		if name := api.ClaimName(old, &old.Spec.Volumes[i]); name != "" {
			keys = append(keys, harness.Key{Namespace: old.Namespace, Name: name})
		}
	}
	return keys
}

func (r *reconciler) claim(ctx context.Context, key harness.Key) (time.Duration, error) {
	var c corev1.PersistentVolumeClaim
	if err := r.client.Get(ctx, key, &c); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	return 0, protection.Settle(ctx, r.client, &c, api.ClaimFinalizer, func(from crclient.Reader) (bool, error) { return claimUsed(ctx, from, &c) })
}

// claimUsed says whether a pod that has a node uses the claim. Others will not be started: the kubelet and the scheduler refuse claims that are leaving.
func claimUsed(ctx context.Context, from crclient.Reader, c *corev1.PersistentVolumeClaim) (bool, error) {
	var pods corev1.PodList
	if err := from.List(ctx, &pods, crclient.InNamespace(c.Namespace), crclient.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Spec.NodeName != "" && slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return api.ClaimName(p, &v) == c.Name }) {
			return true, nil
		}
	}
	return false, nil
}

func (r *reconciler) volume(ctx context.Context, key harness.Key) (time.Duration, error) {
	var v corev1.PersistentVolume
	if err := r.client.Get(ctx, key, &v); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if v.DeletionTimestamp != nil && v.Status.Phase == corev1.VolumeBound {
		return 0, nil
	}
	return 0, protection.Set(ctx, r.client, &v, api.VolumeFinalizer)
}
