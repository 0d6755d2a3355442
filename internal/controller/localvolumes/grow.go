package localvolumes

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api/localvolume"
)

// growth is the next step of a claim that asks for more than it has.
type growth int

const (
	settled growth = iota
	enlarge        // the volume object is to say the new size
	await          // the node has not set it up yet
	finish         // the claim has it
)

// nextGrowth compares what a claim asks for, what it has, what its volume says and what the node has set up.
func nextGrowth(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) growth {
	want, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	size := v.Spec.Capacity[corev1.ResourceStorage]
	done, err := resource.ParseQuantity(v.Annotations[localvolume.SizeAnnotation])
	switch {
	case claim.Status.Phase != corev1.ClaimBound || want.Cmp(has) <= 0:
		return settled
	case size.Cmp(want) < 0:
		return enlarge
	case err != nil || done.Cmp(size) < 0:
		return await
	}
	return finish
}

func (r *reconciler) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	var v corev1.PersistentVolume
	if err := r.client.Get(ctx, crclient.ObjectKey{Name: claim.Spec.VolumeName}, &v); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	if !localvolume.Of(&v) {
		return nil
	}
	switch nextGrowth(claim, &v) {
	case enlarge:
		changed := v.DeepCopy()
		changed.Spec.Capacity[corev1.ResourceStorage] = claim.Spec.Resources.Requests[corev1.ResourceStorage]
		if err := r.client.Update(ctx, changed); err != nil {
			return fmt.Errorf("enlarge volume %s: %w", v.Name, err)
		}
		r.events.Eventf(claim, corev1.EventTypeNormal, "Resizing", "External resizer is resizing volume %s", v.Name)
	case await:
		return r.resizing(ctx, claim, true, nil)
	case finish:
		if err := r.resizing(ctx, claim, false, v.Spec.Capacity); err != nil {
			return err
		}
		r.events.Event(claim, corev1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
	}
	return nil
}

// resizing writes a claim's condition, and what it has once it has it.
func (r *reconciler) resizing(ctx context.Context, claim *corev1.PersistentVolumeClaim, under bool, capacity corev1.ResourceList) error {
	changed := claim.DeepCopy()
	changed.Status.Conditions = nil
	was := false
	for _, c := range claim.Status.Conditions {
		if c.Type == corev1.PersistentVolumeClaimResizing {
			was = true
			continue
		}
		changed.Status.Conditions = append(changed.Status.Conditions, c)
	}
	if under && was {
		return nil
	}
	if under {
		changed.Status.Conditions = append(changed.Status.Conditions, corev1.PersistentVolumeClaimCondition{
			Type: corev1.PersistentVolumeClaimResizing, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	}
	if capacity != nil {
		changed.Status.Capacity = capacity.DeepCopy()
	}
	return r.client.Status().Update(ctx, changed)
}
