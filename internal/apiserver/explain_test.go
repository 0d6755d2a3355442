package apiserver_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	openapiclient "k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/cached"
	"k8s.io/client-go/rest"
	explain "k8s.io/kubectl/pkg/explain/v2"
	"k8s.io/kubectl/pkg/util/openapi"
	"k8s.io/kubectl/pkg/validation"
)

// kubectls is what kubectl checks manifests with, by OpenAPI v2, and what it explains kinds from, v3.
func kubectls(t *testing.T, cfg *rest.Config) (validation.Schema, openapiclient.Client) {
	t.Helper()
	c, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := c.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	known, err := openapi.NewOpenAPIData(doc)
	if err != nil {
		t.Fatal(err)
	}
	return validation.NewSchemaValidation(given{known}), cached.NewClient(c.OpenAPIV3())
}

// kubectl's own code explains every kind, custom ones too, and finds fields that a kind has not before it sends anything.
func TestKubectlKnowsEveryKind(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	check, v3 := kubectls(t, s.config())
	rows := s.Table().All()
	for _, row := range rows {
		for i := range row.Also {
			rows = append(rows, row.Also[i].Row())
		}
	}
	for _, row := range rows {
		gvk := row.GVK()
		var text bytes.Buffer
		if err := explain.PrintModelDescription(nil, &text, v3, row.GVR(), true, 0, "plaintext"); err != nil {
			t.Errorf("explain --recursive %s: %v", row.Plural, err)
		}
		for _, want := range []string{"KIND:       " + gvk.Kind + "\n", "DESCRIPTION:\n", "FIELDS:\n", "  apiVersion\t<string>"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("explain --recursive %s: no %q in\n%s", row.Plural, want, text.String())
			}
		}
		for field, fine := range map[string]bool{"metadata": true, "colour": false} {
			err := check.ValidateBytes(sample(t, gvk, field))
			if found := err != nil && strings.Contains(err.Error(), `unknown field "`+field+`"`); found == fine {
				t.Errorf("%s with the field %s: %v", gvk, field, err)
			}
		}
	}
	if err := check.ValidateBytes([]byte(`{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","spec":{"maxReplicas":2,"scaleTargetRef":{"kind":"a","name":"b"},"targetCPUUtilizationPercentage":50}}`)); err != nil {
		t.Errorf("another version of the same group: %v", err)
	}
	if err := check.ValidateBytes([]byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"c","image":"i","port":1}]}}`)); err == nil ||
		!strings.Contains(err.Error(), `unknown field "port"`) {
		t.Errorf("a field deep within a pod: %v", err)
	}
}

// Kinds of one name in several groups, one of them a built-in kind's, are explained and checked each by its own schema, in both versions of OpenAPI.
func TestKindsOfOneName(t *testing.T) {
	s := seaOf(t)
	twin := func(plural, kind, group, field string) {
		s.define(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ` + plural + `.` + group + `}
spec:
  group: ` + group + `
  scope: Namespaced
  names: {plural: ` + plural + `, kind: ` + kind + `}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {` + field + `: {type: string, description: Of the ` + group + `.}}}}}}}
`)
	}
	s.define(boats)
	twin("boats", "Boat", "lake.example.com", "shore")
	twin("deployments", "Deployment", "shop.example.com", "courier")
	check, v3 := kubectls(t, s.config())
	all := []string{"oars", "shore", "courier", "replicas"}
	for _, k := range []struct{ group, plural, kind, own string }{
		{"sea.example.com", "boats", "Boat", "oars"}, {"lake.example.com", "boats", "Boat", "shore"},
		{"shop.example.com", "deployments", "Deployment", "courier"}, {"apps", "deployments", "Deployment", "replicas"},
	} {
		var text bytes.Buffer
		gvr := schema.GroupVersionResource{Group: k.group, Version: "v1", Resource: k.plural}
		if err := explain.PrintModelDescription([]string{"spec"}, &text, v3, gvr, true, 0, "plaintext"); err != nil {
			t.Errorf("explain %s.%s: %v", k.plural, k.group, err)
		}
		for _, field := range all {
			if there := strings.Contains(text.String(), "  "+field+"\t<"); there != (field == k.own) {
				t.Errorf("explain %s.%s, the field %s: %v in\n%s", k.plural, k.group, field, there, text.String())
			}
			err := check.ValidateBytes([]byte(`{"apiVersion":"` + k.group + `/v1","kind":"` + k.kind + `","spec":{"` + field + `":1}}`))
			if unknown := err != nil && strings.Contains(err.Error(), `unknown field "`+field+`"`); unknown != (field != k.own) {
				t.Errorf("a %s of %s with %s: %v", k.kind, k.group, field, err)
			}
		}
	}
}

// given are schemas that are there already.
type given struct{ openapi.Resources }

func (g given) OpenAPISchema() (openapi.Resources, error) { return g.Resources, nil }

// sample is next to nothing of a kind, with one field.
func sample(t *testing.T, gvk schema.GroupVersionKind, field string) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"apiVersion": gvk.GroupVersion().String(), "kind": gvk.Kind, field: map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
