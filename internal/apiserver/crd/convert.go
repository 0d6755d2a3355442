package crd

import (
	"context"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
)

// converter brings objects, which it may change, to a version. All are of other versions of the same kind.
type converter func(ctx context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error)

func (r *Resources) converterOf(crd *apiextensionsv1.CustomResourceDefinition) (converter, error) {
	conv := crd.Spec.Conversion
	if conv == nil || conv.Strategy == apiextensionsv1.NoneConverter {
		return relabel, nil
	}
	w, err := newWebhook(crd, r.reg)
	if err != nil {
		return nil, err
	}
	return w.convert, nil
}

// relabel is the conversion None: versions differ in their names alone, and in what their schemas keep.
func relabel(_ context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	for _, o := range objs {
		o.SetAPIVersion(to.String())
	}
	return objs, nil
}

// load brings stored objects to the version: by the schema of the version they were stored in, which may have changed since; then by conversion; then
// by the version's own schema. All that need a conversion get it at once.
func (v *version) load(ctx context.Context, stored []api.Object) ([]api.Object, error) {
	out := make([]api.Object, len(stored))
	var other []int
	var objs []*unstructured.Unstructured
	for i, o := range stored {
		u := o.(*unstructured.Unstructured)
		was := v.kind.version(u.GroupVersionKind().Version)
		if was == nil {
			return nil, fmt.Errorf("%s %s/%s is stored as %s, which its definition no longer has", v.gvk.Kind, u.GetNamespace(), u.GetName(), u.GetAPIVersion())
		}
		if _, err := was.fit(u, coercion{lenient: true}); err != nil {
			return nil, fmt.Errorf("fit %s %s/%s to its schema: %w", v.gvk.Kind, u.GetNamespace(), u.GetName(), err)
		}
		was.setDefaults(u)
		if out[i] = u; was != v {
			other, objs = append(other, i), append(objs, u)
		}
	}
	if len(objs) == 0 {
		return out, nil
	}
	converted, err := v.converted(ctx, objs)
	if err != nil {
		return nil, err
	}
	for j, i := range other {
		out[i] = converted[j]
	}
	return out, nil
}

// converted brings objects of other versions to this one and its schema.
func (v *version) converted(ctx context.Context, objs []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	out, err := v.kind.convert(ctx, objs, v.gvk.GroupVersion())
	if err != nil {
		return nil, fmt.Errorf("convert %s to %s: %w", v.gvk.Kind, v.gvk.Version, err)
	}
	for _, u := range out {
		if _, err := v.fit(u, coercion{}); err != nil {
			return nil, fmt.Errorf("fit the converted %s %s/%s to the schema of %s: %w", v.gvk.Kind, u.GetNamespace(), u.GetName(), v.gvk.Version, err)
		}
	}
	return out, nil
}

// save brings an object to the stored version. What admission added must fit the schema too.
func (v *version) save(ctx context.Context, o api.Object) (api.Object, error) {
	u := o.(*unstructured.Unstructured)
	if v.kind.storage == v {
		_, err := v.fit(u, coercion{})
		return u, err
	}
	out, err := v.kind.storage.converted(ctx, []*unstructured.Unstructured{u.DeepCopy()})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}
