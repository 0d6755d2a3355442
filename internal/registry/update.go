package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/fieldmanager"
	"skiff.dev/skiff/internal/store"
)

// Update replaces the object (subresources "", status, scale, …). One that names no resourceVersion means whatever is there, so it is tried again when
// somebody else was faster.
func (r *Registry) Update(ctx context.Context, q *Request, body runtime.Object, o *metav1.UpdateOptions) (*Result, error) {
	if errs := metavalidation.ValidateUpdateOptions(o); len(errs) > 0 {
		return nil, invalidOptions("UpdateOptions", errs)
	}
	q, dryRun := q.by(o.FieldManager, o), len(o.DryRun) > 0
	if m, err := meta.Accessor(body); err != nil || m.GetResourceVersion() != "" || m.GetUID() != "" {
		return r.updateOnce(ctx, q, body, dryRun)
	}
	for try := 1; ; try++ {
		res, err := r.updateOnce(ctx, q, body.DeepCopyObject(), dryRun)
		if err == nil || !apierrors.IsConflict(err) || try == updateTries {
			return res, err
		}
	}
}

// updateTries is little, for a webhook's no is a conflict too.
const updateTries = 50

func (r *Registry) updateOnce(ctx context.Context, q *Request, body runtime.Object, dryRun bool) (*Result, error) {
	prev, err := r.get(ctx, q, store.Read{Consistent: true})
	if apierrors.IsNotFound(err) && q.Resource.CreateOnUpdate && q.Subresource == "" {
		return r.createMissing(ctx, q, body, dryRun)
	}
	if err != nil {
		return nil, err
	}
	if q.Subresource == "scale" {
		e, err := r.updateScale(ctx, q, prev, body, dryRun)
		if err != nil {
			return nil, err
		}
		return scaleResult(q, e), nil
	}
	obj, err := q.stored(body)
	if err != nil {
		return nil, err
	}
	if err := place(q, obj); err != nil {
		return nil, err
	}
	if err := conditional(q, obj); err != nil {
		return nil, err
	}
	e, err := r.update(ctx, q, prev, obj, dryRun)
	if err != nil {
		return nil, err
	}
	return q.result(e), nil
}

// createMissing creates what an update did not find. The body's resourceVersion means nothing then; its uid does.
func (r *Registry) createMissing(ctx context.Context, q *Request, body runtime.Object, dryRun bool) (*Result, error) {
	c, err := r.collection(q)
	if err != nil {
		return nil, err
	}
	obj, err := q.stored(body)
	if err != nil {
		return nil, err
	}
	if err := place(q, obj); err != nil {
		return nil, err
	}
	if uid := obj.GetUID(); uid != "" {
		return nil, apierrors.NewConflict(q.groupResource(), q.Name, fmt.Errorf("Precondition failed: UID in precondition: %s, UID in object meta: ", uid)) //nolint:staticcheck // upstream's words
	}
	if q.MayCreate != nil {
		if err := q.MayCreate(ctx); err != nil {
			return nil, err
		}
	}
	obj.SetResourceVersion("")
	e, err := r.create(ctx, q, c, obj, dryRun)
	if apierrors.IsAlreadyExists(err) { // since a moment ago: it is updated after all
		return nil, apierrors.NewConflict(q.groupResource(), q.Name, err)
	}
	if err != nil {
		return nil, err
	}
	out := q.result(e)
	out.Created = true
	return out, nil
}

// update puts obj in prev's place after all that an update goes through. It fails with a Conflict when prev is not what obj was made of.
func (r *Registry) update(ctx context.Context, q *Request, prev *store.Entry, obj api.Object, dryRun bool) (*store.Entry, error) {
	res, old := q.Resource, prev.Object()
	if err := place(q, obj); err != nil {
		return nil, err
	}
	if err := meant(q, obj, old); err != nil {
		return nil, err
	}
	entries := obj.GetManagedFields()
	obj, err := only(q, obj, old)
	if err != nil {
		return nil, err
	}
	keepMeta(obj, old)
	obj.SetManagedFields(entries)
	obj.GetObjectKind().SetGroupVersionKind(res.GVK())
	if res.Default != nil {
		res.Default(obj)
	}
	r.manage(q, old, obj)
	a := &Attributes{Request: q, Operation: "UPDATE", Object: obj, Old: old, DryRun: dryRun, Options: q.options, Registry: r}
	if err := r.admit(ctx, a); err != nil {
		return nil, err
	}
	if a.Mutated {
		if obj, err = mutated(q, obj, old); err != nil {
			return nil, err
		}
		a.Object = obj
	}
	api.DropAlpha(obj, old)
	if res.PrepareUpdate != nil && q.Subresource == "" {
		res.PrepareUpdate(obj, old)
	}
	if res.PrepareStatus != nil && q.Subresource == "status" {
		res.PrepareStatus(obj, old)
	}
	taken, err := r.allocate(q, obj, old)
	if err != nil {
		return nil, err
	}
	e, err := r.replace(ctx, q, prev, a, obj, dryRun)
	if err != nil || dryRun {
		r.failed(ctx, a)
		r.undone(ctx, q, taken)
		return e, err
	}
	taken.keep()
	return e, nil
}

// mutated is what of an object that a webhook or policy changed the request may change.
func mutated(q *Request, obj, old api.Object) (api.Object, error) {
	if err := place(q, obj); err != nil {
		return nil, err
	}
	entries := obj.GetManagedFields()
	obj, err := only(q, obj, old)
	if err != nil {
		return nil, err
	}
	keepMeta(obj, old)
	obj.SetManagedFields(entries)
	if q.Resource.Default != nil {
		q.Resource.Default(obj)
	}
	return obj, nil
}

// replace validates and stores; an object whose last finalizer went is removed instead.
func (r *Registry) replace(ctx context.Context, q *Request, prev *store.Entry, a *Attributes, obj api.Object, dryRun bool) (*store.Entry, error) {
	res, old := q.Resource, prev.Object()
	if res.Generation && q.Subresource != "status" && (changedContent(res, obj, old) || res.Counts != nil && res.Counts(obj, old)) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	errs := validateChange(q, obj, old)
	if len(errs) > 0 && res.Custom == nil { // custom resources' schemas say themselves what they forgive; a rule may well refuse that nothing changes
		errs = brought(errs, validateChange(q, old, old))
	}
	errs = append(errs, lateFinalizers(obj, old)...)
	if len(errs) > 0 {
		return nil, invalid(q, obj, unique(errs)...)
	}
	if err := r.validate(ctx, a); err != nil {
		return nil, err
	}
	if res.Warn != nil {
		q.warn(res.Warn(obj, old))
	}
	switch {
	case fieldmanager.SameButTimes(obj, old) && !r.stale(q, prev):
		return prev, nil
	case dryRun:
		return store.NewEntry(res, obj), nil
	case goes(res, obj):
		return r.remove(ctx, q, prev, obj)
	}
	return r.put(ctx, q, prev, obj)
}

// stale says that what is stored should be written again although the object stays the same.
func (r *Registry) stale(q *Request, e *store.Entry) bool {
	c, err := r.collection(q)
	return err == nil && c.Stale(e)
}

func validateChange(q *Request, obj, old api.Object) field.ErrorList {
	res, errs := q.Resource, validateMetaUpdate(obj, old)
	switch {
	case q.Subresource == "status":
		if res.ValidateStatus != nil {
			errs = append(errs, res.ValidateStatus(obj, old)...)
		}
	case res.ValidateUpdate != nil:
		errs = append(errs, res.ValidateUpdate(obj, old)...)
	}
	if res.ValidateMain != nil && q.Subresource == "" {
		errs = append(errs, res.ValidateMain(obj, old)...)
	}
	return errs
}

// brought is what of the errors the change brings. What is told of the object as it was before, in the same words, was stored under another version's
// rules and stays as it is (KEP-4008 calls it ratcheting).
func brought(errs, before field.ErrorList) field.ErrorList {
	if len(before) == 0 {
		return errs
	}
	old := map[string]bool{}
	for _, e := range before {
		old[e.Error()] = true
	}
	return slices.DeleteFunc(errs, func(e *field.Error) bool { return old[e.Error()] })
}

// goes says that nothing keeps an object whose deletion has begun.
func goes(res *api.Resource, obj api.Object) bool {
	if obj.GetDeletionTimestamp() == nil || len(obj.GetFinalizers()) > 0 {
		return false
	}
	if g := obj.GetDeletionGracePeriodSeconds(); g != nil && *g > 0 {
		return false
	}
	return res.Held == nil || !res.Held(obj)
}

// remove deletes the entry; last is what it would have become.
func (r *Registry) remove(ctx context.Context, q *Request, prev *store.Entry, last api.Object) (*store.Entry, error) {
	c, err := r.opened(q.Resource)
	if err != nil {
		return nil, err
	}
	gone, err := c.Delete(ctx, prev, r.beside(nil, prev.Object())...)
	if err != nil {
		return nil, err
	}
	r.release(prev.Object())
	r.mend(ctx, prev.Object())
	if last == nil {
		return gone, nil
	}
	last.SetResourceVersion(gone.Object().GetResourceVersion())
	return store.NewEntry(q.Resource, last), nil
}

// meant refuses an update that was made for another object or another state of it.
func meant(q *Request, obj, old api.Object) error {
	if uid := obj.GetUID(); uid != "" && uid != old.GetUID() {
		return apierrors.NewConflict(q.groupResource(), q.Name,
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, old.GetUID()))
	}
	if rv := obj.GetResourceVersion(); rv != "" && rv != "0" && rv != old.GetResourceVersion() {
		return apierrors.NewConflict(q.groupResource(), q.Name, errStale)
	}
	return nil
}

var errStale = errors.New("the object has been modified; please apply your changes to the latest version and try again")

func lateFinalizers(obj, old api.Object) (errs field.ErrorList) {
	if old.GetDeletionTimestamp() == nil {
		return nil
	}
	for _, f := range obj.GetFinalizers() {
		if !slices.Contains(old.GetFinalizers(), f) {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "finalizers"),
				fmt.Sprintf("no new finalizers can be added if the object is being deleted, found new finalizers []string{%q}", f)))
		}
	}
	return errs
}

// only is what of obj the request's subresource may change; the rest stays as it is in old.
func only(q *Request, obj, old api.Object) (api.Object, error) {
	res := q.Resource
	switch q.Subresource {
	case "":
		if res.Status {
			copyStatus(obj, old)
		}
		if n, ok := obj.(*corev1.Namespace); ok {
			n.Spec.Finalizers = old.(*corev1.Namespace).Spec.Finalizers
		}
		return obj, nil
	case "status":
		if !res.Status {
			break
		}
		out := old.DeepCopyObject().(api.Object)
		copyStatus(out, obj)
		if res.StatusMeta != nil {
			res.StatusMeta(out, obj)
		}
		return out, nil
	case "finalize":
		out := old.DeepCopyObject().(*corev1.Namespace)
		out.Spec.Finalizers = obj.(*corev1.Namespace).Spec.Finalizers
		return out, nil
	case "ephemeralcontainers":
		out := old.DeepCopyObject().(*corev1.Pod)
		out.Spec.EphemeralContainers = obj.(*corev1.Pod).Spec.EphemeralContainers
		return out, nil
	case "resize":
		out, given := old.DeepCopyObject().(*corev1.Pod), obj.(*corev1.Pod)
		api.TakeResources(out.Spec.Containers, given.Spec.Containers)
		api.TakeResources(out.Spec.InitContainers, given.Spec.InitContainers)
		out.Spec.Resources = given.Spec.Resources
		return out, nil
	}
	for _, s := range res.Subresources {
		if s.Name == q.Subresource && s.Change != nil {
			out := old.DeepCopyObject().(api.Object)
			s.Change(out, obj)
			return out, nil
		}
	}
	return nil, apierrors.NewMethodNotSupported(q.groupResource(), "update of "+q.Subresource)
}
