package definition

import (
	"context"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
)

// good is a definition that nothing is wrong with.
func good(change ...func(*CRD)) *CRD {
	names := apiextensions.CustomResourceDefinitionNames{Plural: "boats", Singular: "boat", Kind: "Boat", ListKind: "BoatList"}
	crd := &CRD{
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: "example.com", Version: "v1", Names: names, Scope: apiextensions.NamespaceScoped, PreserveUnknownFields: new(bool),
			Versions: []apiextensions.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true}, {Name: "v2", Served: true}},
			Validation: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &props{Type: "object", Properties: map[string]props{
				"spec": {Type: "object", Properties: map[string]props{"size": {Type: "integer"}}},
			}}},
		},
		Status: apiextensions.CustomResourceDefinitionStatus{StoredVersions: []string{"v1"}},
	}
	crd.Name = "boats.example.com"
	for _, f := range change {
		f(crd)
	}
	return crd
}

// at changes one property of the spec.
func at(name string, p props) func(*CRD) {
	return func(crd *CRD) {
		spec := crd.Spec.Validation.OpenAPIV3Schema.Properties["spec"]
		spec.Properties[name] = p
	}
}

func established(crd *CRD) {
	crd.Status.Conditions = []apiextensions.CustomResourceDefinitionCondition{{Type: apiextensions.Established, Status: apiextensions.ConditionTrue}}
}

func ptr[T any](v T) *T { return &v }

func TestUpdates(t *testing.T) {
	rule := func(text string, most *int64) props {
		return props{Type: "array", MaxItems: most, Items: &apiextensions.JSONSchemaPropsOrArray{Schema: &props{
			Type: "object", Properties: map[string]props{"name": {Type: "string"}},
		}}, XValidations: apiextensions.ValidationRules{{Rule: text}}}
	}
	dear := rule("self.all(a, self.all(b, a.name != b.name + 'x'))", nil)
	set := props{Type: "array", XListType: ptr("set"), Items: &apiextensions.JSONSchemaPropsOrArray{Schema: &props{Type: "object"}}}
	for name, c := range map[string]struct {
		old, crd *CRD
		want     string // "" for nothing wrong
	}{
		"nothing":                         {good(established), good(established), ""},
		"a new field":                     {good(), good(at("more", props{Type: "string"})), ""},
		"a wrong type":                    {good(), good(at("more", props{Type: "text"})), `spec.validation.openAPIV3Schema.properties[spec].properties[more].type: Unsupported value: "text"`},
		"a type that was wrong":           {good(at("more", props{Type: "text"})), good(at("more", props{Type: "text"}), at("other", props{Type: "string"})), ""},
		"a set of objects":                {good(), good(at("more", set)), "must be atomic as item of a list with x-kubernetes-list-type=set"},
		"a set of objects that was there": {good(at("more", set)), good(at("more", set), at("other", props{Type: "string"})), ""},
		"a dear rule":                     {good(), good(at("more", dear)), "estimated rule cost exceeds budget by factor of"},
		"a dear rule that was there":      {good(at("more", dear)), good(at("more", dear)), "cost total for entire OpenAPIv3 schema exceeds budget"},
		"a rule within its budget":        {good(), good(at("more", rule("self.all(a, a.name != 'x')", ptr(int64(10))))), ""},
		"scope once established": {
			good(established), good(func(crd *CRD) { crd.Spec.Scope = apiextensions.ClusterScoped }), `spec.scope: Invalid value: "Cluster": field is immutable`,
		},
		"scope before": {good(), good(func(crd *CRD) { crd.Spec.Scope = apiextensions.ClusterScoped }), ""},
		"a stored version gone": {
			good(), good(func(crd *CRD) { crd.Status.StoredVersions = []string{"v1", "v0"} }), "status.storedVersions[1]: Invalid value: \"v0\": missing from spec.versions",
		},
		"preserve": {
			good(), good(func(crd *CRD) { crd.Spec.PreserveUnknownFields = ptr(true) }), "cannot set to true, set x-kubernetes-preserve-unknown-fields",
		},
		"a community group": {
			good(), good(func(crd *CRD) { crd.Spec.Group, crd.Name = "x.k8s.io", "boats.x.k8s.io" }), "spec.group: Invalid value: \"x.k8s.io\": field is immutable",
		},
		"oldSelf where it cannot be known": {
			good(), good(at("more", props{Type: "array", Items: &apiextensions.JSONSchemaPropsOrArray{Schema: &props{
				Type: "string", XValidations: apiextensions.ValidationRules{{Rule: "self == oldSelf"}},
			}}})), "oldSelf cannot be used on the uncorrelatable portion of the schema within",
		},
	} {
		t.Run(name, func(t *testing.T) {
			errs := ValidateUpdate(context.Background(), c.crd, c.old)
			text := ""
			if len(errs) > 0 {
				text = errs.ToAggregate().Error()
			}
			if c.want == "" && text != "" || !strings.Contains(text, c.want) {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}

func TestWebhooks(t *testing.T) {
	client := func(c apiextensions.WebhookClientConfig, reviews ...string) func(*CRD) {
		return func(crd *CRD) {
			crd.Spec.Conversion = &apiextensions.CustomResourceConversion{Strategy: apiextensions.WebhookConverter, WebhookClientConfig: &c, ConversionReviewVersions: reviews}
		}
	}
	service := func(path string) apiextensions.WebhookClientConfig {
		return apiextensions.WebhookClientConfig{Service: &apiextensions.ServiceReference{Namespace: "a", Name: "b", Port: 443, Path: &path}}
	}
	for name, c := range map[string]struct {
		change func(*CRD)
		want   string
	}{
		"service":       {client(service("/convert/it"), "v1"), ""},
		"path":          {client(service("convert//it"), "v1"), "segment[1] may not be empty"},
		"url":           {client(apiextensions.WebhookClientConfig{URL: ptr("https://x/y")}, "v1beta1"), ""},
		"plain url":     {client(apiextensions.WebhookClientConfig{URL: ptr("http://x?a=b")}, "v1"), "query parameters are not permitted in the URL"},
		"neither":       {client(apiextensions.WebhookClientConfig{}, "v1"), "exactly one of url or service is required"},
		"no reviews":    {client(service("/")), "spec.conversion.conversionReviewVersions: Required value"},
		"other reviews": {client(service("/"), "v7"), "must include at least one of v1, v1beta1"},
	} {
		t.Run(name, func(t *testing.T) {
			errs := Validate(context.Background(), good(c.change))
			text := ""
			if len(errs) > 0 {
				text = errs.ToAggregate().Error()
			}
			if c.want == "" && text != "" || !strings.Contains(text, c.want) {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}
