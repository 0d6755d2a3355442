// Package podset is what all owners of pods do alike: wake when their pods change, claim what their selector gains, create and delete with
// the events that users know.
//
// A workload controller keeps one Kind and feeds it from its watch on pods. Its invariant is package owner's and package expect's: a pod has
// one controller, and each change that the cache has not shown yet is remembered.
package podset

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/expect"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
	"skiff.dev/skiff/internal/controller/podstate"
)

// Kind is one kind of owner.
type Kind struct {
	GVK    schema.GroupVersionKind
	Client client.Client
	Events record.EventRecorder

	// Owners lists a namespace's owners of the kind, who could adopt a pod that has none.
	Owners func(namespace string) []Owner

	Expect  expect.Book
	orphans owner.Orphans[*corev1.Pod]
}

// Owner is one that might adopt.
type Owner struct {
	Key      harness.Key
	Selector *metav1.LabelSelector
}

// Changed notes a pod's change and names the owners to wake: who has or had the pod, and everybody who could adopt it.
func (k *Kind) Changed(old, current *corev1.Pod) []harness.Key {
	k.orphans.Saw(old, current)
	var keys []harness.Key
	wake := func(p *corev1.Pod) (key harness.Key, ok bool) {
		key, ok = k.OwnerOf(p)
		if ok {
			keys = append(keys, key)
		}
		return key, ok
	}
	if old != nil && (current == nil || !equality.Semantic.DeepEqual(owner.Of(old), owner.Of(current))) {
		if key, ok := wake(old); ok {
			k.Expect.Deleted(key, old.UID)
		}
	}
	if current == nil {
		return keys
	}
	key, ok := wake(current)
	switch {
	case ok && current.DeletionTimestamp != nil:
		k.Expect.Deleted(key, current.UID)
	case ok && old == nil:
		k.Expect.Created(key)
	case !ok && owner.Of(current) == nil && (old == nil || !equality.Semantic.DeepEqual(old.Labels, current.Labels) || owner.Of(old) != nil):
		keys = append(keys, k.adopters(current)...)
	}
	return keys
}

// OwnerOf names the owner of this kind that controls a pod.
func (k *Kind) OwnerOf(p *corev1.Pod) (key harness.Key, ok bool) {
	ref := owner.Of(p)
	if ref == nil || ref.Kind != k.GVK.Kind || ref.APIVersion != k.GVK.GroupVersion().String() {
		return key, false
	}
	return harness.Key{Namespace: p.Namespace, Name: ref.Name}, true
}

func (k *Kind) adopters(pod *corev1.Pod) []harness.Key {
	var keys []harness.Key
	for _, o := range k.Owners(pod.Namespace) {
		selector, err := metav1.LabelSelectorAsSelector(o.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

// Claim returns the pods that are o's, after adoption and release. member, if given, says which orphans o would have at all.
func (k *Kind) Claim(ctx context.Context, o crclient.Object, selector labels.Selector, member func(*corev1.Pod) bool) ([]*corev1.Pod, error) {
	var owned corev1.PodList
	err := k.Client.List(ctx, &owned, crclient.InNamespace(o.GetNamespace()), crclient.MatchingFields{"owner.uid": string(o.GetUID())}, crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list pods of %s %s: %w", k.GVK.Kind, o.GetName(), err)
	}
	candidates := k.orphans.In(o.GetNamespace())
	for i := range owned.Items {
		candidates = append(candidates, &owned.Items[i])
	}
	claimer := owner.Claimer{Client: k.Client, Live: k.Client.Live(), Owner: o, GVK: k.GVK, Selector: selector}
	mine := make([]*corev1.Pod, 0, len(candidates))
	for _, pod := range candidates {
		if owner.Of(pod) == nil && (podstate.Terminal(pod) || member != nil && !member(pod)) {
			continue
		}
		ok, err := claimer.Claim(ctx, pod)
		if err != nil {
			return nil, err
		}
		if ok {
			mine = append(mine, pod)
		}
	}
	return mine, nil
}

// Create makes a pod of o's.
func (k *Kind) Create(ctx context.Context, o crclient.Object, pod *corev1.Pod) error {
	err := k.Client.Create(ctx, pod)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace life cycle deletes us too
	case err != nil:
		k.Events.Eventf(o, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	k.Events.Eventf(o, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", pod.Name)
	return nil
}

// Remove deletes one of o's pods; that it is gone already is no error.
func (k *Kind) Remove(ctx context.Context, o crclient.Object, pod *corev1.Pod) error {
	uid := pod.UID
	err := k.Client.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}, crclient.Preconditions{UID: &uid})
	if err == nil {
		k.Events.Eventf(o, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
		return nil
	}
	k.Expect.Deleted(crclient.ObjectKeyFromObject(o), pod.UID)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	k.Events.Eventf(o, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
	return err
}

// FromTemplate is a new pod of a template, controlled by o. Its name is still to be said.
func (k *Kind) FromTemplate(o metav1.Object, t *corev1.PodTemplateSpec) *corev1.Pod {
	t = t.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.GetNamespace(), Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o, k.GVK)},
		},
		Spec: t.Spec,
	}
}
