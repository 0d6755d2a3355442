package persistentvolume

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// volumeDecision is what is to be done about a volume.
type volumeDecision struct {
	phase   corev1.PersistentVolumePhase
	message string
	unbind  bool // take the claim's uid away, and all of the reference if the controller had put it there
	event   *event
}

// decideVolume follows upstream's binder; claim is the one that the volume refers to, nil if it is gone or another of the same name.
func decideVolume(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) volumeDecision {
	ref := v.Spec.ClaimRef
	switch {
	case ref == nil || ref.UID == "": // for anybody, or for a claim that is yet to come
		return volumeDecision{phase: corev1.VolumeAvailable}
	case claim == nil:
		return released(v)
	case claim.Spec.VolumeName == "":
		if storage.CheckVolumeModeMismatches(&claim.Spec, &v.Spec) {
			return volumeDecision{event: &event{warning, "VolumeMismatch", "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"" +
				claim.Name + "\" due to incompatible volumeMode."}}
		}
		return volumeDecision{} // the claim's turn
	case claim.Spec.VolumeName == v.Name:
		return volumeDecision{phase: corev1.VolumeBound}
	case v.Annotations[storage.AnnDynamicallyProvisioned] != "" && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return released(v) // made for a claim that took another
	}
	return volumeDecision{phase: corev1.VolumeAvailable, unbind: true}
}

// released says what becomes of a volume whose claim is gone. Who made it deletes it; the phase is the word for that.
func released(v *corev1.PersistentVolume) volumeDecision {
	d := volumeDecision{phase: corev1.VolumeReleased}
	if v.Status.Phase == corev1.VolumeFailed {
		d.phase, d.message = corev1.VolumeFailed, v.Status.Message
		return d
	}
	failed := func(reason, message string) volumeDecision {
		return volumeDecision{phase: corev1.VolumeFailed, message: message, event: &event{warning, reason, message}}
	}
	switch {
	case v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete &&
		v.Annotations[storage.AnnDynamicallyProvisioned] == "" && v.Spec.CSI == nil:
		return failed("VolumeFailedDelete", "error getting deleter volume plugin for volume \""+v.Name+"\": no deletable volume plugin matched")
	case v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle:
		return failed("VolumeFailedRecycle", "no recyclable volume plugin matched")
	}
	return d
}

func (r *reconciler) volume(ctx context.Context, name string) error {
	v, err := find(ctx, r.client, crclient.ObjectKey{Name: name}, &corev1.PersistentVolume{})
	if v == nil || err != nil {
		return err
	}
	claim, err := r.claimOf(ctx, v)
	if err != nil {
		return err
	}
	d := decideVolume(v, claim)
	if d.event != nil && v.Status.Phase != d.phase {
		r.events.Event(v, d.event.kind, d.event.reason, d.event.message)
	}
	if d.unbind {
		if err := r.unbind(ctx, v); err != nil {
			return err
		}
		return nil // its change brings it back
	}
	if d.phase == "" {
		return nil
	}
	return r.volumePhase(ctx, v, d.phase, d.message)
}

// claimOf is the claim that a volume refers to. Releasing a volume may delete its data, so only etcd is believed that the claim is gone.
func (r *reconciler) claimOf(ctx context.Context, v *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		return nil, nil
	}
	for _, from := range []crclient.Reader{r.client, r.client.Live()} {
		claim, err := find(ctx, from, crclient.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &corev1.PersistentVolumeClaim{})
		if err != nil || claim != nil && claim.UID == ref.UID {
			return claim, err
		}
	}
	return nil, nil
}

func (r *reconciler) unbind(ctx context.Context, v *corev1.PersistentVolume) error {
	changed := v.DeepCopy()
	if _, ours := v.Annotations[storage.AnnBoundByController]; ours {
		changed.Spec.ClaimRef = nil
		delete(changed.Annotations, storage.AnnBoundByController)
	} else {
		changed.Spec.ClaimRef.UID, changed.Spec.ClaimRef.ResourceVersion = "", ""
	}
	return r.client.Update(ctx, changed)
}

func (r *reconciler) volumePhase(ctx context.Context, v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) error {
	if v.Status.Phase == phase && v.Status.Message == message {
		return nil
	}
	changed := v.DeepCopy()
	if v.Status.Phase != phase {
		at := metav1.NewTime(r.now())
		changed.Status.LastPhaseTransitionTime = &at
	}
	changed.Status.Phase, changed.Status.Message = phase, message
	return r.client.Status().Update(ctx, changed)
}
