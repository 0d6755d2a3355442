package persistentvolume

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	storage "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"strings"

	"skiff.dev/skiff/internal/api"
)

// sight is what a claim's decision looks at.
type sight struct {
	named   *corev1.PersistentVolume   // the one that the claim names; nil: it is not there
	volumes []*corev1.PersistentVolume // all there are, if the claim names none
	classes []*storagev1.StorageClass
	pod     string // one that uses the claim and has no node yet
}

type event struct{ kind, reason, message string }

// decision is what is to be done about a claim: the first that is set.
type decision struct {
	class       string                            // give it this class
	bind        *corev1.PersistentVolume          // bind the two
	provisioner string                            // ask for a volume
	phase       corev1.PersistentVolumeClaimPhase // only that changes
	event       *event
}

const (
	normal  = corev1.EventTypeNormal
	warning = corev1.EventTypeWarning
)

// decideClaim follows upstream's binder.
func decideClaim(claim *corev1.PersistentVolumeClaim, s sight) decision {
	_, completed := claim.Annotations[storage.AnnBindCompleted]
	switch {
	case completed:
		return decideBound(claim, s)
	case claim.Spec.VolumeName != "":
		return decideNamed(claim, s.named)
	}
	return decideUnbound(claim, s)
}

// decideUnbound finds a volume, or somebody to make one.
func decideUnbound(claim *corev1.PersistentVolumeClaim, s sight) decision {
	name := storage.GetPersistentVolumeClaimClass(claim)
	class := classNamed(s.classes, name)
	delayed := class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	volume, err := storage.FindMatchingVolume(claim, withModes(claim, s.volumes), nil, nil, delayed, true)
	pending := func(kind, reason, message string) decision {
		return decision{phase: corev1.ClaimPending, event: &event{kind, reason, message}}
	}
	switch {
	case err != nil:
		return pending(warning, "FailedBinding", err.Error())
	case volume != nil:
		return decision{bind: volume}
	case !storage.PersistentVolumeClaimHasClass(claim) && newestDefault(s.classes) != "":
		return decision{class: newestDefault(s.classes)}
	case delayed && !storage.IsDelayBindingProvisioning(claim) && s.pod != "":
		return pending(normal, "WaitForPodScheduled", fmt.Sprintf("waiting for pod %s to be scheduled", s.pod))
	case delayed && !storage.IsDelayBindingProvisioning(claim):
		return pending(normal, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
	case name == "":
		return pending(normal, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	case class == nil:
		return pending(warning, "ProvisioningFailed", fmt.Sprintf("storageclass.storage.k8s.io %q not found", name))
	case strings.HasPrefix(class.Provisioner, "kubernetes.io/"):
		return pending(warning, "ProvisioningFailed", "no volume plugin matched name: "+class.Provisioner)
	}
	return decision{provisioner: class.Provisioner, event: &event{normal, "ExternalProvisioning", fmt.Sprintf(
		"Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. "+
			"If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner)}}
}

func classNamed(classes []*storagev1.StorageClass, name string) *storagev1.StorageClass {
	for _, c := range classes {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func newestDefault(classes []*storagev1.StorageClass) string {
	if c := api.NewestDefaultClass(classes); c != nil {
		return c.Name
	}
	return ""
}

// withModes are the volumes that can be used in all the ways the claim asks for.
func withModes(claim *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume) (fit []*corev1.PersistentVolume) {
	for _, v := range volumes {
		if storage.CheckAccessModes(claim, v) || storage.IsVolumeBoundToClaim(v, claim) {
			fit = append(fit, v)
		}
	}
	return fit
}

// decideNamed: the user, or a provisioner, has chosen the volume.
func decideNamed(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) decision {
	pending := decision{phase: corev1.ClaimPending}
	switch {
	case v == nil:
		return pending
	case v.Spec.ClaimRef == nil:
		if why := mismatch(claim, v); why != "" {
			pending.event = &event{warning, "VolumeMismatch", fmt.Sprintf("Cannot bind to requested volume %q: %s", v.Name, why)}
			return pending
		}
		return decision{bind: v}
	case storage.IsVolumeBoundToClaim(v, claim):
		return decision{bind: v}
	}
	pending.event = &event{warning, "FailedBinding", fmt.Sprintf("volume %q already bound to a different claim.", v.Name)}
	return pending
}

// mismatch says why a volume does not do what a claim asks for, "" if it does.
func mismatch(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) string {
	want, size := claim.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	switch {
	case v.DeletionTimestamp != nil:
		return "volume is being deleted"
	case size.Cmp(want) < 0:
		return "requested PV is too small"
	case storage.GetPersistentVolumeClass(v) != storage.GetPersistentVolumeClaimClass(claim):
		return "storageClassName does not match"
	case storage.CheckVolumeModeMismatches(&claim.Spec, &v.Spec):
		return "incompatible volumeMode"
	case ptr.Deref(v.Spec.VolumeAttributesClassName, "") != ptr.Deref(claim.Spec.VolumeAttributesClassName, ""):
		return "volumeAttributesClassName does not match"
	case !storage.CheckAccessModes(claim, v):
		return "incompatible accessMode"
	}
	return ""
}

// decideBound looks after a binding that was complete once.
func decideBound(claim *corev1.PersistentVolumeClaim, s sight) decision {
	lost := func(reason, message string) decision {
		d := decision{phase: corev1.ClaimLost}
		if claim.Status.Phase != corev1.ClaimLost {
			d.event = &event{warning, reason, message}
		}
		return d
	}
	switch v := s.named; {
	case claim.Spec.VolumeName == "":
		return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	case v == nil:
		return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == claim.UID:
		return decision{bind: v}
	}
	return lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

// bindClaim is the claim with its pointer, nil if it has that already.
func bindClaim(claim *corev1.PersistentVolumeClaim, volume string) *corev1.PersistentVolumeClaim {
	_, completed := claim.Annotations[storage.AnnBindCompleted]
	if claim.Spec.VolumeName == volume && completed {
		return nil
	}
	changed := claim.DeepCopy()
	if changed.Spec.VolumeName != volume {
		changed.Spec.VolumeName = volume
		annotate(changed, storage.AnnBoundByController, "yes")
	}
	annotate(changed, storage.AnnBindCompleted, "yes")
	return changed
}

// boundStatus is a bound claim's status, nil if it has it. How much a claim has is the volume's size when they are bound; later changes are the resizer's.
func boundStatus(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) *corev1.PersistentVolumeClaimStatus {
	s := claim.Status.DeepCopy()
	if s.Phase != corev1.ClaimBound || s.Capacity == nil {
		s.Capacity = v.Spec.Capacity.DeepCopy()
		s.CurrentVolumeAttributesClassName = v.Spec.VolumeAttributesClassName
	}
	s.Phase, s.AccessModes = corev1.ClaimBound, v.Spec.AccessModes
	if equality.Semantic.DeepEqual(s, &claim.Status) {
		return nil
	}
	return s
}
