package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/apiserver/crd"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// boats is a definition with most of what definitions can have.
const boats = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bo], categories: [all, fleet]}
  versions:
  - name: v1
    served: true
    storage: true
    selectableFields: [{jsonPath: .spec.kind}]
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.oars, statusReplicasPath: .status.oars, labelSelectorPath: .status.selector}
    additionalPrinterColumns:
    - {name: Kind, type: string, jsonPath: .spec.kind}
    - {name: Oars, type: integer, jsonPath: .spec.oars, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: A boat is something that floats.
        properties:
          spec:
            type: object
            required: [kind]
            x-kubernetes-validations:
            - {rule: "self.oars <= self.seats", message: "no more oars than seats"}
            - {rule: "self.kind == oldSelf.kind", message: "a boat stays what it is"}
            properties:
              kind: {type: string, enum: [canoe, skiff], description: What sort of boat it is.}
              seats: {type: integer, minimum: 1, maximum: 20, default: 2}
              oars: {type: integer, default: 2}
              crew:
                type: array
                maxItems: 20
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, role: {type: string, default: rower}}}
              extra: {type: object, x-kubernetes-preserve-unknown-fields: true}
              cargo: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, properties: {oars: {type: integer}, selector: {type: string}}}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {kind: {type: string}, seats: {type: integer}, oars: {type: integer}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

var boat = schema.GroupVersionResource{Group: "sea.example.com", Version: "v1", Resource: "boats"}

// sea is a server with custom resources.
type sea struct {
	*fixture
	definitions apiextensions.Interface
	boats       dynamic.ResourceInterface
}

func seaOf(t *testing.T) *sea {
	t.Helper()
	f := start(t)
	registrytest.Run(t, crd.New(crd.Config{Registry: f.Registry.Registry, Log: slog.New(slog.DiscardHandler)}))
	definitions, err := apiextensions.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := dynamic.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	return &sea{f, definitions, objects.Resource(boat).Namespace("default")}
}

func definition(t *testing.T, text string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	out := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte(text), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// define creates a definition and waits until it is established.
func (s *sea) define(text string) *apiextensionsv1.CustomResourceDefinition {
	s.Helper()
	out, err := s.definitions.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, definition(s.T, text), metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return s.wait(out.Name, apiextensionsv1.Established, apiextensionsv1.ConditionTrue)
}

func (s *sea) wait(name string, kind apiextensionsv1.CustomResourceDefinitionConditionType, is apiextensionsv1.ConditionStatus) *apiextensionsv1.CustomResourceDefinition {
	s.Helper()
	var got *apiextensionsv1.CustomResourceDefinition
	s.eventually(fmt.Sprintf("%s of %s to be %s", kind, name, is), func() bool {
		var err error
		if got, err = s.definitions.ApiextensionsV1().CustomResourceDefinitions().Get(ctx, name, metav1.GetOptions{}); err != nil {
			s.Fatal(err)
		}
		for _, c := range got.Status.Conditions {
			if c.Type == kind {
				return c.Status == is
			}
		}
		return false
	})
	return got
}

func (s *sea) eventually(what string, is func() bool) {
	s.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("waited in vain for %s", what)
		}
	}
}

func boatOf(name string, spec string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": map[string]any{"name": name}}}
	raw, err := yaml.YAMLToJSON([]byte(spec))
	if err != nil {
		panic(err)
	}
	parsed := &unstructured.Unstructured{} // numbers are whole where they can be
	if err := parsed.UnmarshalJSON([]byte(`{"kind":"Boat","spec":` + string(raw) + `}`)); err != nil {
		panic(err)
	}
	u.Object["spec"] = parsed.Object["spec"]
	return u
}

// do sends a request by hand.
func (s *sea) do(method, path, body string, header ...string) (int, http.Header, string) {
	s.Helper()
	req, err := http.NewRequest(method, "https://"+s.host+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.admin.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(out)
}

const boatsPath = "/apis/sea.example.com/v1/namespaces/default/boats"

func TestCustomResourceLife(t *testing.T) {
	s := seaOf(t)
	defined := s.define(boats)
	if got := defined.Status.StoredVersions; len(got) != 1 || got[0] != "v1" {
		t.Errorf("storedVersions: %v", got)
	}
	made, err := s.boats.Create(ctx, boatOf("nina", "{kind: skiff, extra: {free: [1, 2.5]}, unknown: 3, crew: [{name: ann}]}"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := made.Object["spec"].(map[string]any)
	want := `{"crew":[{"name":"ann","role":"rower"}],"extra":{"free":[1,2.5]},"kind":"skiff","oars":2,"seats":2}`
	if got, _ := json.Marshal(spec); string(got) != want {
		t.Errorf("pruned and defaulted: %s, want %s", got, want)
	}
	if made.GetUID() == "" || made.GetGeneration() != 1 || made.GetResourceVersion() == "" || made.GetCreationTimestamp() == (metav1.Time{}) {
		t.Errorf("metadata: %v", made.Object["metadata"])
	}

	// An update must say what it was made of; status and spec go their own ways; generation counts the spec's changes.
	blind := made.DeepCopy()
	blind.SetResourceVersion("")
	if _, err := s.boats.Update(ctx, blind, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "must be specified for an update") {
		t.Errorf("an update without resourceVersion: %v", err)
	}
	set(made, int64(3), "spec", "seats")
	set(made, int64(9), "status", "oars")
	made, err = s.boats.Update(ctx, made, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, has := made.Object["status"]; has || made.GetGeneration() != 2 {
		t.Errorf("after an update of spec: generation %d, status %v", made.GetGeneration(), made.Object["status"])
	}
	set(made, int64(20), "spec", "seats")
	set(made, int64(1), "status", "oars")
	made, err = s.boats.UpdateStatus(ctx, made, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if seats, _, _ := unstructured.NestedInt64(made.Object, "spec", "seats"); seats != 3 || made.GetGeneration() != 2 {
		t.Errorf("after an update of status: %d seats, generation %d", seats, made.GetGeneration())
	}

	// Patches.
	made, err = s.boats.Patch(ctx, "nina", types.MergePatchType, []byte(`{"spec":{"oars":1},"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	if err != nil || made.GetLabels()["a"] != "b" || made.GetGeneration() != 3 {
		t.Errorf("merge patch: %v %v", made, err)
	}
	if _, err = s.boats.Patch(ctx, "nina", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/oars","value":2}]`), metav1.PatchOptions{}); err != nil {
		t.Errorf("JSON patch: %v", err)
	}
	if _, err = s.boats.Patch(ctx, "nina", types.StrategicMergePatchType, []byte(`{}`), metav1.PatchOptions{}); !apierrors.IsUnsupportedMediaType(err) {
		t.Errorf("strategic merge patch: %v", err)
	}

	// Gone with their definition.
	if err := s.definitions.ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, "boats.sea.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("the definition to go", func() bool {
		_, err := s.definitions.ApiextensionsV1().CustomResourceDefinitions().Get(ctx, "boats.sea.example.com", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	s.eventually("the resource to go", func() bool {
		_, err := s.boats.List(ctx, metav1.ListOptions{})
		return apierrors.IsNotFound(err)
	})
	s.define(boats)
	if list, err := s.boats.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("a new definition has old objects: %v %v", list, err)
	}
}

func set(u *unstructured.Unstructured, v any, path ...string) {
	if err := unstructured.SetNestedField(u.Object, v, path...); err != nil {
		panic(err)
	}
}

func TestCustomResourceValidation(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	for name, c := range map[string]struct {
		spec string
		want string
	}{
		"required":        {"{}", `spec.kind: Required value`},
		"enum":            {"{kind: tanker}", `spec.kind: Unsupported value: "tanker": supported values: "canoe", "skiff"`},
		"type":            {"{kind: skiff, seats: many}", `spec.seats: Invalid value: "string": spec.seats in body must be of type integer: "string"`},
		"maximum":         {"{kind: skiff, seats: 21}", `spec.seats: Invalid value: 21: spec.seats in body should be less than or equal to 20`},
		"rule":            {"{kind: skiff, oars: 3}", `spec: Invalid value: no more oars than seats`},
		"list map":        {"{kind: skiff, crew: [{name: a}, {name: a}]}", `spec.crew[1]: Duplicate value: {"name":"a"}`},
		"negative scale":  {"{kind: skiff, oars: -1}", `should be a non-negative integer`},
		"embedded object": {"{kind: skiff, cargo: {metadata: {name: x}}}", `spec.cargo.kind: Required value`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.boats.Create(ctx, boatOf("x", c.spec), metav1.CreateOptions{})
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	made, err := s.boats.Create(ctx, boatOf("pinta", "{kind: skiff}"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	set(made, "canoe", "spec", "kind")
	if _, err := s.boats.Update(ctx, made, metav1.UpdateOptions{}); err == nil || !strings.Contains(err.Error(), "a boat stays what it is") {
		t.Errorf("a transition rule: %v", err)
	}
}

func TestCustomResourceFieldValidation(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	body := func(name string) string {
		return `{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":{"name":"` + name + `","colour":"red"},"spec":{"kind":"skiff","sail":1,"oars":1,"oars":2}}`
	}
	code, _, text := s.do("POST", boatsPath+"?fieldValidation=Strict", body("a"), "Content-Type", "application/json")
	for _, want := range []string{`unknown field \"spec.sail\"`, `unknown field \"metadata.colour\"`, `duplicate field \"spec.oars\"`} {
		if code != 400 || !strings.Contains(text, want) {
			t.Errorf("strict: %d %s, want %s", code, text, want)
		}
	}
	code, header, _ := s.do("POST", boatsPath+"?fieldValidation=Warn", body("b"), "Content-Type", "application/json")
	if w := strings.Join(header.Values("Warning"), " "); code != 201 || !strings.Contains(w, "spec.sail") || !strings.Contains(w, "spec.oars") {
		t.Errorf("warn: %d %s", code, w)
	}
	code, header, _ = s.do("POST", boatsPath+"?fieldValidation=Ignore", body("c"), "Content-Type", "application/json")
	if code != 201 || len(header.Values("Warning")) > 0 {
		t.Errorf("ignore: %d %v", code, header)
	}
	code, _, text = s.do("PATCH", boatsPath+"/c?fieldValidation=Strict", `{"spec":{"sail":2}}`, "Content-Type", "application/merge-patch+json")
	if code != 400 || !strings.Contains(text, "spec.sail") {
		t.Errorf("a strict patch: %d %s", code, text)
	}
	code, _, text = s.do("POST", boatsPath, `{"metadata":{"name":"d"}}`, "Content-Type", "application/json")
	if code != 400 || !strings.Contains(text, "Object 'Kind' is missing") {
		t.Errorf("without kind: %d %s", code, text)
	}
	code, _, text = s.do("POST", boatsPath, `{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":{"name":"d","labels":{"a":1}}}`, "Content-Type", "application/json")
	if code != 400 {
		t.Errorf("with a label that is a number: %d %s", code, text)
	}
}

func TestCustomResourceVersions(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	if _, err := s.boats.Create(ctx, boatOf("maria", "{kind: skiff, crew: [{name: ann}]}"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const old = "/apis/sea.example.com/v1beta1/namespaces/default/boats"
	code, header, text := s.do("GET", old+"/maria", "")
	if code != 200 || !strings.Contains(text, `"sea.example.com/v1beta1"`) || strings.Contains(text, `"crew":`) {
		t.Errorf("in the old version: %d %s", code, text)
	}
	if w := header.Get("Warning"); !strings.Contains(w, "sea.example.com/v1beta1 Boat is deprecated; use sea.example.com/v1 Boat") {
		t.Errorf("warning: %s", w)
	}
	code, _, text = s.do("GET", old, "")
	if code != 200 || !strings.Contains(text, `"kind":"BoatList","apiVersion":"sea.example.com/v1beta1"`) || strings.Contains(text, `"crew":`) {
		t.Errorf("listed in the old version: %d %s", code, text)
	}
	body := `{"apiVersion":"sea.example.com/v1beta1","kind":"Boat","metadata":{"name":"old"},"spec":{"kind":"raft"},"status":{"oars":1}}`
	if code, _, text = s.do("POST", old, body, "Content-Type", "application/json"); code != 201 || !strings.Contains(text, `"status":{"oars":1}`) {
		t.Errorf("created in the old version, which has no status subresource and no enumeration: %d %s", code, text)
	}
	got, err := s.boats.Get(ctx, "old", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if seats, _, _ := unstructured.NestedInt64(got.Object, "spec", "seats"); seats != 2 {
		t.Errorf("seats: %d", seats)
	}
	if code, _, _ = s.do("GET", old+"/old/scale", ""); code != 404 {
		t.Errorf("scale of a version without: %d", code)
	}
	if code, _, text = s.do("GET", "/apis/sea.example.com/v2/boats", ""); code != 404 {
		t.Errorf("a version there isn't: %d %s", code, text)
	}

	// The old version becomes the stored one; what is stored stays, and is shown in either.
	crds := s.definitions.ApiextensionsV1().CustomResourceDefinitions()
	d, err := crds.Get(ctx, "boats.sea.example.com", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.Spec.Versions[0].Storage, d.Spec.Versions[1].Storage = false, true
	if d, err = crds.Update(ctx, d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(d.Status.StoredVersions) != "[v1 v1beta1]" {
		t.Errorf("storedVersions: %v", d.Status.StoredVersions)
	}
	s.eventually("the storage version to change", func() bool {
		row := s.Table().ByResource(boat.GroupResource())
		return row != nil && row.Version == "v1beta1"
	})
	for _, version := range []string{"v1", "v1beta1"} {
		code, _, text = s.do("GET", "/apis/sea.example.com/"+version+"/boats", "")
		if code != 200 || strings.Count(text, `"apiVersion":"sea.example.com/`+version+`","kind":"Boat"`) != 2 {
			t.Errorf("listed as %s: %d %s", version, code, text)
		}
	}
	if _, err := s.boats.Patch(ctx, "maria", types.MergePatchType, []byte(`{"spec":{"oars":1}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}

func TestCustomResourceScaleAndFields(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	for name, kind := range map[string]string{"a": "skiff", "b": "canoe"} {
		if _, err := s.boats.Create(ctx, boatOf(name, "{kind: "+kind+", seats: 9}"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.boats.List(ctx, metav1.ListOptions{FieldSelector: "spec.kind=canoe"})
	if err != nil || len(list.Items) != 1 || list.Items[0].GetName() != "b" {
		t.Errorf("by field: %v %v", list, err)
	}
	if _, err := s.boats.List(ctx, metav1.ListOptions{FieldSelector: "spec.seats=9"}); !apierrors.IsBadRequest(err) {
		t.Errorf("by a field that is not selectable: %v", err)
	}
	scale, err := s.boats.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"replicas":4}}`), metav1.PatchOptions{}, "scale")
	if err != nil || scale.GetKind() != "Scale" {
		t.Fatalf("scale: %v %v", scale, err)
	}
	got, err := s.boats.Get(ctx, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if oars, _, _ := unstructured.NestedInt64(got.Object, "spec", "oars"); oars != 4 || got.GetGeneration() != 2 {
		t.Errorf("scaled to %d oars, generation %d", oars, got.GetGeneration())
	}
	code, _, text := s.do("GET", boatsPath, "", "Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	for _, want := range []string{`"name":"Kind"`, `"cells":["a","skiff",4,"`} {
		if code != 200 || !strings.Contains(text, want) {
			t.Errorf("table: %d %s, want %s", code, text, want)
		}
	}
	code, _, text = s.do("GET", boatsPath+"/a/scale", "", "Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	for _, want := range []string{`"name":"Desired"`, `"name":"Available"`, `"cells":["a",4,0,"`} {
		if code != 200 || !strings.Contains(text, want) {
			t.Errorf("table of the scale: %d %s, want %s", code, text, want)
		}
	}
	code, header, _ := s.do("GET", boatsPath+"/a", "", "Accept", "application/vnd.kubernetes.protobuf,application/json")
	if code != 200 || header.Get("Content-Type") != "application/json" {
		t.Errorf("preferring protobuf: %d %s", code, header.Get("Content-Type"))
	}
	if code, _, _ = s.do("GET", boatsPath+"/a", "", "Accept", "application/vnd.kubernetes.protobuf"); code != 406 {
		t.Errorf("protobuf alone: %d", code)
	}
	code, header, _ = s.do("GET", boatsPath, "", "Accept", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	if code != 200 || header.Get("Content-Type") != "application/vnd.kubernetes.protobuf" {
		t.Errorf("metadata as protobuf: %d %s", code, header.Get("Content-Type"))
	}
}

func TestCustomResourceDiscovery(t *testing.T) {
	s := seaOf(t)
	d, err := discovery.NewDiscoveryClientForConfig(s.config())
	if err != nil {
		t.Fatal(err)
	}
	s.define(boats)
	plain, err := d.ServerResourcesForGroupVersion("sea.example.com/v1")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range plain.APIResources {
		names = append(names, r.Name)
	}
	if fmt.Sprint(names) != "[boats boats/scale boats/status]" {
		t.Errorf("v1 has %v", names)
	}
	groups, lists, err := d.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, g := range groups {
		found = found || g.Name == "sea.example.com" && g.PreferredVersion.Version == "v1" && len(g.Versions) == 2
	}
	if !found || len(lists) == 0 {
		t.Errorf("the group is not discovered: %v", groups)
	}
	code, _, text := s.do("GET", "/openapi/v3/apis/sea.example.com/v1", "")
	for _, want := range []string{`"com.example.sea.v1.Boat"`, "What sort of boat it is.", `"com.example.sea.v1.BoatList"`, `"x-kubernetes-list-map-keys":["name"]`, "ObjectMeta",
		`"allOf":[{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}],"description":"Standard object's metadata. More info:`} {
		if code != 200 || !strings.Contains(text, want) {
			t.Errorf("OpenAPI v3 lacks %s: %d %.2000s", want, code, text)
		}
	}
	code, _, text = s.do("GET", "/openapi/v2", "")
	if code != 200 || !strings.Contains(text, `"com.example.sea.v1.Boat"`) || strings.Contains(text, "#/components/") {
		t.Errorf("OpenAPI v2: %d %d bytes", code, len(text))
	}
	if code, _, text = s.do("GET", "/openapi/v2", "", "Accept", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"); code != 200 {
		t.Errorf("OpenAPI v2 as protobuf: %d %.300s", code, text)
	}
}

func TestCustomResourceApply(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	apply := func(manager, spec string, force bool) (*unstructured.Unstructured, error) {
		return s.boats.Apply(ctx, "trim", boatOf("trim", spec), metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	if _, err := apply("one", "{kind: skiff, crew: [{name: ann}], oars: 1}", false); err != nil {
		t.Fatal(err)
	}
	got, err := apply("two", "{crew: [{name: bob, role: cox}]}", false)
	if err != nil {
		t.Fatal(err)
	}
	if crew, _, _ := unstructured.NestedSlice(got.Object, "spec", "crew"); len(crew) != 2 {
		t.Errorf("lists merge by key: %v", crew)
	}
	if _, err := apply("two", "{oars: 2}", false); !apierrors.IsConflict(err) {
		t.Errorf("a field of somebody else's: %v", err)
	}
	if got, err = apply("two", "{oars: 2}", true); err != nil {
		t.Fatal(err)
	}
	if crew, _, _ := unstructured.NestedSlice(got.Object, "spec", "crew"); len(crew) != 1 {
		t.Errorf("what is applied no longer goes: %v", crew)
	}

	// In another version, about fields that somebody owns in this one.
	body := `{"apiVersion":"sea.example.com/v1beta1","kind":"Boat","metadata":{"name":"trim"},"spec":{"oars":1,"seats":3}}`
	const old = "/apis/sea.example.com/v1beta1/namespaces/default/boats/trim?fieldManager=three"
	if code, _, text := s.do("PATCH", old, body, "Content-Type", "application/apply-patch+yaml"); code != 409 || !strings.Contains(text, ".spec.oars") {
		t.Errorf("in another version: %d %s", code, text)
	}
	if code, _, text := s.do("PATCH", old+"&force=true", body, "Content-Type", "application/apply-patch+yaml"); code != 200 {
		t.Errorf("in another version, forced: %d %s", code, text)
	}
	if got, err = s.boats.Get(ctx, "trim", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if seats, _, _ := unstructured.NestedInt64(got.Object, "spec", "seats"); seats != 3 {
		t.Errorf("applied in another version: %v", got.Object["spec"])
	}
}

func TestCustomResourceWatch(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	w, err := s.boats.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.boats.Create(ctx, boatOf("w", "{kind: skiff}"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.boats.Delete(ctx, "w", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ADDED", "DELETED"} {
		if e := <-w.ResultChan(); string(e.Type) != want || e.Object.(*unstructured.Unstructured).GetName() != "w" {
			t.Errorf("got %v, want %s", e, want)
		}
	}
	if err := s.definitions.ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, "boats.sea.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case e, open := <-w.ResultChan():
		if open {
			t.Errorf("after the definition has gone: %v", e)
		}
	case <-time.After(time.Minute):
		t.Error("a watch outlives its definition")
	}
}

func TestDefinitionsAreValidated(t *testing.T) {
	s := seaOf(t)
	crds := s.definitions.ApiextensionsV1().CustomResourceDefinitions()
	for name, c := range map[string]struct{ was, is, want string }{
		"name":        {"name: boats.sea", "name: ships.sea", `metadata.name: Invalid value: "ships.sea.example.com": must be spec.names.plural+"."+spec.group`},
		"group":       {"group: sea.example.com", "group: sea", "should be a domain with at least one dot"},
		"scope":       {"scope: Namespaced", "scope: World", `spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced"`},
		"storage":     {"storage: false", "storage: true", "must have exactly one version marked as storage version"},
		"type":        {"seats: {type: integer, minimum", "seats: {type: int, minimum", `Unsupported value: "int"`},
		"structural":  {"crew:\n                type: array", "crew:\n                description: x", "type: Required value: must not be empty for specified object fields"},
		"default":     {"default: 2}\n              oars", "default: two}\n              oars", `default: Invalid value: "string"`},
		"rule":        {"self.oars <= self.seats", "self.oars <= self.sails", "undefined field 'sails'"},
		"column":      {"{name: Kind, type: string", "{name: Kind, type: text", "must be one of boolean,date,integer,number,string"},
		"list key":    {"x-kubernetes-list-map-keys: [name]", "x-kubernetes-list-map-keys: [nick]", "entries must all be names of item properties"},
		"scale":       {"specReplicasPath: .spec.oars", "specReplicasPath: .status.oars", "should be a json path under .spec"},
		"selectable":  {"jsonPath: .spec.kind}]", "jsonPath: .spec.crew}]", "must point to a field of type string, boolean or integer"},
		"cost":        {"maxItems: 20\n", "x-kubernetes-validations: [{rule: 'self.all(a, self.all(b, self.all(c, a.name + b.name + c.name != \"\")))'}]\n", "exceeds budget"},
		"conversion":  {"scope: Namespaced", "scope: Namespaced\n  conversion: {strategy: Webhook}", "spec.conversion.conversionReviewVersions: Required value"},
		"deprecation": {"served: true\n    storage: true", "served: true\n    deprecationWarning: x\n    storage: true", "can only be set for deprecated versions"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(boats, c.was, c.is, 1)
			if text == boats {
				t.Fatal("the test changes nothing")
			}
			_, err := crds.Create(ctx, definition(t, text), metav1.CreateOptions{})
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestDefinitionsShareNoNames(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	other := strings.NewReplacer("boats.sea", "skiffs.sea", "plural: boats", "plural: skiffs", "singular: boat,", "singular: skiff,", "kind: Boat", "kind: Skiff").Replace(boats)
	crds := s.definitions.ApiextensionsV1().CustomResourceDefinitions()
	if _, err := crds.Create(ctx, definition(t, other), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got := s.wait("skiffs.sea.example.com", apiextensionsv1.NamesAccepted, apiextensionsv1.ConditionFalse)
	for _, c := range got.Status.Conditions {
		if c.Type == apiextensionsv1.NamesAccepted && (c.Reason != "ShortNamesConflict" || c.Message != `"bo" is already in use`) {
			t.Errorf("condition: %v", c)
		}
	}
	if code, _, _ := s.do("GET", "/apis/sea.example.com/v1/skiffs", ""); code != 404 {
		t.Errorf("what is not established answers %d", code)
	}
	if err := crds.Delete(context.Background(), "boats.sea.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.wait("skiffs.sea.example.com", apiextensionsv1.Established, apiextensionsv1.ConditionTrue)
}
