package fieldmanager

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"skiff.dev/skiff/internal/api"
)

var (
	scaleKind = autoscalingv1.SchemeGroupVersion.WithKind("Scale")
	replicas  = fieldpath.MakePathOrDie("spec", "replicas")
)

// scaleSchema is that of a Scale, which client-go's schemas leave out.
const scaleSchema = `types:
- name: io.k8s.api.autoscaling.v1.Scale
  map:
    fields:
    - {name: apiVersion, type: {scalar: string}}
    - {name: kind, type: {scalar: string}}
    - {name: metadata, type: {namedType: metadata}}
    - {name: spec, type: {map: {fields: [{name: replicas, type: {scalar: numeric}}]}}}
    - {name: status, type: {map: {fields: [{name: replicas, type: {scalar: numeric}}, {name: selector, type: {scalar: string}}]}}}
- name: metadata
  map:
    fields:
    - {name: annotations, type: {map: {elementType: {scalar: string}}}}
    - {name: creationTimestamp, type: {scalar: untyped}}
    - {name: deletionGracePeriodSeconds, type: {scalar: numeric}}
    - {name: deletionTimestamp, type: {scalar: untyped}}
    - {name: finalizers, type: {list: {elementType: {scalar: string}, elementRelationship: associative}}}
    - {name: generateName, type: {scalar: string}}
    - {name: generation, type: {scalar: numeric}}
    - {name: labels, type: {map: {elementType: {scalar: string}}}}
    - {name: managedFields, type: {list: {elementType: {namedType: deduced}, elementRelationship: atomic}}}
    - {name: name, type: {scalar: string}}
    - {name: namespace, type: {scalar: string}}
    - {name: ownerReferences, type: {list: {elementType: {namedType: deduced}, elementRelationship: atomic}}}
    - {name: resourceVersion, type: {scalar: string}}
    - {name: selfLink, type: {scalar: string}}
    - {name: uid, type: {scalar: string}}
- name: deduced
  scalar: untyped
  list: {elementType: {namedType: atomic}, elementRelationship: atomic}
  map: {elementType: {namedType: deduced}, elementRelationship: separable}
- name: atomic
  scalar: untyped
  list: {elementType: {namedType: atomic}, elementRelationship: atomic}
  map: {elementType: {namedType: atomic}, elementRelationship: atomic}
`

// Scale is the entries of an object after a write through its scale: after is what the writer sent, before what it was.
func (m *Managers) Scale(w Write, obj api.Object, before, after *autoscalingv1.Scale) ([]metav1.ManagedFieldsEntry, error) {
	if w.Inside && !tracked(w.Subresource, obj) {
		return obj.GetManagedFields(), nil
	}
	f, h, err := m.scaling(w, obj, before)
	if err != nil {
		return nil, err
	}
	after.SetGroupVersionKind(scaleKind)
	if _, err := f.Update(before, after, w.Manager); err != nil {
		return nil, err
	}
	return h.ToParent(after.ManagedFields)
}

// ApplyScale merges an applied Scale into before, and gives the entries that the object has then. Its errors are Apply's.
func (m *Managers) ApplyScale(w Write, obj api.Object, before *autoscalingv1.Scale, applied *unstructured.Unstructured, force bool) (
	*autoscalingv1.Scale, []metav1.ManagedFieldsEntry, error,
) {
	f, h, err := m.scaling(w, obj, before)
	if err != nil {
		return nil, nil, err
	}
	out, err := f.Apply(before, applied, w.Manager, force)
	if err != nil {
		return nil, nil, status(err)
	}
	after := out.(*autoscalingv1.Scale)
	entries, err := h.ToParent(after.ManagedFields)
	return after, entries, err
}

// scaling gives before the entries that concern the number of replicas, and a handler that puts them back among obj's.
func (m *Managers) scaling(w Write, obj api.Object, before *autoscalingv1.Scale) (*managedfields.FieldManager, *managedfields.ScaleHandler, error) {
	f, err := m.scales()
	if err != nil {
		return nil, nil, err
	}
	live, err := m.claimed(w, obj, false)
	if err != nil {
		return nil, nil, err
	}
	paths := managedfields.ResourcePathMappings{}
	for _, v := range m.versionsOf(w.Resource)() {
		paths[v.gv.String()] = replicas
	}
	if w.Resource.Custom != nil {
		paths[w.gvk().GroupVersion().String()] = replicasPath(w.Resource)
	}
	h := managedfields.NewScaleHandler(live.GetManagedFields(), w.gvk().GroupVersion(), paths)
	before.ManagedFields, err = h.ToSubresource()
	return f, h, err
}

// replicasPath is where a custom resource keeps the number of replicas: where it appears when it is set.
func replicasPath(r *api.Resource) fieldpath.Path {
	obj := &unstructured.Unstructured{Object: map[string]any{}}
	r.Scale.Set(obj, 1)
	var path fieldpath.Path
	for at := any(obj.Object); ; {
		level, ok := at.(map[string]any)
		if !ok || len(level) != 1 {
			return path
		}
		for name, next := range level {
			path = append(path, fieldpath.PathElement{FieldName: &name})
			at = next
		}
	}
}

// scales is the FieldManager of every kind's Scale.
func (m *Managers) scales() (*managedfields.FieldManager, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.scale != nil {
		return m.scale, nil
	}
	only := []version{plain(scaleKind.GroupVersion(), func() runtime.Object { return &autoscalingv1.Scale{} })}
	v := versions(func() []version { return only })
	parser, err := typed.NewParser(scaleSchema)
	if err != nil {
		return nil, err
	}
	types := managedfields.NewSchemeTypeConverter(api.Scheme(), parser)
	f, err := managedfields.NewDefaultFieldManager(types, v, undefaulted{}, v, scaleKind, scaleKind.GroupVersion(), "scale", nil)
	m.scale = f
	return f, err
}
