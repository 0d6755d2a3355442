package crd

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
	"skiff.dev/skiff/internal/store"
)

var ctx = context.Background()

type allNames = apiextensionsv1.CustomResourceDefinitionNames

func TestAccept(t *testing.T) {
	wanted := allNames{Plural: "boats", Singular: "boat", ShortNames: []string{"bo", "b"}, Kind: "Boat", ListKind: "BoatList", Categories: []string{"all"}}
	for name, c := range map[string]struct {
		has, other      allNames
		reason, message string
		lacks           func(*allNames)
	}{
		"alone": {lacks: func(*allNames) {}},
		"plural": {
			other: allNames{Singular: "boats"}, reason: "PluralConflict", message: `"boats" is already in use`, lacks: func(n *allNames) { n.Plural = "" },
		},
		"short names": {
			other: allNames{ShortNames: []string{"bo"}, Plural: "b"}, reason: "ShortNamesConflict", message: `["bo" is already in use, "b" is already in use]`,
			lacks: func(n *allNames) { n.ShortNames = nil },
		},
		"kind": {
			other: allNames{Kind: "BoatList"}, reason: "ListKindConflict", message: `"BoatList" is already in use`, lacks: func(n *allNames) { n.ListKind = "" },
		},
		"had it first": {has: wanted, other: allNames{Plural: "boats"}, lacks: func(*allNames) {}},
		"keeps what it had": {
			has: allNames{Plural: "boats", Singular: "old"}, other: allNames{Singular: "boat"}, reason: "SingularConflict", message: `"boat" is already in use`,
			lacks: func(n *allNames) { n.Singular = "old" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			others := names{map[string]bool{}, map[string]bool{}}
			others.add(c.other)
			got, conflict := accept(wanted, c.has, others)
			want := wanted
			c.lacks(&want)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("accepted %v, want %v", got, want)
			}
			if conflict == nil != (c.reason == "") || conflict != nil && (conflict.Reason != c.reason || conflict.Message != c.message) {
				t.Errorf("conflict %v, want %s: %s", conflict, c.reason, c.message)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	crd := simple("boats", "example.com", 1)
	crd.Spec.Group = "x.k8s.io"
	crd.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: "unapproved, testing"}
	decide(crd, names{}, true)
	again := crd.DeepCopy()
	decide(again, names{}, true)
	if fmt.Sprint(crd.Status) != fmt.Sprint(again.Status) {
		t.Errorf("it decides otherwise the second time: %v, %v", crd.Status, again.Status)
	}
	var text []string
	for _, c := range crd.Status.Conditions {
		text = append(text, fmt.Sprintf("%s=%s(%s)", c.Type, c.Status, c.Reason))
	}
	const want = "NamesAccepted=True(NoConflicts) Established=True(InitialNamesAccepted) KubernetesAPIApprovalPolicyConformant=False(UnapprovedAnnotation)"
	if got := strings.Join(text, " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	old := simple("boats", "example.com", 1)
	old.Spec.PreserveUnknownFields = true
	decide(old, names{}, true)
	if c := old.Status.Conditions[len(old.Status.Conditions)-1]; c.Type != apiextensionsv1.NonStructuralSchema || c.Reason != "Violations" {
		t.Errorf("of a definition that preserves unknown fields: %v", old.Status.Conditions)
	}
}

// simple is a definition whose schema has a number of fields.
func simple(plural, group string, fields int) *apiextensionsv1.CustomResourceDefinition {
	props := map[string]apiextensionsv1.JSONSchemaProps{}
	for i := range fields {
		props[fmt.Sprintf("field%d", i)] = apiextensionsv1.JSONSchemaProps{
			Type: "string", Description: "A field of which there is something to say, as there is of most fields of real definitions, in a sentence or two.",
		}
	}
	kind := strings.ToUpper(plural[:1]) + strings.TrimSuffix(plural[1:], "s")
	out := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: apiextensionsv1.NamespaceScoped, Names: allNames{Plural: plural, Kind: kind},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": {Type: "object", Properties: props}},
				}},
			}},
		},
	}
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(out)
	return out
}

// world is a registry with custom resources.
type world struct {
	*registrytest.Registry
	testing.TB
}

func begin(t testing.TB) *world {
	r := registrytest.Start(t, nil, nil)
	registrytest.Run(t, New(Config{Registry: r.Registry, Log: slog.New(slog.DiscardHandler)}))
	return &world{r, t}
}

// define creates a definition and waits until it is served as it says.
func (w *world) define(crd *apiextensionsv1.CustomResourceDefinition) *api.Resource {
	w.Helper()
	made, err := w.Create(registrytest.Admin, crd)
	if err != nil {
		w.Fatal(err)
	}
	return w.served(crd, made.GetGeneration())
}

func (w *world) served(crd *apiextensionsv1.CustomResourceDefinition, generation int64) *api.Resource {
	w.Helper()
	gr := schema.GroupResource{Group: crd.Spec.Group, Resource: crd.Spec.Names.Plural}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if row := w.Table().ByResource(gr); row != nil && row.Custom.Generation == generation {
			return row
		}
	}
	w.Fatalf("%s is not served", crd.Name)
	return nil
}

// redefine changes a definition and waits until that shows.
func (w *world) redefine(name string, change func(*apiextensionsv1.CustomResourceDefinition)) *api.Resource {
	w.Helper()
	for {
		out, err := w.Get(ctx, w.Request(registrytest.Admin, apiextensionsv1.GroupName, "customresourcedefinitions", "", "", name), &metav1.GetOptions{})
		if err != nil {
			w.Fatal(err)
		}
		crd := out.Object.(*apiextensionsv1.CustomResourceDefinition).DeepCopy()
		change(crd)
		q := w.Request(registrytest.Admin, apiextensionsv1.GroupName, "customresourcedefinitions", "", "", name)
		out, err = w.Registry.Registry.Update(ctx, q, crd, &metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			w.Fatal(err)
		}
		return w.served(crd, out.Object.(*apiextensionsv1.CustomResourceDefinition).Generation)
	}
}

// in is the row of a version.
func in(row *api.Resource, version string) *api.Resource {
	out, _ := row.Serving(row.Group, version)
	return out
}

func (w *world) make(row *api.Resource, text string) *unstructured.Unstructured {
	w.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		w.Fatal(err)
	}
	out, err := w.Registry.Registry.Create(ctx, &registry.Request{Resource: row, Namespace: "default", User: registrytest.Admin}, u, &metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return out.Object.(*unstructured.Unstructured)
}

func (w *world) read(row *api.Resource, name string) (*unstructured.Unstructured, error) {
	out, err := w.Get(ctx, &registry.Request{Resource: row, Namespace: "default", Name: name, User: registrytest.Admin}, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return out.Object.(*unstructured.Unstructured), nil
}

func specOf(u *unstructured.Unstructured) string {
	raw, _ := json.Marshal(u.Object["spec"])
	return string(raw)
}

// TestStoredObjectsFollowTheSchema: what was stored under an older schema is shown by the present one, and nothing is written for that.
func TestStoredObjectsFollowTheSchema(t *testing.T) {
	w := begin(t)
	row := w.define(simple("boats", "example.com", 2))
	made := w.make(row, `{"apiVersion":"example.com/v1","kind":"Boat","metadata":{"name":"a"},"spec":{"field0":"x","field1":"y"}}`)
	row = w.redefine("boats.example.com", func(crd *apiextensionsv1.CustomResourceDefinition) {
		props := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties
		delete(props, "field1")
		props["field2"] = apiextensionsv1.JSONSchemaProps{Type: "string", Default: &apiextensionsv1.JSON{Raw: []byte(`"new"`)}}
	})
	got, err := w.read(row, "a")
	if err != nil {
		t.Fatal(err)
	}
	if s := specOf(got); s != `{"field0":"x","field2":"new"}` || got.GetResourceVersion() != made.GetResourceVersion() {
		t.Errorf("shown as %s at %s, written at %s", s, got.GetResourceVersion(), made.GetResourceVersion())
	}
}

// TestRatcheting: what was already wrong stands in nobody's way, as long as it isn't touched.
func TestRatcheting(t *testing.T) {
	w := begin(t)
	row := w.define(simple("boats", "example.com", 2))
	w.make(row, `{"apiVersion":"example.com/v1","kind":"Boat","metadata":{"name":"a"},"spec":{"field0":"long","field1":"x"}}`)
	row = w.redefine("boats.example.com", func(crd *apiextensionsv1.CustomResourceDefinition) {
		props := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties
		most := int64(2)
		props["field0"] = apiextensionsv1.JSONSchemaProps{Type: "string", MaxLength: &most}
	})
	update := func(field, to string) error {
		u, err := w.read(row, "a")
		if err != nil {
			t.Fatal(err)
		}
		u = u.DeepCopy()
		u.Object["spec"].(map[string]any)[field] = to
		_, err = w.Registry.Registry.Update(ctx, &registry.Request{Resource: row, Namespace: "default", Name: "a", User: registrytest.Admin}, u, &metav1.UpdateOptions{})
		return err
	}
	if err := update("field1", "y"); err != nil {
		t.Errorf("a change elsewhere: %v", err)
	}
	if err := update("field0", "longer"); !apierrors.IsInvalid(err) {
		t.Errorf("a change of what is wrong: %v", err)
	}
}

// TestDisk: keys and values are upstream's.
func TestDisk(t *testing.T) {
	w := begin(t)
	row := w.define(simple("boats", "example.com", 1))
	w.make(row, `{"apiVersion":"example.com/v1","kind":"Boat","metadata":{"name":"a"},"spec":{"field0":"x"}}`)
	c := w.Store().Opened(row)
	e, err := c.Get(ctx, "default/a", store.Read{})
	if err != nil || row.Key != "example.com/boats" {
		t.Fatal(row.Key, err)
	}
	body, err := e.Bytes(store.JSON)
	if err != nil || !strings.HasPrefix(string(body), `{"apiVersion":"example.com/v1","kind":"Boat","metadata":{"resourceVersion":"`) {
		t.Errorf("%s %v", body, err)
	}
}

// TestWebhookConversion also covers what is stored in a version that is no longer the stored one.
func TestWebhookConversion(t *testing.T) {
	asked := 0
	hook := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked++
		var in struct {
			Request struct {
				UID               string                      `json:"uid"`
				DesiredAPIVersion string                      `json:"desiredAPIVersion"`
				Objects           []unstructured.Unstructured `json:"objects"`
			} `json:"request"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		for _, o := range in.Request.Objects {
			s, _ := o.Object["spec"].(map[string]any)
			from, to := "name", "title"
			if strings.HasSuffix(in.Request.DesiredAPIVersion, "/v1") {
				from, to = to, from
			}
			s[to] = s[from]
			delete(s, from)
			o.SetAPIVersion(in.Request.DesiredAPIVersion)
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
			"response": map[string]any{"uid": in.Request.UID, "result": map[string]any{"status": "Success"}, "convertedObjects": in.Request.Objects},
		})
	}))
	defer hook.Close()
	crd := simple("boats", "example.com", 0)
	props := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties
	props["spec"] = apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"name": {Type: "string"}}}
	crd.Spec.Versions = append(crd.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{
		Name: "v2", Served: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
			Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
				"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"title": {Type: "string"}}},
			},
		}},
	})
	crd.Spec.Versions[0].SelectableFields = []apiextensionsv1.SelectableField{{JSONPath: ".spec.name"}}
	crd.Spec.Versions[1].SelectableFields = []apiextensionsv1.SelectableField{{JSONPath: ".spec.title"}}
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	url := hook.URL
	crd.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
		ClientConfig: &apiextensionsv1.WebhookClientConfig{URL: &url, CABundle: bundle}, ConversionReviewVersions: []string{"v1"},
	}}
	w := begin(t)
	row := w.define(crd)
	w.make(row, `{"apiVersion":"example.com/v1","kind":"Boat","metadata":{"name":"a"},"spec":{"name":"anna"}}`)
	w.make(in(row, "v2"), `{"apiVersion":"example.com/v2","kind":"Boat","metadata":{"name":"b"},"spec":{"title":"bella"}}`)
	for _, c := range []struct{ version, name, want string }{
		{"v1", "a", `{"name":"anna"}`}, {"v2", "a", `{"title":"anna"}`}, {"v1", "b", `{"name":"bella"}`}, {"v2", "b", `{"title":"bella"}`},
	} {
		got, err := w.read(in(row, c.version), c.name)
		if err != nil || specOf(got) != c.want || got.GetAPIVersion() != "example.com/"+c.version {
			t.Errorf("%s as %s: %v %v", c.name, c.version, got, err)
		}
	}
	t.Run("fields are selected as they are shown", func(t *testing.T) { w.selectsShown(t, row) })
	row = w.redefine("boats.example.com", func(crd *apiextensionsv1.CustomResourceDefinition) {
		crd.Spec.Versions[0].Storage, crd.Spec.Versions[1].Storage = false, true
	})
	before := asked
	page, err := w.Store().Opened(row).List(ctx, store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := (&registry.Request{Resource: row}).Show(ctx, page.Entries)
	if err != nil || len(shown) != 2 || specOf(shown[1].Object().(*unstructured.Unstructured)) != `{"title":"bella"}` {
		t.Errorf("shown in the new stored version: %v %v", shown, err)
	}
	if asked != before+1 {
		t.Errorf("a list asked the webhook %d times", asked-before)
	}
	hook.Close()
	if _, err := w.read(in(row, "v1"), "a"); err != nil {
		t.Errorf("what is stored as asked for needs no webhook: %v", err)
	}
}

// selectsShown: a field selector means the fields of the version asked for, in lists and in watches, though another is stored.
func (w *world) selectsShown(t *testing.T, row *api.Resource) {
	ask := func(version, name string) *registry.Request {
		return &registry.Request{Resource: in(row, version), Namespace: "default", Name: name, User: registrytest.Admin}
	}
	q, o := ask("v2", ""), &metainternalversion.ListOptions{FieldSelector: fields.ParseSelectorOrDie("spec.title=anna")}
	page, err := w.Registry.Registry.List(ctx, q, o)
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Key() != "default/a" {
		t.Fatalf("listed: %v, %+v", err, page)
	}
	o.ResourceVersion = "0"
	events, err := w.Registry.Registry.Watch(ctx, q, o)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	rename := func(boat, to string) {
		t.Helper()
		got, err := w.read(in(row, "v1"), boat)
		if err != nil {
			t.Fatal(err)
		}
		got = got.DeepCopy()
		got.Object["spec"] = map[string]any{"name": to}
		if _, err := w.Registry.Registry.Update(ctx, ask("v1", boat), got, &metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	rename("b", "berta") // in no selection, before and after
	rename("a", "alma")
	rename("b", "anna")
	rename("a", "anna")
	var seen []string
	for len(seen) < 4 {
		some, err := events.Next(ctx, nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		if some, err = q.SelectShown(ctx, o.FieldSelector, some); err != nil {
			t.Fatal(err)
		}
		for _, e := range some {
			seen = append(seen, fmt.Sprint(e.Type, " ", e.Entry.Key()))
		}
	}
	want := []string{fmt.Sprint(store.Added, " default/a"), fmt.Sprint(store.Deleted, " default/a"), fmt.Sprint(store.Added, " default/b"), fmt.Sprint(store.Added, " default/a")}
	if !slices.Equal(seen, want) {
		t.Errorf("watched %v, want %v", seen, want)
	}
	rename("a", "anna")
	rename("b", "bella")
}

// TestFinalizersHoldDefinitions: a definition waits for objects that are held.
func TestFinalizersHoldDefinitions(t *testing.T) {
	w := begin(t)
	crd := simple("boats", "example.com", 1)
	row := w.define(crd)
	w.make(row, `{"apiVersion":"example.com/v1","kind":"Boat","metadata":{"name":"a","finalizers":["example.com/hold"]}}`)
	if err := w.Delete(registrytest.Admin, crd); err != nil {
		t.Fatal(err)
	}
	wait := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	wait("the object's deletion", func() bool {
		got, err := w.read(row, "a")
		return err == nil && got.GetDeletionTimestamp() != nil
	})
	closing := w.Table().ByResource(row.GroupResource())
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Boat", "metadata": map[string]any{"name": "late"}}}
	q := &registry.Request{Resource: closing, Namespace: "default", User: registrytest.Admin}
	if _, err := w.Registry.Registry.Create(ctx, q, u, &metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a create while the definition goes: %v", err)
	}
	held, err := w.read(closing, "a")
	if err != nil {
		t.Fatal(err)
	}
	held.SetFinalizers(nil)
	q = &registry.Request{Resource: closing, Namespace: "default", Name: "a", User: registrytest.Admin}
	if _, err := w.Registry.Registry.Update(ctx, q, held, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait("the definition to go", func() bool { return w.Table().ByResource(row.GroupResource()) == nil })
	if w.Store().Opened(row) != nil {
		t.Error("its collection is still open")
	}
}

// BenchmarkDefinitions shows what a definition of a hundred fields costs in memory beside its bytes, which the store keeps: its row, while nobody
// uses it; and its compiled schema too, while somebody does.
func BenchmarkDefinitions(b *testing.B) {
	for _, used := range []bool{false, true} {
		b.Run(fmt.Sprintf("used=%v", used), func(b *testing.B) {
			cost := definitionCost(b)
			for b.Loop() {
				b.ReportMetric(cost(used), "KiB/definition")
			}
		})
	}
}

// Hundreds of definitions cost little while nobody uses their objects.
func TestDefinitionsCostLittle(t *testing.T) {
	if cost := definitionCost(t)(false); cost > 32 {
		t.Errorf("a definition that nobody uses costs %.0f KiB", cost)
	}
}

// definitionCost measures two hundred definitions: KiB each.
func definitionCost(tb testing.TB) func(used bool) float64 {
	const count, fields = 200, 100
	w := begin(tb)
	r := New(Config{Registry: w.Registry.Registry, Log: slog.New(slog.DiscardHandler)})
	definitions := make([]*apiextensionsv1.CustomResourceDefinition, count)
	for i := range definitions {
		definitions[i] = simple(fmt.Sprintf("boats%d", i), "example.com", fields)
		definitions[i].Status.AcceptedNames = definitions[i].Spec.Names
	}
	return func(used bool) float64 {
		rows := make([]*api.Resource, count)
		before := heap()
		for i, crd := range definitions {
			k, err := r.kindOf(crd, false)
			if err != nil {
				tb.Fatal(err)
			}
			k.source = func() (*apiextensionsv1.CustomResourceDefinition, error) { return crd.DeepCopy(), nil }
			if rows[i] = k.storage.row; used {
				if _, err := k.storage.schema.get(); err != nil {
					tb.Fatal(err)
				}
			}
		}
		cost := (float64(heap()) - float64(before)) / count / 1024
		runtime.KeepAlive(rows)
		return cost
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
