package admission

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// inUseProtection (StorageObjectInUseProtection) keeps volumes, claims and attributes classes from going while they are used: their controllers take the finalizer away.
func inUseProtection(_ context.Context, a *registry.Attributes) error {
	if a.Operation != create {
		return nil
	}
	switch o := a.Object.(type) {
	case *corev1.PersistentVolumeClaim:
		protect(o, api.ClaimFinalizer)
	case *corev1.PersistentVolume:
		protect(o, api.VolumeFinalizer)
	case *storagev1.VolumeAttributesClass:
		protect(o, api.AttributesClassFinalizer)
	}
	return nil
}

func protect(o api.Object, finalizer string) {
	if !slices.Contains(o.GetFinalizers(), finalizer) {
		o.SetFinalizers(append(o.GetFinalizers(), finalizer))
	}
}

// defaultStorageClass (DefaultStorageClass) gives claims that name no class the default one, if there is one.
func defaultStorageClass(ctx context.Context, a *registry.Attributes) error {
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok || !is(a, "", "persistentvolumeclaims") || a.Operation != create || storage.PersistentVolumeClaimHasClass(claim) {
		return nil
	}
	classes, err := all[*storagev1.StorageClass](ctx, a, "storage.k8s.io", "storageclasses", "")
	if err != nil {
		return err
	}
	if class := api.NewestDefaultClass(classes); class != nil {
		name := class.Name
		claim.Spec.StorageClassName = &name
	}
	return nil
}

// claimResize (PersistentVolumeClaimResize) lets claims grow whose class allows it; validation has seen to it that they have a volume.
func claimResize(ctx context.Context, a *registry.Attributes) error {
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	old, was := a.Old.(*corev1.PersistentVolumeClaim)
	if !ok || !was || !is(a, "", "persistentvolumeclaims") || a.Operation != update {
		return nil
	}
	now, before := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if now.Cmp(before) <= 0 {
		return nil
	}
	var class *storagev1.StorageClass
	if name := storage.GetPersistentVolumeClaimClass(claim); name != "" {
		var err error
		if class, err = find[*storagev1.StorageClass](ctx, a, "storage.k8s.io", "storageclasses", name); err != nil {
			return err
		}
	}
	if class == nil || class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion {
		return forbid(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
	}
	return nil
}
