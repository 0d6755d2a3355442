package volumeprotection

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/protection"
	"skiff.dev/skiff/internal/quota"
)

// NewAttributesClasses returns the controller of VolumeAttributesClasses (KEP-3751): one stays while a claim has it, wants it or is on its way to it, or a
// volume has it.
func NewAttributesClasses(c client.Client) harness.Controller {
	r := &reconciler{c}
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&storagev1.VolumeAttributesClass{}, protection.Leaving[*storagev1.VolumeAttributesClass](api.AttributesClassFinalizer)),
			harness.On(&corev1.PersistentVolumeClaim{}, func(old, current *corev1.PersistentVolumeClaim) []harness.Key {
				return letGo(old, current, quota.AttributesClasses)
			}),
			harness.On(&corev1.PersistentVolume{}, func(old, current *corev1.PersistentVolume) []harness.Key { return letGo(old, current, classesOf) }),
		},
		Reconcile: r.attributesClass,
	}
}

func classesOf(v *corev1.PersistentVolume) []string {
	if name := v.Spec.VolumeAttributesClassName; name != nil && *name != "" {
		return []string{*name}
	}
	return nil
}

// letGo wakes the classes that an object had and has no more.
func letGo[T comparable](old, current T, classes func(T) []string) (keys []harness.Key) {
	var gone T
	if old == gone {
		return nil
	}
	var kept []string
	if current != gone {
		kept = classes(current)
	}
	for _, name := range classes(old) {
		if !slices.Contains(kept, name) {
			keys = append(keys, harness.Key{Name: name})
		}
	}
	return keys
}

func (r *reconciler) attributesClass(ctx context.Context, key harness.Key) (time.Duration, error) {
	var c storagev1.VolumeAttributesClass
	if err := r.client.Get(ctx, key, &c); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	return 0, protection.Settle(ctx, r.client, &c, api.AttributesClassFinalizer, func(from crclient.Reader) (bool, error) { return classUsed(ctx, from, c.Name) })
}

func classUsed(ctx context.Context, from crclient.Reader, name string) (bool, error) {
	var claims corev1.PersistentVolumeClaimList
	if err := from.List(ctx, &claims, crclient.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	for i := range claims.Items {
		if slices.Contains(quota.AttributesClasses(&claims.Items[i]), name) {
			return true, nil
		}
	}
	var volumes corev1.PersistentVolumeList
	if err := from.List(ctx, &volumes, crclient.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	for i := range volumes.Items {
		if slices.Contains(classesOf(&volumes.Items[i]), name) {
			return true, nil
		}
	}
	return false, nil
}
