package addon

import (
	"context"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/apiserver/crd"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// begin runs the controller over a real registry that serves custom resources.
func begin(t *testing.T, switches *addon.Switches, shipped ...addon.Shipped) client.Client {
	t.Helper()
	r := registrytest.Start(t, nil, nil)
	log := slog.New(slog.DiscardHandler)
	registrytest.Run(t, crd.New(crd.Config{Registry: r.Registry, Log: log}))
	c := client.Local(r.Registry, registrytest.Admin, log)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	go func() { _ = c.Run(ctx); ended <- struct{}{} }()
	go func() {
		loop := New(Config{Client: c, Kinds: r.Table(), Shipped: shipped, Version: "v1.37.2", Switch: switches.Set, Log: log})
		loop.Name = "addon-controller"
		if err := harness.Run(ctx, loop, c, harness.NewMetrics(nil), log, func() {}); err != nil {
			t.Errorf("the controller ended: %v", err)
		}
		ended <- struct{}{}
	}()
	t.Cleanup(func() { cancel(); <-ended; <-ended })
	clienttest.Eventually(t, "the kind Addon", func() bool { return c.List(ctx, addon.EmptyList()) == nil })
	return c
}

func read(t *testing.T, c client.Client, name string) *addon.Addon {
	t.Helper()
	u := addon.Empty()
	if err := c.Get(context.Background(), crclient.ObjectKey{Name: name}, u); err != nil {
		return &addon.Addon{}
	}
	a, err := addon.From(u)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func await(t *testing.T, c client.Client, name string, want addon.State, message string) *addon.Addon {
	t.Helper()
	var a *addon.Addon
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		a = read(t, c, name)
		if a.Status.State == want && strings.Contains(a.Status.Message, message) {
			return a
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %s (%s), want %s (%s)", name, a.Status.State, a.Status.Message, want, message)
		}
	}
}

// put makes an add-on of a bundle, as `skiff addon install` does, or gives one that is there another bundle.
func put(t *testing.T, c client.Client, name string, files fs.FS, spec addon.Spec) {
	t.Helper()
	packed, err := addon.Pack(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := addon.Install(context.Background(), c, name, packed, spec, addon.Place{}); err != nil {
		t.Fatal(err)
	}
}

func there(c client.Client, name string) bool {
	return c.Get(context.Background(), crclient.ObjectKey{Namespace: "kube-system", Name: name}, &corev1.ConfigMap{}) == nil
}

func words(names ...string) fstest.MapFS {
	out := fstest.MapFS{}
	for _, n := range names {
		out[n+".yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + n + "}\ndata: {a: b}\n")}
	}
	return out
}

// What is in a bundle is applied, what left it is removed, what somebody deleted comes back, and nothing stays when the add-on goes.
func TestLife(t *testing.T) {
	c, ctx := begin(t, addon.NewSwitches()), context.Background()
	put(t, c, "words", words("one", "two"), addon.Spec{})
	a := await(t, c, "words", addon.Ready, "")
	if len(a.Status.Applied) != 2 || !there(c, "one") || !there(c, "two") {
		t.Fatalf("applied %+v", a.Status.Applied)
	}
	put(t, c, "words", words("two", "three"), addon.Spec{})
	clienttest.Eventually(t, "the change", func() bool { return !there(c, "one") && there(c, "three") })
	if err := c.Delete(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "two"}}); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "what was deleted", func() bool { return there(c, "two") })

	if err := addon.Enable(ctx, c, "words", false); err != nil {
		t.Fatal(err)
	}
	await(t, c, "words", addon.Disabled, "")
	if there(c, "two") || there(c, "three") {
		t.Error("a disabled add-on's objects are still there")
	}
	if err := addon.Enable(ctx, c, "words", true); err != nil {
		t.Fatal(err)
	}
	await(t, c, "words", addon.Ready, "")
	if err := addon.Remove(ctx, c, "words"); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the end", func() bool {
		return apierrors.IsNotFound(c.Get(ctx, crclient.ObjectKey{Name: "words"}, addon.Empty())) && !there(c, "two") && !there(c, "three")
	})
	var secrets corev1.SecretList
	if err := c.List(ctx, &secrets, crclient.InNamespace(addon.SecretNamespace)); err != nil || len(secrets.Items) != 0 {
		t.Errorf("bundles left behind: %d, %v", len(secrets.Items), err)
	}
}

// A bundle brings a kind and an object of it at once.
func TestDefinitionsFirst(t *testing.T) {
	c := begin(t, addon.NewSwitches())
	put(t, c, "kinds", fstest.MapFS{
		"a-object.yaml": {Data: []byte("apiVersion: example.com/v1\nkind: Boat\nmetadata: {name: skiff}\nspec: {oars: 2}\n")},
		"b-kind.yaml": {Data: []byte(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Boat, plural: boats}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`)},
	}, addon.Spec{Namespace: "harbour"})
	await(t, c, "kinds", addon.Ready, "")
	boat := &unstructured.Unstructured{}
	boat.SetAPIVersion("example.com/v1")
	boat.SetKind("Boat")
	if err := c.Get(context.Background(), crclient.ObjectKey{Namespace: "harbour", Name: "skiff"}, boat); err != nil {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	c, ctx := begin(t, addon.NewSwitches()), context.Background()
	put(t, c, "first", words("mine"), addon.Spec{})
	await(t, c, "first", addon.Ready, "")
	put(t, c, "second", words("mine"), addon.Spec{})
	await(t, c, "second", addon.Failed, "is part of the add-on first already")

	put(t, c, "a", words("of-a"), addon.Spec{After: []string{"b"}})
	await(t, c, "a", addon.Waiting, `there is no add-on "b"`)
	put(t, c, "b", words("of-b"), addon.Spec{After: []string{"a"}})
	await(t, c, "b", addon.Failed, "wait for one another, so none will ever start: b after a after b")
	await(t, c, "a", addon.Failed, "a after b after a")
	put(t, c, "b", words("of-b"), addon.Spec{})
	await(t, c, "a", addon.Ready, "")

	put(t, c, "broken", fstest.MapFS{"a.yaml": {Data: []byte("kind: [")}}, addon.Spec{})
	await(t, c, "broken", addon.Failed, "a.yaml, document 1")
	put(t, c, "refused", fstest.MapFS{"a.yaml": {Data: []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n")}}, addon.Spec{})
	await(t, c, "refused", addon.Failed, "spec.containers: Required value")
	put(t, c, "unknown", fstest.MapFS{"a.yaml": {Data: []byte("apiVersion: nowhere/v1\nkind: Thing\nmetadata: {name: p}\n")}}, addon.Spec{})
	await(t, c, "unknown", addon.Progressing, "the cluster does not serve nowhere/v1 Thing")

	none := &addon.Addon{}
	none.Name, none.Spec.Source.Secret = "none", "missing"
	u, err := none.Unstructured()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(ctx, u); err != nil {
		t.Fatal(err)
	}
	await(t, c, "none", addon.Failed, `secrets "missing" not found`)

	chart := fstest.MapFS{
		"Chart.yaml":       {Data: []byte("apiVersion: v2\nname: c\nversion: 1.0.0\n")},
		"templates/a.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: chart}\ndata: {a: {{ .Values.port.number }}}\n")},
	}
	put(t, c, "chart", chart, addon.Spec{})
	await(t, c, "chart", addon.Failed, "port.number, or what it is part of, is not set")
	put(t, c, "chart", chart, addon.Spec{ValuesFrom: []addon.ValuesSource{{Namespace: "default", Name: "later"}}})
	await(t, c, "chart", addon.Failed, "spec.valuesFrom[0]: there is no ConfigMap default/later")
	values := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "later"}, Data: map[string]string{"values.txt": "port: {number: nine}\n"}}
	if err := c.Create(ctx, values); err != nil {
		t.Fatal(err)
	}
	await(t, c, "chart", addon.Failed, "spec.valuesFrom[0]: the ConfigMap default/later has no key values.yaml")
	for text, want := range map[string]string{"port: [": "values.yaml of the ConfigMap default/later: ", "port: 9\n": "port.number"} {
		values.Data = map[string]string{"values.yaml": text}
		if err := c.Update(ctx, values); err != nil {
			t.Fatal(err)
		}
		await(t, c, "chart", addon.Failed, want)
	}
	values.Data["values.yaml"] = "port: {number: nine}\n"
	if err := c.Update(ctx, values); err != nil {
		t.Fatal(err)
	}
	await(t, c, "chart", addon.Ready, "")
	put(t, c, "chart", chart, addon.Spec{Description: "again"}) // what its values come from stays
	if a := await(t, c, "chart", addon.Ready, ""); len(a.Spec.ValuesFrom) != 1 {
		t.Errorf("values come from %v", a.Spec.ValuesFrom)
	}
}

// Values come from ConfigMaps and from the add-on, and a change of either is a change of what is applied.
func TestValues(t *testing.T) {
	c, ctx := begin(t, addon.NewSwitches()), context.Background()
	values := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "values"}, Data: map[string]string{"values.yaml": "a: one\nb: one\n"}}
	if err := c.Create(ctx, values); err != nil {
		t.Fatal(err)
	}
	put(t, c, "chart", fstest.MapFS{
		"Chart.yaml":       {Data: []byte("apiVersion: v2\nname: c\nversion: 1.0.0\n")},
		"values.yaml":      {Data: []byte("a: zero\nb: zero\nc: zero\n")},
		"templates/a.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: out}\ndata: {a: {{ .Values.a }}, b: {{ .Values.b }}, c: {{ .Values.c }}}\n")},
	}, addon.Spec{Values: map[string]any{"b": "two"}, ValuesFrom: []addon.ValuesSource{{Namespace: "default", Name: "values"}}})
	got := func() string {
		var out corev1.ConfigMap
		_ = c.Get(ctx, crclient.ObjectKey{Namespace: "kube-system", Name: "out"}, &out)
		return out.Data["a"] + " " + out.Data["b"] + " " + out.Data["c"]
	}
	clienttest.Eventually(t, "the values", func() bool { return got() == "one two zero" })
	values.Data["values.yaml"] = "a: three\n"
	if err := c.Update(ctx, values); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the new values", func() bool { return got() == "three two zero" })
}

// Shipped add-ons are there from the start; parts are switched by theirs; what the user said stays.
func TestShipped(t *testing.T) {
	switches := addon.NewSwitches()
	c, ctx := begin(t, switches,
		addon.Shipped{Name: "dns", Description: "names"}, addon.Shipped{Name: "page", Absent: "off with --no-page"},
		addon.Shipped{Name: "extra", Files: words("extra"), Off: true}), context.Background()
	await(t, c, "dns", addon.Ready, "")
	await(t, c, "extra", addon.Disabled, "")
	await(t, c, "page", addon.Disabled, "off with --no-page")
	if err := addon.Enable(ctx, c, "dns", false); err != nil {
		t.Fatal(err)
	}
	await(t, c, "dns", addon.Disabled, "")
	if on, _ := switches.On("dns"); on {
		t.Error("the part was not switched off")
	}
	if err := addon.Enable(ctx, c, "extra", true); err != nil {
		t.Fatal(err)
	}
	await(t, c, "extra", addon.Ready, "")
	if !there(c, "extra") {
		t.Error("the shipped bundle was not applied")
	}
}
