package apiserver_test

import (
	"encoding/base64"
	"fmt"
	"math/rand"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
	"skiff.dev/skiff/internal/store"
)

func TestChunks(t *testing.T) {
	f := start(t)
	for i := range 10 {
		f.Must(configMap(fmt.Sprint("c", i)))
	}
	maps := f.clientset().CoreV1().ConfigMaps("default")
	var got []string
	var rv string
	o := metav1.ListOptions{Limit: 4}
	for page := 0; ; page++ {
		list, err := maps.List(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.Items {
			got = append(got, c.Name)
		}
		if page == 0 {
			rv = list.ResourceVersion
			if *list.RemainingItemCount != 6 {
				t.Errorf("%d remain", *list.RemainingItemCount)
			}
			// What changes between the pages is not seen.
			if err := maps.Delete(ctx, "c7", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			f.Must(configMap("c55"))
		} else if list.ResourceVersion != rv {
			t.Errorf("page %d is of %s, the first was of %s", page, list.ResourceVersion, rv)
		}
		if list.Continue == "" {
			break
		}
		o.Continue = list.Continue
	}
	if want := "c0 c1 c2 c3 c4 c5 c6 c7 c8 c9"; strings.Join(got, " ") != want {
		t.Errorf("the pages have %v", got)
	}
	if list, err := maps.List(ctx, metav1.ListOptions{Limit: 3, LabelSelector: "a!=b"}); err != nil || list.RemainingItemCount != nil || list.Continue == "" {
		t.Errorf("a page of a selection knows what remains: %v, %v", list, err)
	}
}

// forget writes more ConfigMaps than their log of events keeps.
func (f *fixture) forget() {
	f.Helper()
	for i := range 5 {
		c := configMap("big", "k", fmt.Sprint(i)+strings.Repeat("x", 1<<20-100))
		if c.Namespace = metav1.NamespaceSystem; i == 0 {
			f.Must(c)
		} else if err := f.Update(registrytest.Admin, c, ""); err != nil {
			f.Fatal(err)
		}
	}
}

func TestExpiredChunksGoOn(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"), configMap("b"), configMap("c"))
	f.forget()
	maps := f.clientset().CoreV1().ConfigMaps("default")
	old := base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":1,"start":"default/a\u0000"}`))
	_, err := maps.List(ctx, metav1.ListOptions{Continue: old, Limit: 1})
	if !apierrors.IsResourceExpired(err) {
		t.Fatalf("%v", err)
	}
	st := err.(*apierrors.StatusError).ErrStatus
	if st.Code != 410 || !strings.HasPrefix(st.Message, "The provided continue parameter is too old to display a consistent list result.") || st.Continue == "" {
		t.Fatalf("%+v", st)
	}
	list, err := maps.List(ctx, metav1.ListOptions{Continue: st.Continue})
	if err != nil || len(list.Items) != 2 || list.Items[0].Name != "b" {
		t.Errorf("%v, %v", list, err)
	}
}

func TestListParameters(t *testing.T) {
	f := start(t)
	labelled := configMap("a")
	labelled.Labels = map[string]string{"app": "x"}
	f.Must(labelled, configMap("b"), registrytest.Pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "n" }))
	cases := []struct {
		path, query string
		code        int
		want        string // names, or a part of the message
	}{
		{"namespaces/default/configmaps", "", 200, "a b"},
		{"configmaps", "", 200, "a b"},
		{"namespaces/default/configmaps", "labelSelector=app=x", 200, "a"},
		{"namespaces/default/configmaps", "labelSelector=app in (x,y)", 200, "a"},
		{"namespaces/default/configmaps", "labelSelector=!app", 200, "b"},
		{"namespaces/default/configmaps", "fieldSelector=metadata.name=b", 200, "b"},
		{"pods", "fieldSelector=spec.nodeName=n,status.phase!=Running", 200, "p"},
		{"pods", "fieldSelector=spec.nodeName!=n", 200, ""},
		{"namespaces/default/configmaps", "resourceVersion=0", 200, "a b"},
		{"namespaces/default/configmaps", "limit=1&resourceVersionMatch=", 200, "a"},
		{"namespaces/default/configmaps", "unknown=parameter", 200, "a b"},
		{"namespaces/default/configmaps", "labelSelector=a,,b", 400, "found ',', expected: identifier"},
		{"namespaces/default/configmaps", "labelSelector==", 400, ""},
		{"namespaces/default/configmaps", "fieldSelector=a", 400, "invalid selector"},
		{"namespaces/default/configmaps", "fieldSelector=data.k=v", 400, `"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{"pods", "fieldSelector=spec.hostname=h", 400, "field label not supported: spec.hostname"},
		{"namespaces/default/configmaps", "limit=many", 400, ""},
		{"namespaces/default/configmaps", "resourceVersion=soon", 400, "resourceVersion"},
		{"namespaces/default/configmaps", "continue=xyz", 400, "continue"},
		{"namespaces/default/configmaps", "sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"},
		{"namespaces/default/configmaps", "resourceVersionMatch=Exact", 422, "resourceVersionMatch is forbidden unless resourceVersion is provided"},
	}
	for _, c := range cases {
		parts := strings.Split(c.query, "&")
		for i, p := range parts {
			k, v, _ := strings.Cut(p, "=")
			parts[i] = k + "=" + url.QueryEscape(v)
		}
		got := f.ask("GET /api/v1/"+c.path+"?"+strings.Join(parts, "&"), "")
		if got.code != c.code {
			t.Errorf("%s: %d %.200s", c.query, got.code, got.body)
			continue
		}
		if c.code != 200 {
			if st := got.status(); !strings.Contains(st.Message, c.want) {
				t.Errorf("%s: %s", c.query, st.Message)
			}
			continue
		}
		var list metav1.PartialObjectMetadataList
		got.into(&list)
		var names []string
		for _, o := range list.Items {
			names = append(names, o.Name)
		}
		if slices.Sort(names); strings.Join(names, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.query, names, c.want)
		}
	}
}

// What resourceVersion, resourceVersionMatch, limit and continue mean together is upstream's table ("Semantics for get and list" of the API concepts).
func TestResourceVersionsOfLists(t *testing.T) {
	f := start(t)
	maps := f.clientset().CoreV1().ConfigMaps("default")
	create := func(name string) string {
		t.Helper()
		m, err := maps.Create(ctx, configMap(name), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return m.ResourceVersion
	}
	f.forget()
	create("a")
	old := create("b")
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	create("c")
	const then, now = "a b", "b c"
	page, err := maps.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	const unset, exact, notOlder = metav1.ResourceVersionMatch(""), metav1.ResourceVersionMatchExact, metav1.ResourceVersionMatchNotOlderThan
	for _, c := range []struct {
		match   metav1.ResourceVersionMatch
		version string
		limit   int64
		more    string // the continue token
		code    int32
		want    string // names, with " …" if there are more; or a part of the message
	}{
		{unset, "", 0, "", 200, now},
		{unset, "0", 0, "", 200, now},
		{unset, old, 0, "", 200, now}, // not older than
		{unset, "", 1, "", 200, "b …"},
		{unset, "0", 1, "", 200, "b …"},
		{unset, old, 1, "", 200, "a …"}, // exact
		{unset, old, 5, "", 200, then},
		{unset, "", 1, page.Continue, 200, "c"},
		{unset, "0", 1, page.Continue, 200, "c"},
		{unset, "", 0, page.Continue, 200, "c"},
		{unset, old, 1, page.Continue, 400, "specifying resource version is not allowed when using continue"},
		{exact, "", 0, "", 422, "resourceVersionMatch is forbidden unless resourceVersion is provided"},
		{exact, "0", 0, "", 422, "resourceVersionMatch"},
		{exact, old, 0, "", 200, then},
		{exact, "", 1, "", 422, "resourceVersionMatch"},
		{exact, "0", 1, "", 422, "resourceVersionMatch"},
		{exact, old, 1, "", 200, "a …"},
		{exact, old, 1, page.Continue, 422, "resourceVersionMatch is forbidden when continue is provided"},
		{exact, page.ResourceVersion, 0, "", 200, now},
		{exact, "1", 0, "", 410, "The resourceVersion for the provided list is too old"},
		{exact, "1", 1, "", 410, "The resourceVersion for the provided list is too old"},
		{notOlder, "", 0, "", 422, "resourceVersionMatch is forbidden unless resourceVersion is provided"},
		{notOlder, "0", 0, "", 200, now},
		{notOlder, old, 0, "", 200, now},
		{notOlder, "1", 0, "", 200, now},
		{notOlder, "", 1, "", 422, "resourceVersionMatch"},
		{notOlder, "0", 1, "", 200, "b …"},
		{notOlder, old, 1, "", 200, "b …"},
		{notOlder, old, 1, page.Continue, 422, "resourceVersionMatch is forbidden when continue is provided"},
		{"Newest", old, 0, "", 422, "supported values"},
		{unset, "soon", 0, "", 400, "resourceVersion"},
		{unset, "-1", 0, "", 400, "resourceVersion"},
	} {
		list, err := maps.List(ctx, metav1.ListOptions{ResourceVersionMatch: c.match, ResourceVersion: c.version, Limit: c.limit, Continue: c.more})
		what := fmt.Sprintf("match %q, resourceVersion %q, limit %d, continue %v", c.match, c.version, c.limit, c.more != "")
		if c.code != 200 {
			if st, ok := err.(*apierrors.StatusError); !ok || st.ErrStatus.Code != c.code || !strings.Contains(st.ErrStatus.Message, c.want) {
				t.Errorf("%s: %v, want %d %s", what, err, c.code, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		var names []string
		for i := range list.Items {
			names = append(names, list.Items[i].Name)
		}
		if list.Continue != "" {
			names = append(names, "…")
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
		if strings.HasPrefix(c.want, "a") != (list.ResourceVersion == old) {
			t.Errorf("%s: the list says it is of %s; the old one is %s", what, list.ResourceVersion, old)
		}
	}
	for version, want := range map[string]func(error) bool{"": apierrors.IsNotFound, "0": apierrors.IsNotFound, old: apierrors.IsNotFound, "soon": apierrors.IsBadRequest} {
		if _, err := maps.Get(ctx, "a", metav1.GetOptions{ResourceVersion: version}); !want(err) {
			t.Errorf("get at %q: %v", version, err)
		}
	}
	// Clients that are told when to come again do so for a while; so this one asks by itself.
	for _, query := range []string{"?", "?resourceVersionMatch=Exact&", "/b?"} {
		got := f.ask("GET "+configMaps+query+"resourceVersion=999999999", "").ok(504)
		if st := got.status(); !strings.Contains(st.Message, "Too large resource version") || len(st.Details.Causes) != 1 || st.Details.Causes[0].Type != metav1.CauseTypeResourceVersionTooLarge || got.header.Get("Retry-After") != "1" {
			t.Errorf("%+v, %v", st.Details, got.header)
		}
	}
}

// How many remain is told where it is known without looking at what remains: where nothing is selected.
func TestRemainingItems(t *testing.T) {
	f := start(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		m := configMap(name)
		m.Labels = map[string]string{"x": "y"}
		f.Must(m)
	}
	f.Must(registrytest.Pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "n" }), registrytest.Pod("q", func(p *corev1.Pod) { p.Spec.NodeName = "n" }))
	for _, c := range []struct {
		query     string
		remaining string
		more      bool
	}{
		{maps + "?limit=1", "3", true},
		{maps + "?limit=3", "1", true},
		{"/api/v1/configmaps?limit=1", "3", true},
		{maps + "?limit=4", "", false},
		{maps, "", false},
		{maps + "?limit=1&labelSelector=x%3Dy", "", true},
		{maps + "?limit=1&labelSelector=", "3", true},
		{maps + "?limit=1&fieldSelector=metadata.name!%3Da", "", true},
		{maps + "?limit=1&fieldSelector=metadata.namespace%3Ddefault", "", true},
		{maps + "?limit=1&fieldSelector=metadata.name%3Da", "", false},
		{"/api/v1/pods?limit=1&fieldSelector=spec.nodeName%3Dn", "", true},
		{"/api/v1/pods?limit=1", "1", true},
	} {
		var list metav1.PartialObjectMetadataList
		f.ask("GET "+c.query, "").ok(200).into(&list)
		got := ""
		if list.RemainingItemCount != nil {
			got = fmt.Sprint(*list.RemainingItemCount)
		}
		if got != c.remaining || c.more != (list.Continue != "") {
			t.Errorf("%s: %q remain, and there is more: %v", c.query, got, list.Continue != "")
		}
	}
}

func itemsOf(t *testing.T, list runtime.Object) (out []api.Object) {
	t.Helper()
	err := meta.EachListItem(list, func(o runtime.Object) error {
		out = append(out, o.(api.Object))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A list of a built-in kind names the kind once, as upstream's; custom resources say theirs each time, and so does what is read alone or watched.
func TestItemsOfListsHaveNoKind(t *testing.T) {
	f := seaOf(t)
	f.define(boats)
	if _, err := f.boats.Create(ctx, boatOf("nina", "{kind: skiff}"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		f.ask("POST /api/v1/namespaces/default/configmaps", fmt.Sprintf(`{"metadata":{"name":%q}}`, name)).ok(201)
		f.ask("POST /apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", fmt.Sprintf(`{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler",
			"metadata":{"name":%q},"spec":{"maxReplicas":3,"scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"}}}`, name)).ok(201)
	}
	const hpas = "/namespaces/default/horizontalpodautoscalers"
	for _, c := range []struct{ path, apiVersion, kind string }{
		{"/api/v1/namespaces/default/configmaps", "", ""},
		{"/api/v1/namespaces/default/configmaps?pretty=true", "", ""},
		{"/apis/autoscaling/v2" + hpas, "", ""},
		{"/apis/autoscaling/v1" + hpas, "", ""},
		{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "", ""},
		{boatsPath, "sea.example.com/v1", "Boat"},
		{"/api/v1/namespaces/default/configmaps/a", "v1", "ConfigMap"},
	} {
		var got struct {
			metav1.TypeMeta
			Items []metav1.PartialObjectMetadata
		}
		f.ask("GET "+c.path, "").ok(200).into(&got)
		if strings.HasSuffix(c.path, "/a") {
			got.Items = []metav1.PartialObjectMetadata{{TypeMeta: got.TypeMeta}}
			got.Items[0].Name = "a"
		}
		if len(got.Items) == 0 {
			t.Errorf("%s: no items", c.path)
		}
		for _, item := range got.Items {
			if item.APIVersion != c.apiVersion || item.Kind != c.kind || item.Name == "" {
				t.Errorf("%s: %+v", c.path, item)
			}
		}
	}
}

// Lists are spliced from encodings that items share; whoever decodes them sees what encoding the whole list would give.
func TestSplicedListsAreWhole(t *testing.T) {
	f := start(t)
	for _, gr := range []schema.GroupResource{{Resource: "pods"}, {Resource: "secrets"}, {Group: "apps", Resource: "deployments"}, {Group: "discovery.k8s.io", Resource: "endpointslices"}, {Resource: "events"}} {
		row := f.Table().ByResource(gr)
		for i := range int64(20) {
			obj := row.New()
			fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(i), api.Codecs()).NilChance(0.4).NumElements(1, 2).Fill(obj)
			obj.SetNamespace("spliced")
			obj.SetName(fmt.Sprint("o", i))
			obj.SetResourceVersion("")
			obj.SetSelfLink("")
			obj.GetObjectKind().SetGroupVersionKind(row.GVK())
			if _, err := f.Store().Collection(row).Create(ctx, fmt.Sprint("spliced/o", i), obj); err != nil {
				t.Fatalf("%s %d: %v", gr, i, err)
			}
		}
		path := "GET /api/v1/namespaces/spliced/" + row.Plural
		if row.Group != "" {
			path = "GET /apis/" + row.Group + "/" + row.Version + "/namespaces/spliced/" + row.Plural
		}
		text := f.ask(path, "").ok(200)
		binary := f.ask(path, "", "Accept", protobuf).ok(200)
		fromText, _, err := api.Codecs().UniversalDeserializer().Decode(text.body, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", gr, err)
		}
		fromBinary, kind, err := api.Codecs().UniversalDeserializer().Decode(binary.body, nil, nil)
		if err != nil || *kind != row.GVK().GroupVersion().WithKind(row.Kind+"List") {
			t.Fatalf("%s: %v, %v", gr, kind, err)
		}
		items := 0
		for what, list := range map[string]runtime.Object{"text": fromText, "binary": fromBinary} {
			objs := itemsOf(t, list)
			items = len(objs)
			for i, o := range objs {
				stored, err := f.Store().Collection(row).Get(ctx, "spliced/"+o.GetName(), store.Read{})
				if err != nil {
					t.Fatal(err)
				}
				whole := stored.Object().DeepCopyObject().(api.Object)
				whole.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
				o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
				if !apiequality.Semantic.DeepEqual(whole, o) {
					t.Errorf("%s: item %d of the %s list is\n%+v\nwhere the store has\n%+v", gr, i, what, o, whole)
				}
			}
		}
		if items != 20 {
			t.Errorf("%s: %d items", gr, items)
		}
	}
}

// Every field that upstream selects by can be selected by, and no other.
func TestFieldSelectors(t *testing.T) {
	f := start(t)
	for resource, fields := range map[string]string{
		"api/v1/pods":                   "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.nominatedNodeName",
		"api/v1/nodes":                  "spec.unschedulable",
		"api/v1/namespaces":             "status.phase",
		"api/v1/secrets":                "type",
		"api/v1/services":               "spec.clusterIP spec.type",
		"api/v1/configmaps":             "",
		"api/v1/replicationcontrollers": "status.replicas",
		"api/v1/events": "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion " +
			"involvedObject.fieldPath reason reportingComponent source type",
		"apis/events.k8s.io/v1/events": "regarding.kind regarding.namespace regarding.name regarding.uid regarding.apiVersion regarding.resourceVersion regarding.fieldPath " +
			"reason reportingController type",
		"apis/apps/v1/replicasets":                               "status.replicas",
		"apis/batch/v1/jobs":                                     "status.successful",
		"apis/certificates.k8s.io/v1/certificatesigningrequests": "spec.signerName",
		"apis/certificates.k8s.io/v1/clustertrustbundles":        "spec.signerName",
		"apis/certificates.k8s.io/v1/podcertificaterequests":     "spec.signerName spec.podName spec.nodeName",
		"apis/resource.k8s.io/v1/resourceslices":                 "spec.nodeName spec.driver",
		"apis/apps/v1/deployments":                               "",
	} {
		for _, field := range append(strings.Fields(fields), "metadata.name") {
			f.ask("GET /"+resource+"?fieldSelector="+field+"%3Dx", "").ok(200)
			f.ask("GET /"+resource+"?fieldSelector="+field+"!%3Dx", "").ok(200)
		}
		for _, field := range []string{"spec", "spec.madeUp", "status.conditions"} {
			want := "field label not supported: " + field
			if fields == "" {
				want = "is not a known field selector"
			}
			f.ask("GET /"+resource+"?fieldSelector="+field+"%3Dx", "").mustSay(400, want)
		}
	}
}
