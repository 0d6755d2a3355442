package fieldmanager

import (
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	smdschema "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// unchecked saves a quarter of the time that an update takes: a Go object fits its schema, there is no need to walk through it to see that.
// Whatever forbids duplicates, and whatever comes without a Go type, is checked.
type unchecked struct {
	managedfields.TypeConverter
	known  sync.Map // of what, by GroupVersionKind
	shapes shapes
}

// what is the type of a kind's objects.
type what struct {
	schema *smdschema.Schema
	ref    smdschema.TypeRef
}

func (c *unchecked) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if _, ok := obj.(*unstructured.Unstructured); ok || len(opts) != 1 || opts[0] != typed.AllowDuplicates {
		return c.TypeConverter.ObjectToTyped(obj, opts...)
	}
	kind := obj.GetObjectKind().GroupVersionKind()
	t, ok := c.of(kind)
	if !ok {
		out, err := c.TypeConverter.ObjectToTyped(obj, opts...)
		if err == nil {
			c.known.Store(kind, what{out.Schema(), out.TypeRef()})
		}
		return out, err
	}
	v, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, err
	}
	return typed.AsTypedUnvalidated(v, t.schema, t.ref), nil
}

func (c *unchecked) of(kind schema.GroupVersionKind) (what, bool) {
	t, ok := c.known.Load(kind)
	if !ok {
		return what{}, false
	}
	return t.(what), true
}
