package history

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/owner"
)

// Keeper writes one owner's revisions. It lives for one pass.
type Keeper struct {
	Client    client.Client
	Owner     crclient.Object
	GVK       schema.GroupVersionKind
	Selector  labels.Selector
	HashLabel string // the label that a revision bears its hash in
}

// List returns the owner's revisions in order, after adoption and release.
func (k *Keeper) List(ctx context.Context) ([]*appsv1.ControllerRevision, error) {
	claimer := owner.Claimer{Client: k.Client, Live: k.Client.Live(), Owner: k.Owner, GVK: k.GVK, Selector: k.Selector}
	var mine []*appsv1.ControllerRevision
	for _, uid := range []string{string(k.Owner.GetUID()), ""} { // its own, and those of nobody
		var list appsv1.ControllerRevisionList
		err := k.Client.List(ctx, &list, crclient.InNamespace(k.Owner.GetNamespace()), crclient.MatchingFields{"owner.uid": uid}, crclient.UnsafeDisableDeepCopy)
		if err != nil {
			return nil, fmt.Errorf("list revisions of %s %s: %w", k.GVK.Kind, k.Owner.GetName(), err)
		}
		for i := range list.Items {
			ok, err := claimer.Claim(ctx, &list.Items[i])
			if err != nil {
				return nil, err
			}
			if ok {
				mine = append(mine, &list.Items[i])
			}
		}
	}
	Sort(mine)
	return mine, nil
}

// Present makes sure that the newest revision is that of template t, and returns it with the count of collisions that is to be kept in the
// owner's status. all is what List returned; the result holds the present revision too.
func (k *Keeper) Present(ctx context.Context, all []*appsv1.ControllerRevision, t *corev1.PodTemplateSpec, collisions int32) (
	present *appsv1.ControllerRevision, now []*appsv1.ControllerRevision, collided int32, err error) {
	patch, err := Patch(t)
	if err != nil {
		return nil, nil, collisions, fmt.Errorf("encode the template of %s %s: %w", k.GVK.Kind, k.Owner.GetName(), err)
	}
	present, number := Choose(all, t, patch)
	switch {
	case present == nil:
		if present, collisions, err = k.create(ctx, t, patch, number, collisions); err != nil {
			return nil, nil, collisions, err
		}
		all = append(all, present)
	case present.Revision != number:
		renumbered := present.DeepCopy()
		if err := k.patch(ctx, renumbered, map[string]any{"revision": number}); err != nil {
			return nil, nil, collisions, err
		}
		for i := range all {
			if all[i] == present {
				all[i] = renumbered
			}
		}
		present = renumbered
	}
	Sort(all)
	return present, all, collisions, nil
}

// create tries names until it finds one that is free, or is this very revision.
func (k *Keeper) create(ctx context.Context, t *corev1.PodTemplateSpec, patch []byte, number int64, collisions int32) (*appsv1.ControllerRevision, int32, error) {
	for {
		hash := Hash(patch, collisions)
		r := &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: k.Owner.GetNamespace(), Name: name(k.Owner.GetName(), hash), Labels: maps.Clone(t.Labels), Annotations: maps.Clone(k.Owner.GetAnnotations()),
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(k.Owner, k.GVK)},
			},
			Data: runtime.RawExtension{Raw: patch}, Revision: number,
		}
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		r.Labels[k.HashLabel] = hash
		made := r.DeepCopy()
		err := k.Client.Create(ctx, made)
		if err == nil {
			return made, collisions, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, collisions, fmt.Errorf("create ControllerRevision %s: %w", r.Name, err)
		}
		var taken appsv1.ControllerRevision
		if err := k.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(r), &taken); err != nil {
			return nil, collisions, fmt.Errorf("look at the existing ControllerRevision %s: %w", r.Name, err)
		}
		if owner.By(&taken, k.Owner.GetUID()) && same(&taken, t, patch) {
			return &taken, collisions, nil // ours, and the cache doesn't know yet
		}
		collisions++
	}
}

// Remove deletes revisions.
func (k *Keeper) Remove(ctx context.Context, revisions []*appsv1.ControllerRevision) error {
	for _, r := range revisions {
		uid := r.UID
		err := k.Client.Delete(ctx, &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Name}}, crclient.Preconditions{UID: &uid})
		if err := crclient.IgnoreNotFound(err); err != nil {
			return fmt.Errorf("remove old ControllerRevision %s: %w", r.Name, err)
		}
	}
	return nil
}

// patch changes a revision in place.
func (k *Keeper) patch(ctx context.Context, r *appsv1.ControllerRevision, change map[string]any) error {
	change["metadata"] = map[string]any{"uid": r.UID}
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	if err := k.Client.Patch(ctx, r, crclient.RawPatch(types.MergePatchType, body)); err != nil {
		return fmt.Errorf("renumber ControllerRevision %s: %w", r.Name, err)
	}
	return nil
}
