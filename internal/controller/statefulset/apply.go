package statefulset

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/batch"
	"skiff.dev/skiff/internal/controller/owner"
)

// burst is the most pods one pass of a Parallel set creates or deletes.
const burst = 500

// apply carries a plan out, and stops at the first error: what comes later in a plan supposes what came before.
func (r *reconciler) apply(ctx context.Context, s *appsv1.StatefulSet, p plan) error {
	for _, name := range p.conflicts {
		r.events.Eventf(s, corev1.EventTypeWarning, "ConflictingController",
			"PersistentVolumeClaim %s has a conflicting OwnerReference that acts as a managing controller, the retention policy is ignored for this claim", name)
	}
	for _, pod := range p.recreate {
		if pod.Status.Phase == corev1.PodFailed {
			r.events.Eventf(s, corev1.EventTypeWarning, "RecreatingFailedPod", "StatefulSet %s/%s is recreating failed Pod %s", s.Namespace, s.Name, pod.Name)
		} else {
			r.events.Eventf(s, corev1.EventTypeNormal, "RecreatingTerminatedPod", "StatefulSet %s/%s is recreating terminated Pod %s", s.Namespace, s.Name, pod.Name)
		}
		if err := r.remove(ctx, s, pod); err != nil {
			return err
		}
	}
	for _, pod := range p.complete {
		if err := r.ensureClaims(ctx, s, pod); err != nil {
			return err
		}
	}
	if _, err := batch.Growing(min(len(p.create), burst), func(i int) error { return r.create(ctx, s, p.create[i]) }); err != nil {
		return err
	}
	for _, pod := range p.relabel {
		if err := r.say(s, pod, "Update", r.client.Update(ctx, pod)); err != nil {
			return err
		}
	}
	for _, claim := range p.claims {
		if err := r.client.Update(ctx, claim); err != nil {
			return fmt.Errorf("note the retention policy on claim %s of StatefulSet %s: %w", claim.Name, s.Name, err)
		}
	}
	_, err := batch.Growing(min(len(p.remove), burst), func(i int) error { return r.remove(ctx, s, p.remove[i]) })
	return err
}

// create makes a pod after its claims. That it is there already is no error if it is ours: then the cache is late.
func (r *reconciler) create(ctx context.Context, s *appsv1.StatefulSet, pod *corev1.Pod) error {
	if err := r.ensureClaims(ctx, s, pod); err != nil {
		return r.say(s, pod, "Create", err)
	}
	err := r.client.Create(ctx, pod)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace life cycle deletes us too
	case apierrors.IsAlreadyExists(err):
		var there corev1.Pod
		if r.client.Live().Get(ctx, crclient.ObjectKeyFromObject(pod), &there) == nil && owner.By(&there, s.UID) {
			return nil
		}
	}
	return r.say(s, pod, "Create", err)
}

func (r *reconciler) ensureClaims(ctx context.Context, s *appsv1.StatefulSet, pod *corev1.Pod) error {
	for _, claim := range claimsOf(s, pod) {
		name := claim.Name
		err := r.client.Get(ctx, crclient.ObjectKeyFromObject(claim), &corev1.PersistentVolumeClaim{})
		if err == nil {
			continue
		}
		if apierrors.IsNotFound(err) {
			err = r.client.Create(ctx, claim)
		}
		switch {
		case apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		case err != nil:
			r.events.Eventf(s, corev1.EventTypeWarning, "FailedCreate", "create Claim %s for Pod %s in StatefulSet %s failed error: %v", name, pod.Name, s.Name, err)
			return fmt.Errorf("create claim %s for pod %s: %w", name, pod.Name, err)
		default:
			r.events.Eventf(s, corev1.EventTypeNormal, "SuccessfulCreate", "create Claim %s Pod %s in StatefulSet %s success", name, pod.Name, s.Name)
		}
	}
	return nil
}

func (r *reconciler) remove(ctx context.Context, s *appsv1.StatefulSet, pod *corev1.Pod) error {
	uid := pod.UID
	err := r.client.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}, crclient.Preconditions{UID: &uid})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone already
	}
	return r.say(s, pod, "Delete", err)
}

// say records an event about what was done to a pod, and gives the error back with the same words.
func (r *reconciler) say(s *appsv1.StatefulSet, pod *corev1.Pod, did string, err error) error {
	verb := map[string]string{"Create": "create", "Delete": "delete", "Update": "update"}[did]
	if err == nil {
		r.events.Eventf(s, corev1.EventTypeNormal, "Successful"+did, "%s Pod %s in StatefulSet %s successful", verb, pod.Name, s.Name)
		return nil
	}
	r.events.Eventf(s, corev1.EventTypeWarning, "Failed"+did, "%s Pod %s in StatefulSet %s failed error: %v", verb, pod.Name, s.Name, err)
	return fmt.Errorf("%s pod %s: %w", verb, pod.Name, err)
}
