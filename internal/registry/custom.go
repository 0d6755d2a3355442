package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/exponent"
	"skiff.dev/skiff/internal/store"
)

// Custom resources take the same way as all others. Each of their versions is a row of its own; what is stored may be of another version, or
// older than the schema, and is brought to the request's row when it is read and to the stored version when it is written.

// Show brings stored entries to what the request speaks. For custom resources that may ask a webhook, once for all of them.
func (q *Request) Show(ctx context.Context, entries []*store.Entry) ([]*store.Entry, error) {
	res := q.Resource
	if res.Custom == nil && q.Served == nil {
		return entries, nil
	}
	out := make([]*store.Entry, len(entries))
	var missing []int
	var objs []api.Object
	for i, e := range entries {
		if res.Custom == nil {
			out[i] = q.View(e)
		} else if out[i] = e.Viewed(res); out[i] == nil {
			missing, objs = append(missing, i), append(objs, e.Own())
		}
	}
	if len(objs) == 0 {
		return out, nil
	}
	made, err := res.Custom.Load(ctx, objs)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	for j, i := range missing {
		out[i] = entries[i].SetViewed(res, made[j])
	}
	return out, nil
}

// opened is the collection of a row. That of a custom resource whose definition has gone in the meantime is not opened again.
func (r *Registry) opened(res *api.Resource) (*store.Collection, error) {
	if res.Custom == nil {
		return r.cfg.Store.Collection(res), nil
	}
	if c := r.cfg.Store.Opened(res); c != nil {
		return c, nil
	}
	return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{},
	}}
}

// put stores a new object, or one in prev's place.
func (r *Registry) put(ctx context.Context, q *Request, prev *store.Entry, obj api.Object) (*store.Entry, error) {
	res := q.Resource
	c, err := r.opened(res)
	if err != nil {
		return nil, err
	}
	stored := obj
	if res.Custom != nil {
		if stored, err = res.Custom.Save(ctx, obj); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	var e *store.Entry
	if prev != nil {
		e, err = c.Update(ctx, prev, stored, r.beside(obj, prev.Object())...)
	} else {
		at := &Request{Resource: res, Namespace: obj.GetNamespace(), Name: obj.GetName()}
		e, err = c.Create(ctx, at.key(), stored, r.beside(obj, nil)...)
	}
	err = lost(q, err)
	switch {
	case err != nil || res.Custom == nil:
		return e, err
	case stored == obj:
		e.ShownAsIs(res)
		return e, nil
	}
	shown, err := q.Show(ctx, []*store.Entry{e})
	if err != nil {
		return nil, err
	}
	return shown[0], nil
}

// creatable refuses new objects of a kind that is about to go.
func creatable(q *Request, name string) error {
	if c := q.Resource.Custom; c != nil && c.Closing {
		return apierrors.NewForbidden(q.groupResource(), name, errors.New("create not allowed while custom resource definition is terminating"))
	}
	return nil
}

// conditional refuses an update that does not say what it was made of, where that is asked for.
func conditional(q *Request, obj api.Object) error {
	if !q.Resource.Conditional || obj.GetResourceVersion() != "" {
		return nil
	}
	return invalid(q, obj, field.Invalid(field.NewPath("metadata", "resourceVersion"), uint64(0), "must be specified for an update"))
}

// patchable refuses a patch that needs to know the Go type.
func patchable(q *Request, kind types.PatchType) error {
	if q.Resource.Custom == nil || kind != types.StrategicMergePatchType || q.Subresource == "scale" {
		return nil
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: fmt.Sprintf("the body of the request was in an unknown format - accepted media types include: %s, %s, %s",
			types.JSONPatchType, types.MergePatchType, types.ApplyYAMLPatchType),
	}}
}

// DecodeCustom reads the JSON of a custom resource as its row sees it. strict is what a Go type's decoder would find fault with, if named: fields that
// come twice, and such that the schema does not know.
func DecodeCustom(res *api.Resource, raw []byte, name bool) (obj *unstructured.Unstructured, strict []error, err error) {
	obj = &unstructured.Unstructured{}
	strict, err = kjson.UnmarshalStrict(raw, &obj.Object)
	if err != nil {
		return nil, nil, err
	}
	if kind, _ := obj.Object["kind"].(string); kind == "" {
		return nil, nil, fmt.Errorf("Object 'Kind' is missing in '%s'", shortened(raw)) //nolint:staticcheck // upstream's message
	}
	unknown, err := res.Custom.Coerce(obj, name)
	for _, path := range unknown {
		strict = append(strict, fmt.Errorf("unknown field %q", path))
	}
	return obj, strict, err
}

func shortened(raw []byte) string {
	const most = 256
	text := strings.TrimSpace(string(raw))
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}

// decodeInto decodes what a patch made.
func decodeInto(raw []byte, into runtime.Object, validation string, q *Request) (strict []error, err error) {
	u, free := into.(*unstructured.Unstructured)
	if !free || q.Resource.Custom == nil {
		if err := exponent.JSON(raw, into); err != nil {
			return nil, err
		}
		return kjson.UnmarshalStrict(raw, into)
	}
	obj, strict, err := DecodeCustom(q.Resource, raw, validation != metav1.FieldValidationIgnore)
	if err == nil {
		u.Object = obj.Object
	}
	return strict, err
}
