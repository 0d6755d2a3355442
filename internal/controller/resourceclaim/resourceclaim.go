// Package resourceclaim makes the claims that pods want made from a template, and sees to it that what a claim has does not outlive its use: pods that
// are over no longer count as its users, without users it gives its devices back, and one made for a pod goes with it.
//
// Keys are pods ("pod/name") and claims ("claim/name"). Devices are chosen by the scheduler; here they are only given back.
package resourceclaim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	claims "k8s.io/dynamic-resource-allocation/resourceclaim"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
)

// madeFor is the annotation that says for which of its pod's claims one was made.
const madeFor = "resource.kubernetes.io/pod-claim-name"

const (
	podKey   = "pod/"
	claimKey = "claim/"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{c, c.Recorder("resource_claim")}
	return harness.Controller{
		Workers:   8, // a claim is several writes one after the other, and many are made at once
		Watches:   []harness.Watch{harness.On(&corev1.Pod{}, podChanged), harness.On(&resourcev1.ResourceClaim{}, claimChanged)},
		Reconcile: r.reconcile,
	}
}

func key(prefix, namespace, name string) harness.Key {
	return harness.Key{Namespace: namespace, Name: prefix + name}
}

func podChanged(old, current *corev1.Pod) (keys []harness.Key) {
	pod := current
	if pod == nil {
		pod = old
	}
	if current != nil && !over(current) {
		if len(pod.Spec.ResourceClaims) == 0 {
			return nil
		}
		return []harness.Key{key(podKey, pod.Namespace, pod.Name)}
	}
	for name := range claims.PodClaims(pod) {
		keys = append(keys, key(claimKey, pod.Namespace, name))
	}
	return keys
}

// over says that a pod uses its claims no more.
func over(p *corev1.Pod) bool {
	return podstate.Terminal(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}

func claimChanged(old, current *resourcev1.ResourceClaim) []harness.Key {
	if current != nil {
		return []harness.Key{key(claimKey, current.Namespace, current.Name)}
	}
	if owner := ownerOf(old); owner != nil { // it went while its pod needs it
		return []harness.Key{key(podKey, old.Namespace, owner.Name)}
	}
	return nil
}

func ownerOf(c *resourcev1.ResourceClaim) *metav1.OwnerReference {
	if owner := metav1.GetControllerOfNoCopy(c); owner != nil && owner.APIVersion == "v1" && owner.Kind == "Pod" {
		return owner
	}
	return nil
}

func (r *reconciler) reconcile(ctx context.Context, k harness.Key) (time.Duration, error) {
	if name, is := strings.CutPrefix(k.Name, podKey); is {
		return 0, r.pod(ctx, crclient.ObjectKey{Namespace: k.Namespace, Name: name})
	}
	return 0, r.claim(ctx, crclient.ObjectKey{Namespace: k.Namespace, Name: strings.TrimPrefix(k.Name, claimKey)})
}

// pod has what claims a pod lacks made, and tells it their names.
func (r *reconciler) pod(ctx context.Context, k crclient.ObjectKey) error {
	var pod corev1.Pod
	if err := r.client.Get(ctx, k, &pod); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	if over(&pod) || pod.DeletionTimestamp != nil {
		return nil
	}
	var errs []error
	names := map[string]*string{}
	for i := range pod.Spec.ResourceClaims {
		one := &pod.Spec.ResourceClaims[i]
		name, err := r.ensure(ctx, &pod, one)
		if err != nil {
			r.events.Eventf(&pod, corev1.EventTypeWarning, "FailedResourceClaimCreation", "PodResourceClaim %s: %v", one.Name, err)
			errs = append(errs, fmt.Errorf("resource claim %s of pod %s: %w", one.Name, k, err))
			continue
		}
		if one.ResourceClaimTemplateName != nil {
			names[one.Name] = name
		}
	}
	return errors.Join(append(errs, r.name(ctx, &pod, names))...)
}

// ensure finds one of a pod's claims, or makes it from its template. A pod that got its node elsewhere than from the scheduler is entered as a user.
func (r *reconciler) ensure(ctx context.Context, pod *corev1.Pod, one *corev1.PodResourceClaim) (*string, error) {
	name, owned, err := claims.Name(pod, one)
	var claim resourcev1.ResourceClaim
	switch {
	case err == nil && name == nil:
		return nil, nil
	case err == nil:
		err = r.client.Get(ctx, crclient.ObjectKey{Namespace: pod.Namespace, Name: *name}, &claim)
		switch {
		case err == nil && owned:
			err = claims.IsForPod(pod, &claim, false)
		case apierrors.IsNotFound(err) && !owned:
			return name, nil // somebody is still to make it
		}
		if !apierrors.IsNotFound(err) {
			if err == nil {
				err = r.enter(ctx, pod, &claim)
			}
			return name, err
		}
	case !errors.Is(err, claims.ErrClaimNotFound):
		return nil, err
	}
	if name, err := r.made(ctx, pod, one.Name); name != nil || err != nil {
		return name, err
	}
	return r.make(ctx, pod, one)
}

// made finds a claim that was made for a pod which has not been told.
func (r *reconciler) made(ctx context.Context, pod *corev1.Pod, name string) (*string, error) {
	var list resourcev1.ResourceClaimList
	err := r.client.List(ctx, &list, crclient.InNamespace(pod.Namespace), crclient.MatchingFields{"owner.uid": string(pod.UID)}, crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if c := &list.Items[i]; metav1.IsControlledBy(c, pod) && c.Annotations[madeFor] == name && c.DeletionTimestamp == nil {
			return &c.Name, nil
		}
	}
	return nil, nil
}

func (r *reconciler) make(ctx context.Context, pod *corev1.Pod, one *corev1.PodResourceClaim) (*string, error) {
	var template resourcev1.ResourceClaimTemplate
	if err := r.client.Live().Get(ctx, crclient.ObjectKey{Namespace: pod.Namespace, Name: *one.ResourceClaimTemplateName}, &template); err != nil {
		return nil, fmt.Errorf("resource claim template %q: %w", *one.ResourceClaimTemplateName, err)
	}
	claim := claimFrom(pod, one.Name, &template)
	if err := r.client.Create(ctx, claim); err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil, nil
		}
		return nil, err
	}
	return &claim.Name, nil
}

// longest is how long the part of a name is that is not made up; a suffix of five comes after it.
const longest = 63 - 5

// claimFrom is a claim as the template says, owned by the pod.
func claimFrom(pod *corev1.Pod, name string, template *resourcev1.ResourceClaimTemplate) *resourcev1.ResourceClaim {
	t := template.Spec.DeepCopy()
	annotations := t.Annotations
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[madeFor] = name
	owner := metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: prefixOf(pod.Name, name), Labels: t.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*owner},
		},
		Spec: t.Spec,
	}
}

// prefixOf begins a claim's name. Where it would be too long, both names give way.
func prefixOf(pod, claim string) string {
	const room = longest - 2
	if over := len(pod) + len(claim) - room; over > 0 {
		pod = pod[:min(len(pod), max(len(pod)-over, room/2))]
		claim = claim[:min(len(claim), room-len(pod))]
	}
	return pod + "-" + claim + "-"
}

// name tells a pod which claims were made for it.
func (r *reconciler) name(ctx context.Context, pod *corev1.Pod, names map[string]*string) error {
	changed := pod.DeepCopy()
	for i := range pod.Spec.ResourceClaims {
		one := pod.Spec.ResourceClaims[i].Name
		claim := names[one]
		if claim == nil {
			continue
		}
		status := corev1.PodResourceClaimStatus{Name: one, ResourceClaimName: claim}
		at := slices.IndexFunc(changed.Status.ResourceClaimStatuses, func(s corev1.PodResourceClaimStatus) bool { return s.Name == one })
		if at < 0 {
			changed.Status.ResourceClaimStatuses = append(changed.Status.ResourceClaimStatuses, status)
		} else {
			changed.Status.ResourceClaimStatuses[at] = status
		}
	}
	if claims.PodStatusEqual(pod.Status.ResourceClaimStatuses, changed.Status.ResourceClaimStatuses) {
		return nil
	}
	err := r.client.SubResource("status").Update(ctx, changed.DeepCopy()) // costs a third of a patch
	if apierrors.IsConflict(err) {
		err = r.client.SubResource("status").Patch(ctx, changed, crclient.StrategicMergeFrom(pod))
	}
	return crclient.IgnoreNotFound(err)
}

// enter makes a pod that has a node a user of its claim, if the claim has devices.
func (r *reconciler) enter(ctx context.Context, pod *corev1.Pod, claim *resourcev1.ResourceClaim) error {
	if pod.Spec.NodeName == "" || claim.Status.Allocation == nil || claim.DeletionTimestamp != nil || claims.IsReservedForPod(pod, claim, false) {
		return nil
	}
	changed := claim.DeepCopy()
	changed.Status.ReservedFor = append(changed.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
	return r.client.SubResource("status").Update(ctx, changed)
}

// claim forgets users that are over; what nobody uses gives its devices back, and goes if it was made for a pod that is over.
func (r *reconciler) claim(ctx context.Context, k crclient.ObjectKey) error {
	var claim resourcev1.ResourceClaim
	if err := r.client.Get(ctx, k, &claim); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	users, err := r.users(ctx, &claim)
	if err != nil {
		return err
	}
	next := plan(&claim, users)
	live := claim.DeepCopy()
	if next.status {
		live.Status.ReservedFor = users
		if next.free {
			live.Status.Allocation, live.Status.Devices = nil, nil
		}
		if err := r.client.SubResource("status").Update(ctx, live); err != nil {
			return crclient.IgnoreNotFound(err)
		}
	}
	if next.release {
		live.Finalizers = slices.DeleteFunc(live.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		if err := r.client.Update(ctx, live); err != nil {
			return crclient.IgnoreNotFound(err)
		}
	}
	return r.expire(ctx, live, users)
}

// change is what is to happen to a claim.
type change struct{ status, free, release bool }

// plan: a claim that loses its last user, or is to go and has none, gives its devices back and may go. One that has not been used yet keeps what it
// has, as its pod may be on its way.
func plan(c *resourcev1.ResourceClaim, users []resourcev1.ResourceClaimConsumerReference) (next change) {
	lost := len(users) < len(c.Status.ReservedFor)
	held := slices.Contains(c.Finalizers, resourcev1.Finalizer)
	unused := len(users) == 0 && (lost || c.DeletionTimestamp != nil)
	next.free = unused && c.Status.Allocation != nil
	next.status = lost || next.free
	next.release = unused && held
	return next
}

// users of a claim that are not over. Users that are no pods are somebody else's affair.
func (r *reconciler) users(ctx context.Context, c *resourcev1.ResourceClaim) (list []resourcev1.ResourceClaimConsumerReference, err error) {
	for _, u := range c.Status.ReservedFor {
		if u.APIGroup == "" && u.Resource == "pods" {
			gone, err := r.gone(ctx, c.Namespace, u.Name, u.UID)
			if err != nil {
				return nil, err
			}
			if gone {
				continue
			}
		}
		list = append(list, u)
	}
	return list, nil
}

func (r *reconciler) gone(ctx context.Context, namespace, name string, uid types.UID) (bool, error) {
	var pod corev1.Pod
	err := r.client.Get(ctx, crclient.ObjectKey{Namespace: namespace, Name: name}, &pod)
	if apierrors.IsNotFound(err) {
		err = r.client.Live().Get(ctx, crclient.ObjectKey{Namespace: namespace, Name: name}, &pod)
	}
	if err != nil {
		return apierrors.IsNotFound(err), crclient.IgnoreNotFound(err)
	}
	return pod.UID != uid || over(&pod), nil
}

// expire deletes an unused claim that was made for a pod which is over.
func (r *reconciler) expire(ctx context.Context, c *resourcev1.ResourceClaim, users []resourcev1.ResourceClaimConsumerReference) error {
	owner := ownerOf(c)
	if owner == nil || len(users) > 0 || c.DeletionTimestamp != nil {
		return nil
	}
	gone, err := r.gone(ctx, c.Namespace, owner.Name, owner.UID)
	if err != nil || !gone {
		return err
	}
	return crclient.IgnoreNotFound(r.client.Delete(ctx, c, crclient.Preconditions{UID: &c.UID}))
}
