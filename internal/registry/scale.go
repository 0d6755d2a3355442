package registry

import (
	"context"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// scaleOf is an object seen through its scale subresource.
func scaleOf(q *Request, e *store.Entry) *autoscalingv1.Scale {
	obj := e.Object()
	spec, status, selector := q.Resource.Scale.Get(obj)
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}
}

func scaleResult(q *Request, e *store.Entry) *Result { return &Result{Object: scaleOf(q, e)} }

func (r *Registry) updateScale(ctx context.Context, q *Request, prev *store.Entry, body runtime.Object, dryRun bool) (*store.Entry, error) {
	scale, ok := body.(*autoscalingv1.Scale)
	if !ok || q.Resource.Scale == nil {
		return nil, apierrors.NewBadRequest("the body of a scale must be an autoscaling/v1 Scale")
	}
	entries, err := r.managers.Scale(q.write(), prev.Object(), scaleOf(q, prev), scale)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("track who owns the scale of %s: %w", q.Name, err))
	}
	return r.storeScale(ctx, q, prev, scale, entries, dryRun)
}

// storeScale puts a number of replicas, and the entries that say who owns it, into the object.
func (r *Registry) storeScale(
	ctx context.Context, q *Request, prev *store.Entry, scale *autoscalingv1.Scale, entries []metav1.ManagedFieldsEntry, dryRun bool,
) (*store.Entry, error) {
	if err := addressed(q, scale); err != nil {
		return nil, err
	}
	if err := meant(q, scale, prev.Object()); err != nil {
		return nil, err
	}
	// Admission sees a Scale; what becomes of the object behind it is no request of its own.
	a := &Attributes{Request: q, Operation: "UPDATE", Object: scale, Old: scaleOf(q, prev), DryRun: dryRun, Options: q.options, Registry: r}
	if err := r.admit(ctx, a); err != nil {
		return nil, err
	}
	if scale.Spec.Replicas < 0 {
		return nil, apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), q.Name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "replicas"), scale.Spec.Replicas, "must be greater than or equal to 0")})
	}
	if err := r.validate(ctx, a); err != nil {
		return nil, err
	}
	obj := prev.Object().DeepCopyObject().(api.Object)
	q.Resource.Scale.Set(obj, scale.Spec.Replicas)
	obj.SetManagedFields(entries)
	main := q.settled()
	main.Subresource, main.Served, main.settledAdmission = "", nil, true
	return r.update(ctx, main, prev, obj, dryRun)
}
