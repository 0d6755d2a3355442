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

func TestExpiredChunksGoOn(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"), configMap("b"), configMap("c"))
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
