package api

import (
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestUpstreamsDefinitions: upstream stores definitions as JSON of v1beta1, with what all versions share above them.
func TestUpstreamsDefinitions(t *testing.T) {
	const stored = `{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","metadata":{"name":"boats.example.com","uid":"u"},
"spec":{"group":"example.com","version":"v1","names":{"plural":"boats","singular":"boat","kind":"Boat","listKind":"BoatList"},"scope":"Namespaced",
"validation":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object"}}}},"subresources":{"status":{}},
"versions":[{"name":"v1","served":true,"storage":true},{"name":"v2","served":true,"storage":false}],"preserveUnknownFields":false},
"status":{"conditions":[{"type":"Established","status":"True"}],"acceptedNames":{"plural":"boats","kind":"Boat"},"storedVersions":["v1"]}}`
	got, err := decodeDefinition([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	crd := got.(*apiextensionsv1.CustomResourceDefinition)
	if len(crd.Spec.Versions) != 2 || crd.Spec.PreserveUnknownFields || crd.Status.StoredVersions[0] != "v1" {
		t.Errorf("%+v", crd.Spec)
	}
	for _, v := range crd.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema.Properties["spec"].Type != "object" || v.Subresources == nil || v.Subresources.Status == nil {
			t.Errorf("%s lacks what all versions share: %+v", v.Name, v)
		}
	}
}

func TestTableFollowsDefinitions(t *testing.T) {
	table := NewTable()
	built := len(table.All())
	row := func(kind string) *Resource {
		free := func() Object { return &unstructured.Unstructured{} }
		other := &Resource{Group: "example.com", Version: "v2", Kind: kind, Plural: "boats", New: free, Custom: &Custom{}}
		return &Resource{
			Group: "example.com", Version: "v1", Kind: kind, Plural: "boats", New: free, NewList: func() runtime.Object { return &unstructured.UnstructuredList{} },
			Custom: &Custom{Hidden: true}, Also: []Served{{Group: "example.com", Version: "v2", Kind: kind, Own: other}},
		}
	}
	gr, gk := schema.GroupResource{Group: "example.com", Resource: "boats"}, schema.GroupKind{Group: "example.com", Kind: "Boat"}
	changed := table.Changed()
	first := row("Boat")
	table.Add(first)
	select {
	case <-changed:
	default:
		t.Error("nobody was told of a new row")
	}
	if table.ByResource(gr) != first || table.ByKind(gk) != first || len(table.All()) != built+1 {
		t.Error("the row is not found")
	}
	if r, s := first.Serving("example.com", "v2"); r != first.Also[0].Own || s != nil {
		t.Error("the other version's requests are not about its own row")
	}
	if r, _ := first.Serving("example.com", "v1"); r != nil {
		t.Error("a version that is only stored is served")
	}
	second := row("Ship")
	table.Add(second)
	if table.ByResource(gr) != second || table.ByKind(gk) != nil || len(table.All()) != built+1 || slices.Contains(table.All(), first) {
		t.Error("a row took no other's place")
	}
	table.Remove(first)
	if table.ByResource(gr) != second {
		t.Error("a row that was replaced took its successor along")
	}
	table.Remove(second)
	if table.ByResource(gr) != nil || len(table.All()) != built {
		t.Error("a removed row is still there")
	}
}
