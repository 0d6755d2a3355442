package fieldmanager

import (
	"fmt"
	"sync"

	apiextensionstypes "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"skiff.dev/skiff/internal/api"
)

// The schemas that say which lists merge by which keys, of client-go and of CustomResourceDefinition.
var (
	builtin = sync.OnceValue(func() managedfields.TypeConverter {
		return &unchecked{TypeConverter: applyconfigurations.NewTypeConverter(api.Scheme())}
	})
	extensions = sync.OnceValue(func() managedfields.TypeConverter {
		return &unchecked{TypeConverter: apiextensionstypes.NewTypeConverter(api.Scheme())}
	})
)

// kindKey names one FieldManager: the kind that is stored, the version that is spoken, what of it is written.
type kindKey struct {
	kind        schema.GroupKind
	gv          schema.GroupVersion
	subresource string
}

// manager is one FieldManager; a row that takes its row's place, with another schema perhaps, needs a new one.
type manager struct {
	row *api.Resource
	*managedfields.FieldManager
}

// of finds or makes the FieldManager of what is written.
func (m *Managers) of(w Write) (*managedfields.FieldManager, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := kindKey{w.Resource.GVK().GroupKind(), w.gvk().GroupVersion(), w.Subresource}
	if f := m.kinds[key]; f.row == w.Resource {
		return f.FieldManager, nil
	}
	v := versionsOf(w.Resource)
	make, types := managedfields.NewDefaultFieldManager, builtin
	switch _, free := w.Resource.New().(runtime.Unstructured); {
	case free:
		make = managedfields.NewDefaultCRDFieldManager
		types = func() managedfields.TypeConverter { return m.typesOf(w.Resource) }
	case w.Resource.Group == "apiextensions.k8s.io":
		types = extensions
	}
	f, err := make(types(), v, undefaulted{}, v, w.gvk(), w.Resource.GVK().GroupVersion(), w.Subresource, v.own(w.Resource, w.Subresource))
	if err != nil {
		return nil, fmt.Errorf("make the field manager of %s %s: %w", w.gvk(), w.Subresource, err)
	}
	m.kinds[key] = manager{w.Resource, f}
	return f, nil
}

// typesOf a custom resource. Where no schema tells, the values do: lists are replaced as a whole.
func (m *Managers) typesOf(r *api.Resource) managedfields.TypeConverter {
	if m.types != nil {
		if t := m.types(r); t != nil {
			return t
		}
	}
	return managedfields.NewDeducedTypeConverter()
}

// undefaulted leaves defaults to the registry, which sets them on every write.
type undefaulted struct{}

func (undefaulted) Default(runtime.Object) {}

// version is one that a kind is served in.
type version struct {
	gv       schema.GroupVersion
	new      func() runtime.Object
	to, from func(api.Object) api.Object // the stored version is itself
}

// versions of one kind, the stored one first. They convert objects between them and make empty ones.
type versions []version

func versionsOf(r *api.Resource) versions {
	same := func(o api.Object) api.Object { return o }
	out := versions{{r.GVK().GroupVersion(), func() runtime.Object { return r.New() }, same, same}}
	for i := range r.Also {
		s := &r.Also[i]
		out = append(out, version{schema.GroupVersion{Group: s.Group, Version: s.Version}, func() runtime.Object { return s.New() }, s.To, s.From})
	}
	return out
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
	default:
		return nil
	}
	out := map[fieldpath.APIVersion]fieldpath.Filter{}
	for i := range v {
		out[fieldpath.APIVersion(v[i].gv.String())] = f
	}
	return out
}

func (v versions) find(gv schema.GroupVersion) *version {
	for i := range v {
		if v[i].gv == gv {
			return &v[i]
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
				return nil, err
			}
			in = typed
		}
	}
	if from == to {
		return in, nil
	}
	obj, ok := in.(api.Object)
	if !ok {
		return nil, fmt.Errorf("convert %T: it is no object of the API", in)
	}
	return to.to(from.from(obj)), nil
}

// Convert and ConvertFieldLabel are part of the interface; managedfields has no use for them.
func (versions) Convert(in, out, _ any) error {
	return fmt.Errorf("convert %T to %T: objects are converted to versions only", in, out)
}

func (versions) ConvertFieldLabel(gvk schema.GroupVersionKind, label, _ string) (string, string, error) {
	return "", "", fmt.Errorf("convert the field label %s of %s: objects are converted to versions only", label, gvk)
}
