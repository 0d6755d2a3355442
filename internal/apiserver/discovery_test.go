package apiserver_test

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi3"
	"k8s.io/kube-openapi/pkg/spec3"
	openapiproto "k8s.io/kube-openapi/pkg/util/proto"

	"skiff.dev/skiff/internal/apiserver/crd"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// resources flattens what discovery found into lines "apps/v1 deployments Deployment true [verbs] [short]".
func resources(t *testing.T, lists []*metav1.APIResourceList) (out []string) {
	t.Helper()
	for _, l := range lists {
		for _, r := range l.APIResources {
			verbs := slices.Clone(r.Verbs)
			slices.Sort(verbs)
			if strings.Contains(r.Name, "/") {
				r.SingularName = "" // client-go makes one up for what it found in an aggregated document
			}
			line, err := json.Marshal([]any{l.GroupVersion, r.Name, r.SingularName, r.Kind, r.Namespaced, verbs, r.ShortNames, r.Categories})
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(line))
		}
	}
	slices.Sort(out)
	return out
}

func TestDiscoveryIsTheSamePlainAndAggregated(t *testing.T) {
	f := start(t)
	find := func(legacy bool) ([]string, []string) {
		c, err := discovery.NewDiscoveryClientForConfig(f.config())
		if err != nil {
			t.Fatal(err)
		}
		c.UseLegacyDiscovery = legacy
		groups, lists, err := c.ServerGroupsAndResources()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, g := range groups {
			names = append(names, g.Name+" "+g.PreferredVersion.GroupVersion)
		}
		slices.Sort(names)
		return names, resources(t, lists)
	}
	plainGroups, plain := find(true)
	aggregatedGroups, aggregated := find(false)
	if !slices.Equal(plainGroups, aggregatedGroups) {
		t.Errorf("groups are %v and %v", plainGroups, aggregatedGroups)
	}
	if !slices.Equal(plain, aggregated) {
		for _, l := range plain {
			if !slices.Contains(aggregated, l) {
				t.Errorf("plain alone: %s", l)
			}
		}
		for _, l := range aggregated {
			if !slices.Contains(plain, l) {
				t.Errorf("aggregated alone: %s", l)
			}
		}
	}
	for _, want := range []string{
		`["v1","pods","pod","Pod",true,["create","delete","deletecollection","get","list","patch","update","watch"],["po"],["all"]]`,
		`["v1","namespaces","namespace","Namespace",false,["create","delete","get","list","patch","update","watch"],["ns"],null]`,
		`["authorization.k8s.io/v1","selfsubjectaccessreviews","selfsubjectaccessreview","SelfSubjectAccessReview",false,["create"],null,null]`,
	} {
		if !slices.Contains(plain, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, r := range f.Table().All() {
		prefix := `["` + schema.GroupVersion{Group: r.Group, Version: r.Version}.String() + `","` + r.Plural + `"`
		if !slices.ContainsFunc(plain, func(l string) bool { return strings.HasPrefix(l, prefix) }) {
			t.Errorf("%s is not discovered", r.Plural)
		}
	}
}

func TestSubresourcesAreDiscovered(t *testing.T) {
	f := start(t)
	var list metav1.APIResourceList
	f.ask("GET /apis/apps/v1", "").ok(200).into(&list)
	found := map[string]metav1.APIResource{}
	for _, r := range list.APIResources {
		found[r.Name] = r
	}
	if s := found["deployments/scale"]; s.Kind != "Scale" || s.Group != "autoscaling" || s.Version != "v1" || !slices.Equal(s.Verbs, []string{"get", "patch", "update"}) {
		t.Errorf("%+v", s)
	}
	if s := found["deployments/status"]; s.Kind != "Deployment" || s.Group != "" || !s.Namespaced {
		t.Errorf("%+v", s)
	}
}

func TestDiscoveryDocuments(t *testing.T) {
	f := start(t)
	var versions metav1.APIVersions
	f.ask("GET /api", "").ok(200).into(&versions)
	if versions.Kind != "APIVersions" || !slices.Equal(versions.Versions, []string{"v1"}) || versions.ServerAddressByClientCIDRs[0].ServerAddress != f.host {
		t.Errorf("%+v", versions)
	}
	var group metav1.APIGroup
	f.ask("GET /apis/apps", "").ok(200).into(&group)
	if group.Kind != "APIGroup" || group.PreferredVersion.GroupVersion != "apps/v1" {
		t.Errorf("%+v", group)
	}
	const wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	got := f.ask("GET /apis", "", "Accept", wanted+",application/json").ok(200)
	var all apidiscoveryv2.APIGroupDiscoveryList
	got.into(&all)
	if got.header.Get("Content-Type") != wanted || all.Kind != "APIGroupDiscoveryList" || len(all.Items) < 8 {
		t.Errorf("%s: %s with %d groups", got.header.Get("Content-Type"), all.Kind, len(all.Items))
	}
	for _, path := range []string{"/apis/nothing", "/apis/apps/v9", "/api/v9", "/apis/nothing/v1"} {
		if st := f.ask("GET "+path, "").ok(404).status(); st.Reason != metav1.StatusReasonNotFound {
			t.Errorf("%s: %+v", path, st)
		}
	}
	f.ask("POST /api", "{}").ok(405)
}

// references calls f with every $ref below v.
func references(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			if ref, ok := inner.(string); ok && k == "$ref" {
				f(ref)
			}
			references(inner, f)
		}
	case []any:
		for _, inner := range v {
			references(inner, f)
		}
	}
}

func TestOpenAPIv3(t *testing.T) {
	f := start(t)
	c, err := discovery.NewDiscoveryClientForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	root := openapi3.NewRoot(c.OpenAPIV3())
	versions, err := root.GroupVersions()
	if err != nil || len(versions) < 10 {
		t.Fatalf("%v, %v", versions, err)
	}
	kinds := map[schema.GroupVersionKind]bool{}
	for _, gv := range versions {
		doc, err := root.GVSpec(gv)
		if err != nil {
			t.Errorf("%s: %v", gv, err)
			continue
		}
		check3(t, gv, doc, kinds)
	}
	for _, r := range f.Table().All() {
		if !kinds[r.GVK()] {
			t.Errorf("no schema of %s", r.GVK())
		}
	}
}

func check3(t *testing.T, gv schema.GroupVersion, doc *spec3.OpenAPI, kinds map[schema.GroupVersionKind]bool) {
	t.Helper()
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	references(tree, func(ref string) {
		name, ok := strings.CutPrefix(ref, "#/components/schemas/")
		if _, found := doc.Components.Schemas[name]; !ok || !found {
			t.Errorf("%s: %s leads nowhere", gv, ref)
		}
	})
	for name, s := range doc.Components.Schemas {
		list, _ := s.Extensions["x-kubernetes-group-version-kind"].([]any)
		for _, e := range list {
			m := e.(map[string]any)
			kinds[schema.GroupVersionKind{Group: m["group"].(string), Version: m["version"].(string), Kind: m["kind"].(string)}] = true
		}
		if len(s.Type) == 0 && len(s.AllOf) == 0 && len(s.OneOf) == 0 && s.Extensions["x-kubernetes-preserve-unknown-fields"] == nil && name == "" {
			t.Errorf("%s: a schema without a name", gv)
		}
	}
	if len(doc.Paths.Paths) == 0 {
		t.Errorf("%s has no paths", gv)
	}
}

func TestOpenAPIv2(t *testing.T) {
	f := start(t)
	body := f.ask("GET /openapi/v2", "").ok(200).body
	doc, err := openapi_v2.ParseDocument(body)
	if err != nil {
		t.Fatal(err)
	}
	models, err := openapiproto.NewOpenAPIData(doc)
	if err != nil {
		t.Fatal(err)
	}
	pod := models.LookupModel("io.k8s.api.core.v1.Pod")
	kind, ok := pod.(*openapiproto.Kind)
	if !ok || kind.Fields["spec"] == nil || kind.GetDescription() == "" {
		t.Errorf("the model of a pod is %+v", pod)
	}
	var tree map[string]any
	if err := json.Unmarshal(body, &tree); err != nil {
		t.Fatal(err)
	}
	definitions := tree["definitions"].(map[string]any)
	references(tree, func(ref string) {
		if name, ok := strings.CutPrefix(ref, "#/definitions/"); !ok || definitions[name] == nil {
			t.Errorf("%s leads nowhere", ref)
		}
	})
	// client-go asks for it in protobuf.
	if got, err := f.clientset().Discovery().OpenAPISchema(); err != nil || len(got.Definitions.AdditionalProperties) != len(definitions) {
		t.Errorf("%v", err)
	}
}

// What clients keep of discovery and schemas they are not sent again until it changes.
func TestDocumentsHaveTags(t *testing.T) {
	f := start(t)
	registrytest.Run(t, crd.New(crd.Config{Registry: f.Registry.Registry, Log: slog.New(slog.DiscardHandler)}))
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	tagOf := func(path, accept string) string {
		t.Helper()
		got := f.ask("GET "+path, "", "Accept", accept).ok(200)
		tag := got.header.Get("ETag")
		if len(tag) < 10 || tag[0] != '"' || got.header.Get("Cache-Control") != "public" || !strings.Contains(strings.Join(got.header.Values("Vary"), ","), "Accept") {
			t.Fatalf("%s: %v", path, got.header)
		}
		return tag
	}
	for path, accept := range map[string]string{"/api": aggregated, "/apis": aggregated, "/openapi/v2": "*/*", "/openapi/v3": "*/*", "/openapi/v3/api/v1": "*/*", "/openapi/v3/apis/apps/v1": "*/*"} {
		tag := tagOf(path, accept)
		if again := tagOf(path, accept); again != tag {
			t.Errorf("%s is %s, then %s", path, tag, again)
		}
		for _, known := range []string{tag, "W/" + tag, `"other", ` + tag} {
			got := f.ask("GET "+path, "", "Accept", accept, "If-None-Match", known).ok(304)
			if len(got.body) != 0 || got.header.Get("ETag") != tag {
				t.Errorf("%s of who has it: %v, %d bytes", path, got.header, len(got.body))
			}
		}
		f.ask("GET "+path, "", "Accept", accept, "If-None-Match", `"other"`).ok(200)
	}
	before := map[string]string{"/apis": tagOf("/apis", aggregated), "/openapi/v3": tagOf("/openapi/v3", "*/*"), "/openapi/v2": tagOf("/openapi/v2", "*/*")}
	f.ask("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"stars.sky.example"},
"spec":{"group":"sky.example","scope":"Namespaced","names":{"plural":"stars","kind":"Star"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`).ok(201)
	soon(t, func() bool {
		for path, tag := range before {
			accept := "*/*"
			if path == "/apis" {
				accept = aggregated
			}
			if tagOf(path, accept) == tag {
				return false
			}
		}
		return true
	})
}
