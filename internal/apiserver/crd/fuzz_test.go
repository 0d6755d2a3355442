package crd

import (
	"encoding/json"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
)

// FuzzRules feeds CEL rules and column paths to a definition, and objects to those that it takes.
func FuzzRules(f *testing.F) {
	for _, rule := range []string{
		"self.size > 3", "self.words.all(w, w.startsWith('a'))", "self.size / (self.size - 4) > 0", "oldSelf.size == self.size", "has(self.name) && self.name.matches('(a+)+$')",
		"self.words.map(a, self.words.map(b, self.words.map(c, a + b + c))).size() > 0", "duration(self.name) > duration('1s')", "quantity(self.name).isLessThan(quantity('1'))",
		"ip(self.name).family() == 4", "self.words[99] == ''", "dyn(self).size.x", "self == self", "'a'.repeat(99999999)", "[1,2].exists(", "url(self.name).getHost() == ''", "\x00",
	} {
		f.Add(rule, ".spec.size", `{"size":4,"name":"aaaaaaaaaaaaaaaaaaaaaaaaaaaa!","words":["a","b"]}`)
	}
	for _, path := range []string{".spec.words[0]", ".spec.words[?(@==\"a\")]", "..", ".spec['name']", "{.spec}", ".spec.words[9999999:]", ".metadata.creationTimestamp"} {
		f.Add("true", path, `{"words":["a"],"name":"1"}`)
	}
	for _, q := range []string{"1e999999999", "1e-999999999", " 0.0000000000000000000000001e999999999"} {
		f.Add("quantity(self.name).isLessThan(quantity('1'))", ".spec.size", `{"name":"`+q+`"}`)
		f.Add("self.words.all(w, isQuantity(w) && quantity(w).add(1).isInteger())", ".spec.size", `{"words":["1","`+q+`"]}`)
	}
	row := api.NewTable().ByResource(schema.GroupResource{Group: apiextensionsv1.GroupName, Resource: "customresourcedefinitions"})
	f.Fuzz(func(t *testing.T, rule, path, spec string) {
		def := ruled(rule, path)
		if errs := row.Validate(def); len(errs) > 0 {
			return
		}
		version := &def.Spec.Versions[0]
		s, err := compile(version, false)
		if err != nil {
			t.Fatalf("the definition is valid and does not compile: %v", err)
		}
		obj := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": "a"}}}
		var content map[string]any
		if json.Unmarshal([]byte(spec), &content) == nil {
			obj.Object["spec"] = content
		}
		began := time.Now()
		s.checkRules(nil, obj, nil)
		s.checkRules(nil, obj, obj.DeepCopy())
		for _, c := range columnsOf(version.AdditionalPrinterColumns) {
			c.Cell(obj, began)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("rule %q and path %q took %s", rule, path, took)
		}
	})
}

// ruled is a definition with a rule and a column.
func ruled(rule, path string) *apiextensionsv1.CustomResourceDefinition {
	most, longest := int64(20), int64(100)
	def := simple("things", "example.com", 0)
	version := &def.Spec.Versions[0]
	version.AdditionalPrinterColumns = []apiextensionsv1.CustomResourceColumnDefinition{{Name: "A", Type: "string", JSONPath: path}, {Name: "B", Type: "date", JSONPath: path}}
	version.Schema.OpenAPIV3Schema.Properties["spec"] = apiextensionsv1.JSONSchemaProps{
		Type: "object", XValidations: apiextensionsv1.ValidationRules{{Rule: rule}},
		Properties: map[string]apiextensionsv1.JSONSchemaProps{
			"size": {Type: "integer"}, "name": {Type: "string", MaxLength: &longest},
			"words": {Type: "array", MaxItems: &most, Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string", MaxLength: &longest}}},
		},
	}
	return def
}
