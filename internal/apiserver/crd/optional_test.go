package crd

import (
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// TestOptionalOldSelf: a rule that may do without the old value is asked when there is none, and with it when nothing has changed.
func TestOptionalOldSelf(t *testing.T) {
	yes := true
	crd := simple("rats", "example.org", 1)
	crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["field"] = apiextensionsv1.JSONSchemaProps{Type: "string", XValidations: apiextensionsv1.ValidationRules{
		{Rule: "!oldSelf.hasValue() || self != oldSelf.value()", OptionalOldSelf: &yes},
	}}
	w := begin(t)
	w.define(crd)
	rat := func(field string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.org/v1", "kind": "Rat", "metadata": map[string]any{"name": "r", "namespace": "default"}, "field": field}}
	}
	made, err := w.Create(registrytest.Admin, rat("a"))
	if err != nil {
		t.Fatal("a new one: ", err)
	}
	same := rat("a")
	same.SetLabels(map[string]string{"a": "b"})
	same.SetResourceVersion(made.GetResourceVersion())
	if err := w.Update(registrytest.Admin, same, ""); !apierrors.IsInvalid(err) {
		t.Errorf("unchanged: %v", err)
	}
	other := rat("b")
	other.SetResourceVersion(made.GetResourceVersion())
	if err := w.Update(registrytest.Admin, other, ""); err != nil {
		t.Errorf("changed: %v", err)
	}
}
