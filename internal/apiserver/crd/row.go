package crd

import (
	"context"
	"fmt"
	"slices"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// kind is a custom resource at one generation of its definition.
type kind struct {
	gk       schema.GroupKind
	name     string // of the definition
	preserve bool   // what the schema does not know: of definitions older than structural schemas
	versions []*version
	storage  *version
	convert  converter
	source   func() (*apiextensionsv1.CustomResourceDefinition, error)
}

// version is one of a kind's versions.
type version struct {
	kind     *kind
	gvk      schema.GroupVersionKind
	listKind string
	scale    *apiextensionsv1.CustomResourceSubresourceScale
	schema   lazySchema
	row      *api.Resource
}

func (k *kind) version(name string) *version {
	for _, v := range k.versions {
		if v.gvk.Version == name {
			return v
		}
	}
	return nil
}

// rowOf makes the row of a definition's stored version, with those of the others in Also.
func (r *Resources) rowOf(crd *apiextensionsv1.CustomResourceDefinition, closing bool) (*api.Resource, error) {
	k, err := r.kindOf(crd, closing)
	if err != nil {
		return nil, err
	}
	return k.storage.row, nil
}

func (r *Resources) kindOf(crd *apiextensionsv1.CustomResourceDefinition, closing bool) (*kind, error) {
	accepted := crd.Status.AcceptedNames
	k := &kind{
		gk: schema.GroupKind{Group: crd.Spec.Group, Kind: accepted.Kind}, name: crd.Name,
		preserve: crd.Spec.PreserveUnknownFields, source: r.source(crd.Name),
	}
	var err error
	if k.convert, err = r.converterOf(crd); err != nil {
		return nil, err
	}
	for i := range crd.Spec.Versions {
		spec := &crd.Spec.Versions[i]
		if !spec.Served && !spec.Storage {
			continue
		}
		v := &version{kind: k, gvk: k.gk.WithVersion(spec.Name), listKind: accepted.ListKind}
		v.schema.compile = v.compile
		k.versions = append(k.versions, v)
		if spec.Storage {
			k.storage = v
		}
	}
	if k.storage == nil {
		return nil, fmt.Errorf("definition %s has no stored version", crd.Name)
	}
	for _, v := range k.versions {
		v.row = v.makeRow(crd, closing)
	}
	k.addSiblings()
	return k, nil
}

// source reads the definition, as it is now, when a schema is needed.
func (r *Resources) source(name string) func() (*apiextensionsv1.CustomResourceDefinition, error) {
	return func() (*apiextensionsv1.CustomResourceDefinition, error) {
		e, err := r.reg.Store().Collection(r.row).Get(context.Background(), name, store.Read{})
		switch {
		case err != nil:
			return nil, fmt.Errorf("read definition %s: %w", name, err)
		case e == nil:
			return nil, fmt.Errorf("definition %s is gone", name)
		}
		return e.Object().(*apiextensionsv1.CustomResourceDefinition), nil
	}
}

// makeRow makes a version's row. What it keeps of the definition is small.
func (v *version) makeRow(crd *apiextensionsv1.CustomResourceDefinition, closing bool) *api.Resource {
	spec := versionOf(crd, v.gvk.Version)
	accepted := crd.Status.AcceptedNames
	row := &api.Resource{
		Group: v.gvk.Group, Version: v.gvk.Version, Kind: v.gvk.Kind, Plural: accepted.Plural, Singular: accepted.Singular,
		Short: accepted.ShortNames, Categories: accepted.Categories, Namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
		Key: v.gvk.Group + "/" + accepted.Plural, Cold: true, Verbs: api.AllVerbs, Generation: true, Conditional: true,
		New: v.new, NewList: v.newList,
		Default: v.setDefaults, Validate: v.validate, ValidateUpdate: v.validateUpdate, ValidateStatus: v.validateStatus, Warn: warnFinalizers,
		Columns: columnsOf(spec.AdditionalPrinterColumns), Fields: fieldsOf(spec.SelectableFields),
		Custom: &api.Custom{
			Definition: crd.UID, Generation: crd.Generation, Stored: v.kind.storage.gvk.Version, Hidden: !spec.Served, Closing: closing, Converts: converts(crd), Warnings: deprecation(crd, spec),
			Coerce: v.coerce, Load: v.load, Save: v.save, OpenAPI: v.openAPI, Types: v.kind.types,
		},
	}
	if sub := spec.Subresources; sub != nil {
		row.Status = sub.Status != nil
		if v.scale = sub.Scale; v.scale != nil {
			row.Scale = v.scaling()
			row.Subresources = []api.Subresource{{
				Name: "scale", Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: []string{"get", "patch", "update"},
				New: func() runtime.Object { return &autoscalingv1.Scale{} },
			}}
		}
	}
	return row
}

func converts(crd *apiextensionsv1.CustomResourceDefinition) bool {
	c := crd.Spec.Conversion
	return len(crd.Spec.Versions) > 1 && c != nil && c.Strategy == apiextensionsv1.WebhookConverter
}

// addSiblings tells the stored version's row, which is in the table, of the others.
func (k *kind) addSiblings() {
	for _, v := range k.versions {
		if v == k.storage {
			continue
		}
		k.storage.row.Also = append(k.storage.row.Also, api.Served{
			Group: v.gvk.Group, Version: v.gvk.Version, Kind: v.gvk.Kind, New: v.new, NewList: v.newList, Columns: v.row.Columns, Own: v.row,
		})
	}
}

func (v *version) new() api.Object {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(v.gvk)
	return u
}

func (v *version) newList() runtime.Object {
	l := &unstructured.UnstructuredList{Object: map[string]any{}}
	l.SetGroupVersionKind(v.gvk.GroupVersion().WithKind(v.listKind))
	return l
}

func versionOf(crd *apiextensionsv1.CustomResourceDefinition, name string) *apiextensionsv1.CustomResourceDefinitionVersion {
	for i := range crd.Spec.Versions {
		if crd.Spec.Versions[i].Name == name {
			return &crd.Spec.Versions[i]
		}
	}
	return nil
}

// deprecation is the warning for users of a deprecated version, which names the newest that isn't, if there is one.
func deprecation(crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) []string {
	switch {
	case !v.Deprecated:
		return nil
	case v.DeprecationWarning != nil:
		return []string{*v.DeprecationWarning}
	}
	text := fmt.Sprintf("%s/%s %s is deprecated", crd.Spec.Group, v.Name, crd.Spec.Names.Kind)
	var better []string
	for _, o := range crd.Spec.Versions {
		if o.Served && !o.Deprecated && apiversion.CompareKubeAwareVersionStrings(v.Name, o.Name) < 0 {
			better = append(better, o.Name)
		}
	}
	if len(better) > 0 {
		newest := slices.MaxFunc(better, apiversion.CompareKubeAwareVersionStrings)
		text += fmt.Sprintf("; use %s/%s %s", crd.Spec.Group, newest, crd.Spec.Names.Kind)
	}
	return []string{text}
}
