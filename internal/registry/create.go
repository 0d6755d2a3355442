package registry

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// generateTries is how often a generated name that is taken is generated anew.
const generateTries = 8

// Create also serves POSTs to subresources (pods/binding, pods/eviction, serviceaccounts/token) and unstored kinds.
func (r *Registry) Create(ctx context.Context, q *Request, body runtime.Object, o *metav1.CreateOptions) (*Result, error) {
	if errs := metavalidation.ValidateCreateOptions(o); len(errs) > 0 {
		return nil, invalidOptions("CreateOptions", errs)
	}
	q, dryRun := q.by(o.FieldManager, o), len(o.DryRun) > 0
	if v := r.virtual(q); v != nil {
		if m, err := meta.Accessor(body); err == nil {
			if err := addressed(q, m); err != nil {
				return nil, err
			}
		}
		return r.answer(ctx, q, v, body, dryRun)
	}
	if q.Subresource != "" {
		return nil, apierrors.NewMethodNotSupported(q.groupResource(), "create")
	}
	c, err := r.collection(q)
	if err != nil {
		return nil, apierrors.NewMethodNotSupported(q.groupResource(), "create")
	}
	obj, err := q.stored(body)
	if err != nil {
		return nil, err
	}
	if err := place(q, obj); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		attempt := obj
		generated := obj.GetName() == "" && obj.GetGenerateName() != ""
		if generated && try < generateTries {
			attempt = obj.DeepCopyObject().(api.Object)
		}
		if generated {
			attempt.SetName(generateName(obj.GetGenerateName()))
		}
		e, err := r.create(ctx, q, c, attempt, dryRun)
		switch {
		case err == nil:
			return q.result(e), nil
		case generated && apierrors.IsAlreadyExists(err) && try < generateTries:
			continue
		case generated && apierrors.IsAlreadyExists(err):
			return nil, apierrors.NewGenerateNameConflict(q.groupResource(), attempt.GetName(), 1)
		}
		return nil, err
	}
}

// answer runs a Virtual between the two halves of admission.
func (r *Registry) answer(ctx context.Context, q *Request, v Virtual, body runtime.Object, dryRun bool) (*Result, error) {
	a := &Attributes{Request: q, Operation: "CREATE", Object: body, DryRun: dryRun, Options: q.options, Registry: r}
	if err := r.admit(ctx, a); err != nil {
		return nil, err
	}
	if err := r.validate(ctx, a); err != nil {
		return nil, err
	}
	out, err := v(ctx, q, a.Object, dryRun)
	if err != nil {
		return nil, err
	}
	return &Result{Object: out}, nil
}

// create takes an object with a name through all that a new object goes through.
func (r *Registry) create(ctx context.Context, q *Request, c *store.Collection, obj api.Object, dryRun bool) (*store.Entry, error) {
	res := q.Resource
	if err := creatable(q, obj.GetName()); err != nil {
		return nil, err
	}
	if res.Default != nil {
		res.Default(obj)
	}
	r.manage(q, nil, obj)
	a := &Attributes{Request: q, Operation: "CREATE", Object: obj, DryRun: dryRun, Options: q.options, Registry: r}
	if err := r.admit(ctx, a); err != nil {
		return nil, err
	}
	if a.Mutated {
		if err := place(q, obj); err != nil {
			return nil, err
		}
	}
	beginMeta(res, obj)
	if res.Status && !res.StatusOnCreate {
		dropStatus(obj)
	}
	api.DropAlpha(obj, nil)
	if res.PrepareCreate != nil {
		res.PrepareCreate(obj)
	}
	if res.Default != nil { // what admission and preparation added is defaulted too
		res.Default(obj)
	}
	taken, err := r.allocate(q, obj, nil)
	if err != nil {
		return nil, err
	}
	e, err := r.admitted(ctx, q, c, a, obj, dryRun)
	if err != nil || dryRun {
		r.failed(ctx, a)
		r.undone(ctx, q, taken)
		return e, err
	}
	taken.keep()
	return e, nil
}

// admitted validates and stores.
func (r *Registry) admitted(ctx context.Context, q *Request, c *store.Collection, a *Attributes, obj api.Object, dryRun bool) (*store.Entry, error) {
	res := q.Resource
	errs := validateMeta(res, obj)
	if res.Validate != nil {
		errs = append(errs, res.Validate(obj)...)
	}
	if len(errs) > 0 {
		return nil, invalid(q, obj, unique(errs)...)
	}
	if err := r.validate(ctx, a); err != nil {
		return nil, err
	}
	if obj.GetResourceVersion() != "" { // as upstream, only what admission lets in is told so
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	if res.Warn != nil {
		q.warn(res.Warn(obj, nil))
	}
	at := &Request{Resource: res, Namespace: obj.GetNamespace(), Name: obj.GetName()}
	if dryRun {
		found, err := c.Get(ctx, at.key(), store.Read{Consistent: true})
		if err == nil && found != nil {
			err = apierrors.NewAlreadyExists(q.groupResource(), obj.GetName())
		}
		return store.NewEntry(res, obj), err
	}
	return r.put(ctx, q, nil, obj)
}

// unique drops errors that two rules found alike.
func unique(errs field.ErrorList) (out field.ErrorList) {
	seen := map[string]bool{}
	for _, e := range errs {
		if text := e.Error(); !seen[text] {
			seen[text] = true
			out = append(out, e)
		}
	}
	return out
}
