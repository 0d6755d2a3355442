package fieldmanager

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"skiff.dev/skiff/internal/api"
)

// version is one that a kind is served in.
type version struct {
	gv       schema.GroupVersion
	new      func() runtime.Object
	to, from func(api.Object) (api.Object, error) // from and to the stored version
}

// versions of one kind. They convert objects between them and make empty ones. Those of a custom resource are asked for anew each time: its
// definition may change.
type versions func() []version

func (m *Managers) versionsOf(r *api.Resource) versions {
	if r.Custom != nil {
		return func() []version { return customVersions(m.table.ByKind(r.GVK().GroupKind()), r) }
	}
	out := []version{plain(r.GVK().GroupVersion(), func() runtime.Object { return r.New() })}
	for i := range r.Also {
		s := &r.Also[i]
		out = append(out, version{
			gv: schema.GroupVersion{Group: s.Group, Version: s.Version}, new: func() runtime.Object { return s.New() },
			to:   func(o api.Object) (api.Object, error) { return s.To(o), nil },
			from: func(o api.Object) (api.Object, error) { return s.From(o), nil },
		})
	}
	return func() []version { return out }
}

// plain is a version that is stored as it is.
func plain(gv schema.GroupVersion, empty func() runtime.Object) version {
	same := func(o api.Object) (api.Object, error) { return o, nil }
	return version{gv, empty, same, same}
}

// customVersions are those of a custom resource's rows; asked is one of them, which a request holds while the table's may be newer already.
func customVersions(stored, asked *api.Resource) []version {
	out := []version{custom(asked)}
	if stored == nil || stored.Custom == nil {
		return out
	}
	rows := []*api.Resource{stored}
	for i := range stored.Also {
		if own := stored.Also[i].Own; own != nil {
			rows = append(rows, own)
		}
	}
	for _, r := range rows {
		if r.Version != asked.Version {
			out = append(out, custom(r))
		}
	}
	return out
}

func custom(r *api.Resource) version {
	return version{
		gv: r.GVK().GroupVersion(), new: func() runtime.Object { return r.New() },
		to: func(o api.Object) (api.Object, error) {
			out, err := r.Custom.Load(context.Background(), []api.Object{o.DeepCopyObject().(api.Object)})
			if err != nil {
				return nil, err
			}
			return out[0], nil
		},
		from: func(o api.Object) (api.Object, error) { return r.Custom.Save(context.Background(), o) },
	}
}

// own says which fields a write to a subresource can't own, in each version: those that such a write can't change.
func (v versions) own(r *api.Resource, subresource string) map[fieldpath.APIVersion]fieldpath.Filter {
	only := func(parts ...any) fieldpath.Filter {
		return fieldpath.NewIncludeMatcherFilter(fieldpath.MakePrefixMatcherOrDie(parts...))
	}
	var f fieldpath.Filter
	switch subresource {
	case "":
		if !r.Status {
			return nil
		}
		f = fieldpath.NewExcludeSetFilter(fieldpath.NewSet(fieldpath.MakePathOrDie("status")))
	case "status":
		f = only("status")
	case "finalize":
		f = only("spec", "finalizers")
	case "ephemeralcontainers":
		f = only("spec", "ephemeralContainers")
	case "resize":
		f = only("spec", "containers", fieldpath.MatchAnyPathElement(), "resources")
	case "approval":
		f = only("status", "conditions")
	default:
		return nil
	}
	out := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, one := range v() {
		out[fieldpath.APIVersion(one.gv.String())] = f
	}
	return out
}

func (v versions) find(gv schema.GroupVersion) *version {
	all := v()
	for i := range all {
		if all[i].gv == gv {
			return &all[i]
		}
	}
	return nil
}

// New makes an empty object.
func (v versions) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	to := v.find(kind.GroupVersion())
	if to == nil {
		return nil, runtime.NewNotRegisteredErrForKind("the table", kind)
	}
	obj := to.new()
	obj.GetObjectKind().SetGroupVersionKind(kind)
	return obj, nil
}

// ConvertToVersion converts between the versions, and makes a Go object of a merge's result. An object of the right version stays itself.
func (v versions) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gv, ok := target.(schema.GroupVersion)
	if !ok {
		return nil, fmt.Errorf("convert %T: %T names no version", in, target)
	}
	kind := in.GetObjectKind().GroupVersionKind()
	from, to := v.find(kind.GroupVersion()), v.find(gv)
	if from == nil {
		return nil, runtime.NewNotRegisteredErrForKind("the table", kind)
	}
	if to == nil {
		return nil, runtime.NewNotRegisteredErrForKind("the table", gv.WithKind(kind.Kind))
	}
	if u, ok := in.(*unstructured.Unstructured); ok {
		typed := from.new()
		if _, free := typed.(runtime.Unstructured); !free {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
				return nil, fmt.Errorf("%s%w", unfit, err)
			}
			in = typed
		}
	}
	if from.gv == to.gv {
		return in, nil
	}
	obj, ok := in.(api.Object)
	if !ok {
		return nil, fmt.Errorf("convert %T: it is no object of the API", in)
	}
	stored, err := from.from(obj)
	if err != nil {
		return nil, err
	}
	return to.to(stored)
}

// Convert and ConvertFieldLabel are part of the interface; managedfields has no use for them.
func (versions) Convert(in, out, _ any) error {
	return fmt.Errorf("convert %T to %T: objects are converted to versions only", in, out)
}

func (versions) ConvertFieldLabel(gvk schema.GroupVersionKind, label, _ string) (string, string, error) {
	return "", "", fmt.Errorf("convert the field label %s of %s: objects are converted to versions only", label, gvk)
}
