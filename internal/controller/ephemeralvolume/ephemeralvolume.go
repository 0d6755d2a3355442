// Package ephemeralvolume makes the claims of pods' generic ephemeral volumes. A claim belongs to its pod and goes with it.
package ephemeralvolume

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/storage/ephemeral"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
}

// New returns the controller. Its keys are pods.
func New(c client.Client) harness.Controller {
	r := &reconciler{c, c.Recorder("ephemeral_volume")}
	return harness.Controller{
		Watches:   []harness.Watch{harness.On(&corev1.Pod{}, podChanged), harness.On(&corev1.PersistentVolumeClaim{}, claimGone)},
		Reconcile: r.reconcile,
	}
}

func podChanged(old, current *corev1.Pod) []harness.Key {
	if current == nil || old != nil && old.UID == current.UID || !podstate.Active(current) {
		return nil
	}
	for i := range current.Spec.Volumes {
		if current.Spec.Volumes[i].Ephemeral != nil {
			return []harness.Key{crclient.ObjectKeyFromObject(current)}
		}
	}
	return nil
}

// claimGone wakes the pod whose claim was deleted under it.
func claimGone(old, current *corev1.PersistentVolumeClaim) []harness.Key {
	if current != nil || old == nil {
		return nil
	}
	if owner := metav1.GetControllerOfNoCopy(old); owner != nil && owner.Kind == "Pod" {
		return []harness.Key{{Namespace: old.Namespace, Name: owner.Name}}
	}
	return nil
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var pod corev1.Pod
	if err := r.client.Get(ctx, key, &pod); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if !podstate.Active(&pod) {
		return 0, nil
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Ephemeral == nil {
			continue
		}
		if err := r.ensure(ctx, &pod, v); err != nil {
			r.events.Eventf(&pod, corev1.EventTypeWarning, "FailedBinding", "ephemeral volume %s: %v", v.Name, err)
			errs = append(errs, fmt.Errorf("ephemeral volume %s of pod %s: %w", v.Name, key, err))
		}
	}
	return 0, errors.Join(errs...)
}

func (r *reconciler) ensure(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) error {
	want := claimFor(pod, v)
	var have corev1.PersistentVolumeClaim
	err := r.client.Get(ctx, crclient.ObjectKeyFromObject(want), &have)
	switch {
	case err == nil:
		return ephemeral.VolumeIsForPod(pod, &have)
	case !apierrors.IsNotFound(err):
		return err
	}
	if err = r.client.Create(ctx, want); apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

// claimFor is the claim of a volume, owned by the pod.
func claimFor(pod *corev1.Pod, v *corev1.Volume) *corev1.PersistentVolumeClaim {
	t := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: ephemeral.VolumeClaimName(pod, v), Labels: t.Labels, Annotations: t.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: t.Spec,
	}
}
