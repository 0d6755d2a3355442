package crd

import (
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"skiff.dev/skiff/internal/api"
)

// What decoding into a Go type does by itself is done here by the schema: unknown fields fall away, metadata gets its types, nulls that mean nothing
// go.

// coercion says how to go about it.
type coercion struct {
	name    bool // tell the fields that fall away
	lenient bool // of what is stored: metadata that no longer fits is dropped, a missing generation is 1
}

// coerce fits an object from outside to the version's schema.
func (v *version) coerce(u *unstructured.Unstructured, name bool) ([]string, error) {
	return v.fit(u, coercion{name: name})
}

func (v *version) fit(u *unstructured.Unstructured, how coercion) (unknown []string, err error) {
	kind, apiVersion := u.GetKind(), u.GetAPIVersion()
	meta, has, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{
		DropMalformedFields: how.lenient, ReturnUnknownFieldPaths: how.name,
	})
	if err != nil {
		return nil, err
	}
	if kind != v.gvk.Kind || apiVersion != v.gvk.GroupVersion().String() {
		return unknown, nil // another kind, which whoever asked for this one will refuse
	}
	s, err := v.schema.get()
	if err != nil {
		return nil, err
	}
	if !v.kind.preserve {
		track := structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: how.name}
		unknown = append(unknown, pruning.PruneWithOptions(u.Object, s.structural, true, track)...)
		defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, s.structural)
	}
	wrong, paths := objectmeta.CoerceWithOptions(nil, u.Object, s.structural, false, objectmeta.CoerceOptions{
		DropInvalidFields: how.lenient, ReturnUnknownFieldPaths: how.name,
	})
	if wrong != nil {
		return nil, wrong
	}
	unknown = append(unknown, paths...)
	u.SetKind(kind)
	u.SetAPIVersion(apiVersion)
	if !has {
		return unknown, nil
	}
	if how.lenient && meta.Generation == 0 {
		meta.Generation = 1
	}
	return unknown, objectmeta.SetObjectMeta(u.Object, meta)
}

// setDefaults fills the schema's defaults in. A schema that can't be compiled is told by validation.
func (v *version) setDefaults(o api.Object) {
	if s, err := v.schema.get(); err == nil {
		defaulting.Default(o.(*unstructured.Unstructured).Object, s.structural)
	}
}
