package crd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// A failed attempt to end objects is followed by another after endingPause.
const endingPause = 5 * time.Second

// beginEnding ends a definition's objects, then lets go of the definition. It takes as long as the objects' finalizers take.
func (r *Resources) beginEnding(ctx context.Context, d *definition, crd *apiextensionsv1.CustomResourceDefinition) {
	if d.stopEnding != nil {
		return
	}
	ctx, d.stopEnding = context.WithCancel(ctx)
	row, established := d.row, apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established)
	name, uid := crd.Name, crd.UID
	r.endings.Go(func() {
		for {
			err := r.end(ctx, row, established, name)
			if err == nil || ctx.Err() != nil {
				return
			}
			r.log.Warn("a definition's objects are not gone yet; trying again", "definition", name, "uid", uid, "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(endingPause):
			}
		}
	})
}

func (r *Resources) end(ctx context.Context, row *api.Resource, established bool, name string) error {
	last := terminating(apiextensionsv1.ConditionFalse, "NeverEstablished", "resource was never established")
	if established && row != nil {
		begun := terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
		if err := r.say(ctx, name, begun); err != nil {
			return err
		}
		if err := r.endObjects(ctx, row); err != nil {
			failed := terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionFailed", fmt.Sprintf("could not issue all deletes: %v", err))
			return errors.Join(err, r.say(ctx, name, failed))
		}
		last = terminating(apiextensionsv1.ConditionFalse, "InstanceDeletionCompleted", "removed all instances")
	}
	if err := r.say(ctx, name, last); err != nil {
		return err
	}
	return r.change(ctx, name, "", func(crd *apiextensionsv1.CustomResourceDefinition) {
		apihelpers.CRDRemoveFinalizer(crd, apiextensionsv1.CustomResourceCleanupFinalizer)
	})
}

func terminating(is apiextensionsv1.ConditionStatus, reason, message string) apiextensionsv1.CustomResourceDefinitionCondition {
	return condition(apiextensionsv1.Terminating, is, reason, message)
}

// endObjects deletes everything of a custom resource and waits until it is gone, however long finalizers take.
func (r *Resources) endObjects(ctx context.Context, row *api.Resource) error {
	c := r.reg.Store().Opened(row)
	if c == nil {
		return nil
	}
	w, err := c.Watch(ctx, store.WatchOptions{Any: true, FromNow: true, Keep: true})
	if err != nil {
		return err
	}
	defer w.Stop()
	background := metav1.DeletePropagationBackground
	q := &registry.Request{Resource: row, User: itself}
	if _, err := r.reg.DeleteCollection(ctx, q, &metav1.DeleteOptions{PropagationPolicy: &background}, &metainternalversion.ListOptions{}); err != nil {
		return err
	}
	var buf []store.Event
	for c.Len() > 0 {
		if buf, err = w.Next(ctx, buf, batch); err != nil {
			return err
		}
	}
	return nil
}

// say sets a condition.
func (r *Resources) say(ctx context.Context, name string, c apiextensionsv1.CustomResourceDefinitionCondition) error {
	return r.change(ctx, name, "status", func(crd *apiextensionsv1.CustomResourceDefinition) { apihelpers.SetCRDCondition(crd, c) })
}

// change reads a definition, changes it and writes it back, again if somebody else was faster. One that is gone is no matter.
func (r *Resources) change(ctx context.Context, name, subresource string, change func(*apiextensionsv1.CustomResourceDefinition)) error {
	for {
		out, err := r.reg.Get(ctx, r.request(name, ""), &metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		crd := out.Object.(*apiextensionsv1.CustomResourceDefinition).DeepCopy()
		change(crd)
		_, err = r.reg.Update(ctx, r.request(name, subresource), crd, &metav1.UpdateOptions{})
		switch {
		case err == nil || apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("change definition %s: %w", name, err)
		}
	}
}
