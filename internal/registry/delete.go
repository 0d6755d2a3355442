package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// Delete begins or completes an object's deletion.
func (r *Registry) Delete(ctx context.Context, q *Request, o *metav1.DeleteOptions) (*Result, error) {
	if errs := metavalidation.ValidateDeleteOptions(o); len(errs) > 0 {
		return nil, invalidOptions("DeleteOptions", errs)
	}
	dryRun := len(o.DryRun) > 0
	if unsafe(o) {
		return r.deleteUnreadable(ctx, q, dryRun)
	}
	for try := 1; ; try++ {
		prev, err := r.get(ctx, q, store.Read{Consistent: true})
		if err != nil {
			return nil, err
		}
		if err := preconditions(q, prev.Object(), o.Preconditions); err != nil {
			return nil, err
		}
		if keep := q.Resource.Keep; keep != nil {
			if err := keep(prev.Object()); err != nil {
				return nil, apierrors.NewForbidden(q.groupResource(), q.Name, err)
			}
		}
		a := &Attributes{Request: q, Operation: "DELETE", Old: prev.Object(), DryRun: dryRun, Options: o, Registry: r}
		if err := r.admit(ctx, a); err != nil {
			return nil, err
		}
		if err := r.validate(ctx, a); err != nil {
			return nil, err
		}
		out, err := r.delete(ctx, q, prev, o, dryRun)
		if !apierrors.IsConflict(err) || try == patchTries || o.Preconditions != nil && o.Preconditions.ResourceVersion != nil {
			return out, err
		}
	}
}

func preconditions(q *Request, obj api.Object, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != obj.GetUID() {
		return apierrors.NewConflict(q.groupResource(), q.Name,
			fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, obj.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(q.groupResource(), q.Name,
			fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified",
				*p.ResourceVersion, obj.GetResourceVersion()))
	}
	return nil
}

// delete removes the object at once, or marks it and leaves the rest to whoever holds it: finalizers, or the node that runs it.
func (r *Registry) delete(ctx context.Context, q *Request, prev *store.Entry, o *metav1.DeleteOptions, dryRun bool) (*Result, error) {
	res, old := q.Resource, prev.Object()
	obj := old.DeepCopyObject().(api.Object)
	setFinalizers(res, obj, o)
	var grace int64
	if res.GracefulDelete != nil {
		grace = res.GracefulDelete(obj, o)
	}
	if begun := obj.GetDeletionTimestamp(); begun == nil {
		obj.SetDeletionTimestamp(pointTo(metav1.NewTime(now().Add(time.Duration(grace) * time.Second))))
		obj.SetDeletionGracePeriodSeconds(&grace)
		if obj.GetGeneration() > 0 {
			obj.SetGeneration(obj.GetGeneration() + 1)
		}
	} else if left := obj.GetDeletionGracePeriodSeconds(); left != nil && grace < *left {
		asked := begun.Add(-time.Duration(*left) * time.Second)
		obj.SetDeletionTimestamp(pointTo(metav1.NewTime(asked.Add(time.Duration(grace) * time.Second))))
		obj.SetDeletionGracePeriodSeconds(&grace)
	}
	if res.Terminating != nil {
		res.Terminating(obj)
	}
	switch {
	case goes(res, obj) && dryRun:
		return &Result{Object: obj, Entry: q.View(prev), Deleted: true}, nil
	case goes(res, obj):
		e, err := r.remove(ctx, q, prev, nil)
		if err != nil {
			return nil, err
		}
		out := q.result(e)
		out.Deleted = true
		return out, nil
	case same(obj, old) || dryRun:
		return q.result(prev), nil
	}
	e, err := r.put(ctx, q, prev, obj)
	if err != nil {
		return nil, err
	}
	return q.result(e), nil
}

func pointTo[T any](v T) *T { return &v }

// setFinalizers makes the garbage collector's finalizers say what the propagation policy means.
func setFinalizers(res *api.Resource, obj api.Object, o *metav1.DeleteOptions) {
	list := obj.GetFinalizers()
	foreground, orphan := slices.Contains(list, metav1.FinalizerDeleteDependents), slices.Contains(list, metav1.FinalizerOrphanDependents)
	switch {
	case o.OrphanDependents != nil: //nolint:staticcheck // clients may still send it
		orphan, foreground = *o.OrphanDependents, false //nolint:staticcheck
	case o.PropagationPolicy != nil:
		foreground = *o.PropagationPolicy == metav1.DeletePropagationForeground
		orphan = *o.PropagationPolicy == metav1.DeletePropagationOrphan
	case !foreground && !orphan:
		orphan = res.DefaultPropagation == metav1.DeletePropagationOrphan
	}
	out := slices.DeleteFunc(slices.Clone(list), func(f string) bool {
		return f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
	})
	if foreground {
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	if orphan {
		out = append(out, metav1.FinalizerOrphanDependents)
	}
	if !sets.New(list...).Equal(sets.New(out...)) {
		obj.SetFinalizers(out)
	}
}

// deleteWorkers is how many objects of a collection are deleted at once.
const deleteWorkers = 16

// DeleteCollection deletes everything that is listed.
func (r *Registry) DeleteCollection(ctx context.Context, q *Request, o *metav1.DeleteOptions, l *metainternalversion.ListOptions) ([]*store.Entry, error) {
	if unsafe(o) {
		return nil, invalidOptions("DeleteOptions", field.ErrorList{field.Invalid(field.NewPath("ignoreStoreReadErrorWithClusterBreakingPotential"), true,
			"is not allowed with DELETECOLLECTION, try again after removing the option")})
	}
	page, err := r.List(ctx, q, l)
	if err != nil {
		return nil, err
	}
	var (
		mu   sync.Mutex
		errs []error
		wg   sync.WaitGroup
		work = make(chan *store.Entry)
	)
	for range min(deleteWorkers, len(page.Entries)) {
		wg.Go(func() {
			for e := range work {
				one := *q
				one.Steps = nil // they are of one goroutine
				one.Namespace, one.Name = e.Object().GetNamespace(), e.Object().GetName()
				if _, err := r.Delete(ctx, &one, o.DeepCopy()); err != nil && !apierrors.IsNotFound(err) {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, e := range page.Entries {
		work <- e
	}
	close(work)
	wg.Wait()
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return q.Show(ctx, page.Entries)
}
