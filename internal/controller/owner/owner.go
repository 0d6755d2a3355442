// Package owner is how controllers own objects: controller references, and the adoption and release of what a selector gains or loses.
//
// Its invariant is upstream's: an object has at most one controller, it is adopted only while its new owner is known to live under the
// same UID, and both patches carry the object's UID so that they never hit a namesake.
package owner

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Of returns an object's controller reference, nil if it has none.
func Of(obj metav1.Object) *metav1.OwnerReference { return metav1.GetControllerOfNoCopy(obj) }

// By says whether obj is controlled by the owner with this UID.
func By(obj metav1.Object, uid types.UID) bool {
	ref := Of(obj)
	return ref != nil && ref.UID == uid
}

// Verdict is what to do about one object.
type Verdict int

// Ignore: not ours. Keep: ours. Adopt: an orphan that matches. Release: ours, but it matches no longer.
const (
	Ignore Verdict = iota
	Keep
	Adopt
	Release
)

// Judge decides about obj for the owner with the given selector. deleting says that the owner is being deleted: it keeps what it has and
// changes nothing.
func Judge(obj metav1.Object, uid types.UID, selector labels.Selector, deleting bool) Verdict {
	ref, match := Of(obj), selector.Matches(labels.Set(obj.GetLabels()))
	switch {
	case ref != nil && ref.UID != uid:
		return Ignore
	case ref != nil && (match || deleting):
		if !match {
			return Ignore
		}
		return Keep
	case ref != nil:
		return Release
	case !match || deleting || obj.GetDeletionTimestamp() != nil:
		return Ignore
	}
	return Adopt
}

// Claimer carries verdicts out.
type Claimer struct {
	Client   crclient.Client
	Live     crclient.Reader
	Owner    crclient.Object // as the cache has it
	GVK      schema.GroupVersionKind
	Selector labels.Selector

	checked bool
}

// Claim decides about candidate and acts. It says whether the candidate is the owner's afterwards.
func (c *Claimer) Claim(ctx context.Context, candidate crclient.Object) (mine bool, err error) {
	switch Judge(candidate, c.Owner.GetUID(), c.Selector, c.Owner.GetDeletionTimestamp() != nil) {
	case Keep:
		return true, nil
	case Adopt:
		return c.adopt(ctx, candidate)
	case Release:
		return false, c.release(ctx, candidate)
	}
	return false, nil
}

// adopt first reads the owner live, once per Claimer: the cache may not know yet that it was deleted.
func (c *Claimer) adopt(ctx context.Context, obj crclient.Object) (bool, error) {
	if !c.checked {
		fresh := c.Owner.DeepCopyObject().(crclient.Object)
		if err := c.Live.Get(ctx, crclient.ObjectKeyFromObject(c.Owner), fresh); err != nil {
			return false, fmt.Errorf("check that %s %s still exists: %w", c.GVK.Kind, c.Owner.GetName(), err)
		}
		if fresh.GetUID() != c.Owner.GetUID() || fresh.GetDeletionTimestamp() != nil {
			return false, fmt.Errorf("%s %s was replaced or is being deleted and adopts nothing", c.GVK.Kind, c.Owner.GetName())
		}
		c.checked = true
	}
	ref := metav1.NewControllerRef(c.Owner, c.GVK)
	err := c.patch(ctx, obj, []any{ref})
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return false, nil // it went, or somebody else took it: the next event tells
	}
	if err != nil {
		return false, fmt.Errorf("adopt %s: %w", obj.GetName(), err)
	}
	return true, nil
}

func (c *Claimer) release(ctx context.Context, obj crclient.Object) error {
	err := c.patch(ctx, obj, []any{map[string]any{"$patch": "delete", "uid": c.Owner.GetUID()}})
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("release %s: %w", obj.GetName(), err)
	}
	return nil
}

func (c *Claimer) patch(ctx context.Context, obj crclient.Object, references []any) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": obj.GetUID(), "ownerReferences": references}})
	if err != nil {
		return err
	}
	target := obj.DeepCopyObject().(crclient.Object)
	return c.Client.Patch(ctx, target, crclient.RawPatch(types.StrategicMergePatchType, body))
}
