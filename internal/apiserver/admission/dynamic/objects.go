package dynamic

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
)

// objects speaks for the table where upstream asks a scheme, about the kind of one request: it makes objects of its versions, converts between
// them, fills defaults, and knows under which names the resource is served.
type objects struct {
	ctx   context.Context
	table *api.Table
	row   *api.Resource
}

func (o objects) GetObjectCreater() runtime.ObjectCreater                       { return o }
func (o objects) GetObjectTyper() runtime.ObjectTyper                           { return api.Scheme() }
func (o objects) GetObjectDefaulter() runtime.ObjectDefaulter                   { return o }
func (o objects) GetObjectConvertor() runtime.ObjectConvertor                   { return o }
func (o objects) GetEquivalentResourceMapper() runtime.EquivalentResourceMapper { return o }

// stored is the row of the stored version, which lists the others.
func (o objects) stored() *api.Resource {
	if row := o.table.ByResource(o.row.GroupResource()); row != nil {
		return row
	}
	return o.row
}

// custom is the row of a version of a custom resource; nil for all others.
func (o objects) custom(kind schema.GroupVersionKind) *api.Resource {
	row := o.stored()
	if row.Custom == nil || row.Kind != kind.Kind {
		return nil
	}
	own, _ := row.Serving(kind.Group, kind.Version)
	return own
}

// New implements runtime.ObjectCreater.
func (o objects) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	if o.custom(kind) != nil {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(kind)
		return u, nil
	}
	return api.Scheme().New(kind)
}

// Default implements runtime.ObjectDefaulter. Versions that are not stored get their defaults when they become the stored one.
func (o objects) Default(in runtime.Object) {
	obj, ok := in.(api.Object)
	if !ok {
		return
	}
	row := o.stored()
	if _, free := in.(*unstructured.Unstructured); free {
		row = o.custom(in.GetObjectKind().GroupVersionKind())
	} else if reflect.TypeOf(obj) != reflect.TypeOf(row.New()) {
		return
	}
	if row != nil && row.Default != nil {
		row.Default(obj)
	}
}

// Convert implements runtime.ObjectConvertor. out shares what it can with in.
func (o objects) Convert(in, out, _ any) error {
	if to, free := out.(*unstructured.Unstructured); free {
		from, ok := in.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("%T cannot become a custom resource", in)
		}
		return o.convertCustom(from, to)
	}
	made, err := o.as(in, reflect.TypeOf(out))
	if err != nil {
		return err
	}
	reflect.ValueOf(out).Elem().Set(reflect.ValueOf(made).Elem())
	if obj, ok := out.(api.Object); ok && reflect.TypeOf(out) == reflect.TypeOf(o.stored().New()) {
		obj.GetObjectKind().SetGroupVersionKind(o.stored().GVK())
	}
	return nil
}

// as is in, as a Go type of another version of the kind.
func (o objects) as(in any, want reflect.Type) (any, error) {
	row := o.stored()
	if reflect.TypeOf(in) == want {
		return in, nil
	}
	obj, ok := in.(api.Object)
	if !ok {
		return nil, fmt.Errorf("%T cannot become %v", in, want)
	}
	for i := range row.Also {
		if s := &row.Also[i]; s.From != nil && reflect.TypeOf(obj) == reflect.TypeOf(s.New()) {
			obj = s.From(obj)
			break
		}
	}
	for i := range row.Also {
		if s := &row.Also[i]; s.To != nil && want == reflect.TypeOf(s.New()) {
			return s.To(obj), nil
		}
	}
	if reflect.TypeOf(obj) != want {
		return nil, fmt.Errorf("%T cannot become %v", in, want)
	}
	return obj, nil
}

// convertCustom brings a custom resource to the version that to is of, and fits it to that version's schema: what the schema does not know goes.
func (o objects) convertCustom(from, to *unstructured.Unstructured) error {
	have, want := from.GroupVersionKind(), to.GroupVersionKind()
	row := o.custom(want)
	if row == nil {
		return fmt.Errorf("%v is not served", want)
	}
	out := from.DeepCopy()
	if have != want {
		source := o.custom(have)
		if source == nil {
			return fmt.Errorf("%v is not served", have)
		}
		stored, err := source.Custom.Save(o.ctx, out)
		if err != nil {
			return err
		}
		made, err := row.Custom.Load(o.ctx, []api.Object{stored})
		if err != nil {
			return err
		}
		out = made[0].(*unstructured.Unstructured)
	}
	if _, err := row.Custom.Coerce(out, false); err != nil {
		return err
	}
	to.Object = out.Object
	return nil
}

// ConvertToVersion implements runtime.ObjectConvertor for what a patch has left of an object.
func (o objects) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	u, free := in.(*unstructured.Unstructured)
	if !free {
		return in, nil
	}
	out, err := o.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if _, free := out.(*unstructured.Unstructured); free {
		return in, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, err
	}
	return out, nil
}

// ConvertFieldLabel implements runtime.ObjectConvertor; admission has no field selectors.
func (o objects) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// EquivalentResourcesFor implements runtime.EquivalentResourceMapper: every group and version that the request's resource is served as.
func (o objects) EquivalentResourcesFor(_ schema.GroupVersionResource, _ string) []schema.GroupVersionResource {
	row := o.stored()
	var out []schema.GroupVersionResource
	if row.Custom == nil || !row.Custom.Hidden {
		out = append(out, row.GVR())
	}
	for i := range row.Also {
		out = append(out, schema.GroupVersionResource{Group: row.Also[i].Group, Version: row.Also[i].Version, Resource: row.Plural})
	}
	return out
}

// KindFor implements runtime.EquivalentResourceMapper.
func (o objects) KindFor(resource schema.GroupVersionResource, sub string) schema.GroupVersionKind {
	row := o.stored()
	if kind, is := bodyOf(row, sub); is {
		return kind
	}
	own, served := row.Serving(resource.Group, resource.Version)
	switch {
	case served != nil:
		return served.Row().GVK()
	case own != nil:
		return own.GVK()
	}
	return schema.GroupVersionKind{}
}
