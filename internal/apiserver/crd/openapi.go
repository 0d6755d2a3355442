package crd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"skiff.dev/skiff/internal/api"
)

// What every object has, wherever its schema comes from.
const (
	objectMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	listMeta   = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
)

const kindKey = "x-kubernetes-group-version-kind"

var (
	typeDocs    = metav1.TypeMeta{}.SwaggerDoc()
	partialDocs = metav1.PartialObjectMetadata{}.SwaggerDoc()
	listDocs    = metav1.PartialObjectMetadataList{}.SwaggerDoc()
)

// openAPI makes the documents' schemas anew for whoever asks; nothing of it is kept.
func (v *version) openAPI(refs string, v2 bool) (map[string]any, error) {
	crd, err := v.kind.source()
	if err != nil {
		return nil, err
	}
	defined := versionOf(crd, v.gvk.Version)
	if defined == nil {
		return nil, fmt.Errorf("definition %s has no version %s any more", crd.Name, v.gvk.Version)
	}
	one, err := objectSchema(crd, defined, v.gvk, refs, v2)
	if err != nil {
		return nil, err
	}
	selectable(one, defined)
	listKind := v.gvk.GroupVersion().WithKind(v.listKind)
	list := listSchema(v.gvk, listKind, v.row.Plural, refs, v2)
	selectable(list, defined)
	out := map[string]any{}
	for name, s := range map[string]*spec.Schema{api.ModelName(v.gvk): one, api.ModelName(listKind): list} {
		raw, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		var plain map[string]any
		if err := json.Unmarshal(raw, &plain); err != nil {
			return nil, err
		}
		out[name] = plain
	}
	return out, nil
}

// objectSchema is a version's schema with what every object has. v2 says less: what it can't say and what old clients stumble over is left out.
// The kind is said by who serves it: the definition's status tells the accepted names only later.
func objectSchema(
	crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion, kind schema.GroupVersionKind, refs string, v2 bool,
) (*spec.Schema, error) {
	s, err := structural(v)
	if err != nil || s != nil && len(structuralschema.ValidateStructural(nil, s)) > 0 {
		s = nil // of a definition older than structural schemas: nothing can be said
	}
	out := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	if s != nil && (!v2 || !s.XPreserveUnknownFields && !crd.Spec.PreserveUnknownFields) {
		s = s.Unfold()
		if v2 {
			s = openapiv2.ToStructuralOpenAPIV2(s)
		}
		out = s.ToKubeOpenAPI()
		out.SetProperty("metadata", described(refs+objectMeta, partialDocs["metadata"], v2))
		withKind(out)
		embedded(out, refs, v2)
	}
	mark(out, kind)
	return out, nil
}

func listSchema(kind, listKind schema.GroupVersionKind, plural, refs string, v2 bool) *spec.Schema {
	items := spec.ArrayProperty(spec.RefSchema(refs + api.ModelName(kind))).WithDescription(fmt.Sprintf(
		"List of %s. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", plural))
	out := new(spec.Schema).Typed("object", "").WithDescription(fmt.Sprintf("%s is a list of %s", listKind.Kind, kind.Kind)).WithRequired("items").
		SetProperty("items", *items).SetProperty("metadata", described(refs+listMeta, listDocs["metadata"], v2))
	withKind(out)
	mark(out, listKind)
	return out
}

// described refers to a schema under the field's own description. In OpenAPI v3 nothing beside a $ref counts, so the reference goes into allOf.
func described(ref, text string, v2 bool) spec.Schema {
	if v2 {
		return *spec.RefSchema(ref).WithDescription(text)
	}
	return *new(spec.Schema).WithDescription(text).WithAllOf(*spec.RefSchema(ref))
}

func withKind(s *spec.Schema) {
	for _, name := range []string{"apiVersion", "kind"} {
		s.SetProperty(name, *spec.StringProperty().WithDescription(typeDocs[name]))
	}
}

func mark(s *spec.Schema, kind schema.GroupVersionKind) {
	s.AddExtension(kindKey, []any{map[string]any{"group": kind.Group, "version": kind.Version, "kind": kind.Kind}})
}

func selectable(s *spec.Schema, v *apiextensionsv1.CustomResourceDefinitionVersion) {
	if len(v.SelectableFields) == 0 {
		return
	}
	var list []any
	for _, f := range v.SelectableFields {
		list = append(list, map[string]any{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
	}
	s.AddExtension("x-kubernetes-selectable-fields", list)
}

// embedded gives whole objects within the object what every object has.
func embedded(s *spec.Schema, refs string, v2 bool) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		embedded(&p, refs, v2)
		s.Properties[name] = p
	}
	if s.Items != nil {
		embedded(s.Items.Schema, refs, v2)
	}
	if s.AdditionalProperties != nil {
		embedded(s.AdditionalProperties.Schema, refs, v2)
	}
	if free, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); free && v2 {
		return // old clients would take what is named for all there may be
	}
	if whole, _ := s.Extensions.GetBool("x-kubernetes-embedded-resource"); !whole {
		return
	}
	withKind(s)
	s.SetProperty("metadata", described(refs+objectMeta, partialDocs["metadata"], v2))
	for _, name := range []string{"kind", "apiVersion"} {
		if !slices.Contains(s.Required, name) {
			s.Required = append(s.Required, name)
		}
	}
}

// metaTypes says of metadata what a merge must know.
const metaTypes = `{"type":"object","properties":{
"name":{"type":"string"},"generateName":{"type":"string"},"namespace":{"type":"string"},"selfLink":{"type":"string"},"uid":{"type":"string"},
"resourceVersion":{"type":"string"},"generation":{"type":"integer","format":"int64"},"creationTimestamp":{"type":"string","format":"date-time"},
"deletionTimestamp":{"type":"string","format":"date-time"},"deletionGracePeriodSeconds":{"type":"integer","format":"int64"},
"labels":{"type":"object","additionalProperties":{"type":"string"}},"annotations":{"type":"object","additionalProperties":{"type":"string"}},
"finalizers":{"type":"array","items":{"type":"string"},"x-kubernetes-list-type":"set"},
"ownerReferences":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["uid"],"items":{
"type":"object","x-kubernetes-map-type":"atomic","required":["apiVersion","kind","name","uid"],"properties":{
"apiVersion":{"type":"string"},"kind":{"type":"string"},"name":{"type":"string"},"uid":{"type":"string"},
"controller":{"type":"boolean"},"blockOwnerDeletion":{"type":"boolean"}}}},
"managedFields":{"type":"array","x-kubernetes-list-type":"atomic","items":{"type":"object","properties":{
"manager":{"type":"string"},"operation":{"type":"string"},
"apiVersion":{"type":"string"},"time":{"type":"string","format":"date-time"},"fieldsType":{"type":"string"},"subresource":{"type":"string"},
"fieldsV1":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}}`

// types gives field ownership the schemas of all versions; nil if they can't be used.
func (k *kind) types() managedfields.TypeConverter {
	crd, err := k.source()
	if err != nil {
		return nil
	}
	const refs = "#/components/schemas/"
	var meta spec.Schema
	if err := json.Unmarshal([]byte(metaTypes), &meta); err != nil {
		return nil
	}
	models := map[string]*spec.Schema{objectMeta: &meta}
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		gvk := k.gk.WithVersion(v.Name)
		s, err := objectSchema(crd, v, gvk, refs, false)
		if err != nil {
			return nil
		}
		models[api.ModelName(gvk)] = s
	}
	out, err := managedfields.NewTypeConverter(models, k.preserve)
	if err != nil {
		return nil
	}
	return out
}
