package api

import (
	"context"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
)

// Custom is what the row of a custom resource has beyond other rows. Each version of a custom resource is a row of its own, with its own schema;
// they share their Key, for objects are stored once, in the version that the definition names. The table holds the stored version's row, which
// lists the others in Also (Served.Own). Objects are *unstructured.Unstructured throughout.
type Custom struct {
	// Definition is the UID of the CustomResourceDefinition: a row that follows another of the same UID is the same resource, changed. Generation is
	// the definition's.
	Definition types.UID
	Generation int64
	// Stored is the version that objects are stored in.
	Stored string
	// Hidden is a version that is stored, but not served.
	Hidden bool
	// Converts: a webhook makes one version of another, so that the fields of a stored object tell nothing of those it is shown with.
	Converts bool
	// Closing says that the definition is being deleted: nothing can be created any more.
	Closing bool
	// Warnings go to everybody who uses the version.
	Warnings []string

	// Coerce fits an object that came from outside to the schema, as decoding does with Go types: it drops what the schema does not know, and
	// names it if asked to. Its error is the sender's fault.
	Coerce func(obj *unstructured.Unstructured, name bool) (unknown []string, err error)
	// Load brings stored objects, of whatever version they were written in, to the row's version and its present schema. It may change what it is
	// given, and may ask a webhook.
	Load func(ctx context.Context, stored []Object) ([]Object, error)
	// Save brings an object of the row's version to the stored one; it may be the same object.
	Save func(ctx context.Context, obj Object) (Object, error)
	// OpenAPI is the schemas of the kind and its list by their names (ModelName), in OpenAPI v3 or v2; refs is where they and metadata's are found.
	OpenAPI func(refs string, v2 bool) (map[string]any, error)
	// Types gives field ownership the schema's types; nil where the values must tell.
	Types func() managedfields.TypeConverter
}

// ModelName is what a custom resource's schema is called in OpenAPI: "com.example.stable.v1.CronTab".
func ModelName(kind schema.GroupVersionKind) string {
	parts := strings.Split(kind.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, kind.Version, kind.Kind), ".")
}

// MetaOf is an object's metadata. What it points at may be shared with the object.
func MetaOf(obj Object) metav1.ObjectMeta {
	u, free := obj.(*unstructured.Unstructured)
	if !free {
		return reflect.ValueOf(obj).Elem().FieldByName("ObjectMeta").Interface().(metav1.ObjectMeta)
	}
	var out metav1.ObjectMeta
	content, _ := u.Object["metadata"].(map[string]any)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &out); err != nil {
		// Metadata is fitted to its type before it is stored; this is from elsewhere, and what identifies the object is enough.
		return metav1.ObjectMeta{
			Name: u.GetName(), Namespace: u.GetNamespace(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(), Labels: u.GetLabels(),
			OwnerReferences: u.GetOwnerReferences(), Finalizers: u.GetFinalizers(),
		}
	}
	return out
}

// Serving finds the row and the served version that a group and version name; nil, nil if the resource is not served in it.
func (r *Resource) Serving(group, version string) (*Resource, *Served) {
	if r.Group == group && r.Version == version {
		if r.Custom != nil && r.Custom.Hidden {
			return nil, nil
		}
		return r, nil
	}
	for i := range r.Also {
		s := &r.Also[i]
		switch {
		case s.Group != group || s.Version != version:
		case s.Own != nil:
			return s.Own, nil
		default:
			return r, s
		}
	}
	return nil, nil
}
