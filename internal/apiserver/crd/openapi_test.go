package crd

import (
	"log/slog"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// TestServedBeforeTheStatusSays: a definition's names are in force a moment before its status tells them, and schemas that are asked for in between
// are kept for as long as the definition stays as it is.
func TestServedBeforeTheStatusSays(t *testing.T) {
	r := New(Config{Registry: registrytest.Start(t, nil, nil).Registry, Log: slog.New(slog.DiscardHandler)})
	decided := simple("boats", "example.com", 1)
	decided.Status.AcceptedNames = decided.Spec.Names
	k, err := r.kindOf(decided, false)
	if err != nil {
		t.Fatal(err)
	}
	k.source = func() (*apiextensionsv1.CustomResourceDefinition, error) {
		return simple("boats", "example.com", 1), nil
	}

	boat := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Boat", "spec": map[string]any{"field0": "x"}}}
	if _, err := k.types().ObjectToTyped(boat); err != nil {
		t.Errorf("the owners of fields: %v", err)
	}
	models, err := k.storage.openAPI("#/components/schemas/", false)
	if err != nil {
		t.Fatal(err)
	}
	for name, model := range models {
		kinds, _ := model.(map[string]any)[kindKey].([]any)
		if len(kinds) != 1 || kinds[0].(map[string]any)["kind"] == "" {
			t.Errorf("%s is of %v", name, kinds)
		}
	}
}
