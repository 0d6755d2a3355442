package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	apiservervalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"skiff.dev/skiff/internal/api/definition"
)

// Definitions of custom resources. Package apiserver/crd makes rows of them; here is what holds for the definitions themselves.

// A definition is mostly schema, needed when its first object comes: only its bytes stay in memory.
func extensionRows() []*Resource {
	return []*Resource{of[apiextensionsv1.CustomResourceDefinition, apiextensionsv1.CustomResourceDefinitionList](Resource{
		Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Plural: "customresourcedefinitions", Short: []string{"crd", "crds"},
		Categories: []string{"api-extensions"}, Key: "apiextensions.k8s.io/customresourcedefinitions", Cold: true,
		Status: true, StatusAlone: true, Generation: true, Conditional: true,
		Decode: decodeDefinition,
		Default: func(o Object) {
			apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(o.(*apiextensionsv1.CustomResourceDefinition))
		},
		PrepareCreate: func(o Object) { storeVersion(o.(*apiextensionsv1.CustomResourceDefinition)) },
		PrepareUpdate: func(o, _ Object) { storeVersion(o.(*apiextensionsv1.CustomResourceDefinition)) },
		Validate: func(o Object) field.ErrorList {
			return withInternal(o, func(crd *apiextensions.CustomResourceDefinition) field.ErrorList {
				return definition.Validate(context.Background(), crd)
			})
		},
		ValidateUpdate: withInternals(definition.ValidateUpdate),
		ValidateStatus: withInternals(definition.ValidateStatus),
		Warn:           warnDefinition,
		Terminating:    func(o Object) { endDefinition(o.(*apiextensionsv1.CustomResourceDefinition)) },
		Columns:        createdAtColumns,
	})}
}

// decodeDefinition reads definitions as upstream stores them: JSON of v1beta1, for its schema is shorter where all versions share one.
func decodeDefinition(value []byte) (Object, error) {
	var kind metav1.TypeMeta
	out := &apiextensionsv1.CustomResourceDefinition{}
	if err := json.Unmarshal(value, &kind); err != nil {
		return nil, err
	}
	if kind.APIVersion != apiextensionsv1beta1.SchemeGroupVersion.String() {
		return out, json.Unmarshal(value, out)
	}
	var old apiextensionsv1beta1.CustomResourceDefinition
	var internal apiextensions.CustomResourceDefinition
	if err := json.Unmarshal(value, &old); err != nil {
		return nil, err
	}
	apiextensionsv1beta1.SetObjectDefaults_CustomResourceDefinition(&old)
	if err := apiextensionsv1beta1.Convert_v1beta1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&old, &internal, nil); err != nil {
		return nil, err
	}
	return out, apiextensionsv1.Convert_apiextensions_CustomResourceDefinition_To_v1_CustomResourceDefinition(&internal, out, nil)
}

// storeVersion notes that objects may be stored in the version that is now marked as storage.
func storeVersion(crd *apiextensionsv1.CustomResourceDefinition) {
	for _, v := range crd.Spec.Versions {
		if v.Storage && !slices.Contains(crd.Status.StoredVersions, v.Name) {
			crd.Status.StoredVersions = append(slices.Clip(crd.Status.StoredVersions), v.Name)
		}
	}
}

// endDefinition keeps a definition whose deletion has begun until its objects are gone.
func endDefinition(crd *apiextensionsv1.CustomResourceDefinition) {
	if apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Terminating) {
		return
	}
	apihelpers.SetCRDCondition(crd, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	})
	if !apihelpers.CRDHasFinalizer(crd, apiextensionsv1.CustomResourceCleanupFinalizer) {
		crd.Finalizers = append(slices.Clip(crd.Finalizers), apiextensionsv1.CustomResourceCleanupFinalizer)
	}
}

// InternalDefinition is the form that the published validation takes. It shares what it can with the object.
func InternalDefinition(crd *apiextensionsv1.CustomResourceDefinition) (*apiextensions.CustomResourceDefinition, error) {
	out := &apiextensions.CustomResourceDefinition{}
	// Conversion moves the parts that all versions share, in both.
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(crd.DeepCopy(), out, nil); err != nil {
		return nil, fmt.Errorf("convert %s: %w", crd.Name, err)
	}
	return out, nil
}

func withInternal(o Object, f func(*apiextensions.CustomResourceDefinition) field.ErrorList) field.ErrorList {
	crd, err := InternalDefinition(o.(*apiextensionsv1.CustomResourceDefinition))
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return f(crd)
}

func withInternals(
	f func(ctx context.Context, obj, old *apiextensions.CustomResourceDefinition) field.ErrorList,
) func(obj, old Object) field.ErrorList {
	return func(obj, old Object) field.ErrorList {
		return withInternal(old, func(was *apiextensions.CustomResourceDefinition) field.ErrorList {
			return withInternal(obj, func(is *apiextensions.CustomResourceDefinition) field.ErrorList {
				return f(context.Background(), is, was)
			})
		})
	}
}

// warnDefinition warns of what a definition has anew and what will not do what its author hopes.
func warnDefinition(obj, old Object) []string {
	known := sets.New[string]()
	if old != nil {
		known.Insert(doubtful(old.(*apiextensionsv1.CustomResourceDefinition))...)
	}
	var out []string
	for _, w := range doubtful(obj.(*apiextensionsv1.CustomResourceDefinition)) {
		if !known.Has(w) {
			known.Insert(w)
			out = append(out, w)
		}
	}
	return out
}

func doubtful(crd *apiextensionsv1.CustomResourceDefinition) (out []string) {
	internal, err := InternalDefinition(crd)
	if err != nil {
		return nil
	}
	look := func(s *apiextensions.JSONSchemaProps) {
		if s.Format != "" {
			probe := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
			for _, f := range apiservervalidation.GetUnrecognizedFormats(probe, environment.DefaultCompatibilityVersion()) {
				out = append(out, fmt.Sprintf("unrecognized format %q", f))
			}
		}
		if s.XListType == nil || *s.XListType != "set" || s.Items == nil || s.Items.Schema == nil {
			return
		}
		if of := s.Items.Schema.Type; of == "object" || of == "array" {
			out = append(out, fmt.Sprintf(
				"x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", of))
		}
	}
	if v := internal.Spec.Validation; v != nil && v.OpenAPIV3Schema != nil {
		definition.Each(v.OpenAPIV3Schema, look)
	}
	for _, v := range internal.Spec.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			definition.Each(v.Schema.OpenAPIV3Schema, look)
		}
	}
	return out
}
