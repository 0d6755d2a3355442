package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/exponent"
	"skiff.dev/skiff/internal/store"
)

// apply is a patch of the kind application/apply-patch+yaml: the fields that its manager wants, of an object that need not exist yet.
func (r *Registry) apply(ctx context.Context, q *Request, body []byte, o *metav1.PatchOptions, dryRun bool) (*Result, error) {
	applied, err := decodeApplied(q, body, o.FieldValidation)
	if err != nil {
		return nil, err
	}
	force := o.Force != nil && *o.Force
	for try := 1; ; try++ {
		prev, err := r.get(ctx, q, store.Read{Consistent: true})
		var out *Result
		switch {
		case apierrors.IsNotFound(err) && q.Subresource == "":
			out, err = r.applyNew(ctx, q, applied.DeepCopy(), force, dryRun)
			if !apierrors.IsAlreadyExists(err) || try == patchTries {
				return out, err
			}
			continue
		case err != nil:
			return nil, err
		case q.Subresource == "scale":
			out, err = r.applyScale(ctx, q, prev, applied.DeepCopy(), force, dryRun)
		default:
			out, err = r.applyTo(ctx, q, prev, applied.DeepCopy(), force, dryRun)
		}
		// A conflict over fields, or with a resourceVersion that was applied, stays one.
		if !apierrors.IsConflict(err) || apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) ||
			applied.GetResourceVersion() != "" || applied.GetUID() != "" || try == patchTries {
			return out, err
		}
	}
}

// decodeApplied reads YAML or JSON. Fields given twice are an error or a warning, as the client asked; unknown ones never get past the merge.
func decodeApplied(q *Request, body []byte, validation string) (*unstructured.Unstructured, error) {
	bad := func(err error) error { return apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err)) }
	raw, err := yaml.YAMLToJSON(body)
	if err != nil {
		return nil, bad(err)
	}
	if err := exponent.JSON(raw, newTarget(q)); err != nil {
		return nil, bad(err)
	}
	out := &unstructured.Unstructured{Object: map[string]any{}}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &out.Object); err != nil {
		return nil, bad(err)
	}
	if validation == metav1.FieldValidationIgnore {
		return out, nil
	}
	if err := yaml.UnmarshalStrict(body, &map[string]any{}); err != nil {
		if validation == metav1.FieldValidationStrict {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", err))
		}
		q.warn([]string{err.Error()})
	}
	return out, nil
}

// applyTo applies to an object that is there.
func (r *Registry) applyTo(ctx context.Context, q *Request, prev *store.Entry, applied *unstructured.Unstructured, force, dryRun bool) (*Result, error) {
	obj, err := r.managers.Apply(q.write(), prev.Object(), applied, force)
	if err != nil {
		return nil, err
	}
	if err := fit(q.Resource, obj); err != nil {
		return nil, err
	}
	e, err := r.update(ctx, q.settled(), prev, obj, dryRun)
	if err != nil {
		return nil, err
	}
	return q.result(e), nil
}

// fit makes what a merge left of a custom resource fit its schema; other kinds have got their Go types by now.
func fit(res *api.Resource, obj api.Object) error {
	u, free := obj.(*unstructured.Unstructured)
	if !free || res.Custom == nil {
		return nil
	}
	if _, err := res.Custom.Coerce(u, false); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// applyNew creates what is applied, if the user may.
func (r *Registry) applyNew(ctx context.Context, q *Request, applied *unstructured.Unstructured, force, dryRun bool) (*Result, error) {
	c, err := r.collection(q)
	if err != nil {
		return nil, err
	}
	none := q.Resource.New()
	none.GetObjectKind().SetGroupVersionKind(q.Resource.GVK())
	obj, err := r.managers.Apply(q.write(), none, applied, force)
	if err != nil {
		return nil, err
	}
	if err := fit(q.Resource, obj); err != nil {
		return nil, err
	}
	if uid := obj.GetUID(); uid != "" {
		return nil, apierrors.NewConflict(q.groupResource(), q.Name,
			fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", uid))
	}
	if q.MayCreate != nil {
		if err := q.MayCreate(ctx); err != nil {
			return nil, err
		}
	}
	if err := place(q, obj); err != nil {
		return nil, err
	}
	obj.SetResourceVersion("")
	e, err := r.create(ctx, q.settled(), c, obj, dryRun)
	if err != nil {
		return nil, err
	}
	out := q.result(e)
	out.Created = true
	return out, nil
}

// applyScale applies to an object's number of replicas.
func (r *Registry) applyScale(ctx context.Context, q *Request, prev *store.Entry, applied *unstructured.Unstructured, force, dryRun bool) (*Result, error) {
	if q.Resource.Scale == nil {
		return nil, apierrors.NewMethodNotSupported(q.groupResource(), "patch of scale")
	}
	scale, entries, err := r.managers.ApplyScale(q.write(), prev.Object(), scaleOf(q, prev), applied, force)
	if err != nil {
		return nil, err
	}
	e, err := r.storeScale(ctx, q, prev, scale, entries, dryRun)
	if err != nil {
		return nil, err
	}
	return scaleResult(q, e), nil
}
