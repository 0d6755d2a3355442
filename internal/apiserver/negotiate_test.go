package apiserver_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/api"
)

const protobuf = "application/vnd.kubernetes.protobuf"

func TestAccept(t *testing.T) {
	f := start(t)
	f.Must(configMap("c", "a", "b"))
	const one, many = "GET /api/v1/namespaces/default/configmaps/c", "GET /api/v1/namespaces/default/configmaps"
	const table, partial = ";as=Table;v=v1;g=meta.k8s.io", ";as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
	cases := []struct {
		request, accept string
		code            int
		media, kind     string
	}{
		{one, "", 200, "application/json", "ConfigMap"},
		{one, "*/*", 200, "application/json", "ConfigMap"},
		{one, "application/*", 200, "application/json", "ConfigMap"},
		{one, "application/json", 200, "application/json", "ConfigMap"},
		{one, "application/yaml", 200, "application/yaml", "ConfigMap"},
		{one, protobuf, 200, protobuf, ""},
		{one, "text/html,application/xhtml+xml,*/*;q=0.8", 200, "application/json", "ConfigMap"},
		{one, "application/json;q=0.1,application/yaml", 200, "application/yaml", "ConfigMap"},
		{one, "application/json" + table, 200, "application/json", "Table"},
		{many, "application/json" + table, 200, "application/json", "Table"},
		{many, "application/json;as=Table;v=v1beta1;g=meta.k8s.io", 200, "application/json", "Table"},
		{many, "application/json;as=Table;v=v9;g=meta.k8s.io,application/json", 200, "application/json", "ConfigMapList"},
		{one, "application/json" + partial, 200, "application/json", "PartialObjectMetadata"},
		{many, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", 200, "application/json", "PartialObjectMetadataList"},
		{many, "application/yaml;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", 200, "application/yaml", "PartialObjectMetadataList"},
		{many, protobuf + ";as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", 200, protobuf, ""},
		{one, "text/html", 406, "application/json", "Status"},
		{one, "application/json;as=Table;v=v9;g=meta.k8s.io", 406, "application/json", "Status"},
		{one, "application/json;as=Nothing;v=v1;g=meta.k8s.io", 406, "application/json", "Status"},
	}
	for _, c := range cases {
		headers := []string{}
		if c.accept != "" {
			headers = []string{"Accept", c.accept}
		}
		got := f.ask(c.request, "", headers...)
		if got.code != c.code || got.header.Get("Content-Type") != c.media {
			t.Errorf("%s: %d %s, want %d %s", c.accept, got.code, got.header.Get("Content-Type"), c.code, c.media)
			continue
		}
		var o struct{ Kind, Message string }
		if c.media == protobuf {
			if !strings.HasPrefix(string(got.body), "k8s\x00") {
				t.Errorf("%s: %q", c.accept, got.body)
			}
			continue
		}
		if err := yaml.Unmarshal(got.body, &o); err != nil || o.Kind != c.kind {
			t.Errorf("%s: %s, want %s; %v", c.accept, o.Kind, c.kind, err)
		}
		if c.code == 406 && !strings.HasPrefix(o.Message, "only the following media types are accepted: application/json, application/yaml, "+protobuf) {
			t.Errorf("%s: %s", c.accept, o.Message)
		}
	}
	if pretty, plain := f.ask(one+"?pretty=true", "").body, f.ask(one, "").body; !strings.Contains(string(pretty), "\n  \"kind\"") || strings.Contains(string(plain), "\n  ") {
		t.Errorf("pretty: %s\nplain: %s", pretty, plain)
	}
}

func TestObjectsAreEqualInEveryEncoding(t *testing.T) {
	f := start(t)
	labels := map[string]string{"app": "x"}
	objects := map[string]runtime.Object{
		"/api/v1/namespaces/default/pods": &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "o", Labels: labels, Annotations: map[string]string{"text": "<&>\u2028 äöü 日本"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web", Command: []string{"a\nb", ""}}}}},
		"/apis/apps/v1/namespaces/default/deployments": &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "o"}, Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web"}}}}}},
		"/api/v1/namespaces/default/secrets": &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "o"}, Data: map[string][]byte{"k": {0, 1, 255}, "empty": {}}},
		"/apis/events.k8s.io/v1/namespaces/default/events": &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Name: "o"}, EventTime: metav1.NowMicro(), Reason: "R", Action: "A", Type: "Normal",
			ReportingController: "c", ReportingInstance: "i", Regarding: corev1.ObjectReference{Namespace: "default", Name: "p"}},
	}
	codecs := map[string]runtime.Serializer{}
	for _, info := range api.Codecs().SupportedMediaTypes() {
		codecs[info.MediaType] = info.Serializer
	}
	media := []string{"application/json", "application/yaml", protobuf}
	for path, obj := range objects {
		kinds, _, err := api.Scheme().ObjectKinds(obj)
		if err != nil {
			t.Fatal(err)
		}
		obj.GetObjectKind().SetGroupVersionKind(kinds[0])
		var first runtime.Object
		for _, in := range media {
			for _, out := range media {
				raw, err := runtime.Encode(codecs[in], obj)
				if err != nil {
					t.Fatal(err)
				}
				created := f.ask("POST "+path, string(raw), "Content-Type", in, "Accept", out).ok(201)
				read := f.ask("GET "+path+"/o", "", "Accept", out).ok(200)
				a, _, err := codecs[out].Decode(created.body, nil, nil)
				b, _, err2 := codecs[out].Decode(read.body, nil, nil)
				if err != nil || err2 != nil || !apiequality.Semantic.DeepEqual(a, b) {
					t.Errorf("%s in %s: created and read differ: %v %v\n%s\n%s", path, out, err, err2, created.body, read.body)
				}
				f.ask("DELETE "+path+"/o", `{"gracePeriodSeconds":0}`).ok(200)
				m := b.(metav1.Object)
				m.SetUID("")
				m.SetResourceVersion("")
				m.SetCreationTimestamp(metav1.Time{})
				m.SetManagedFields(nil)
				if first == nil {
					first = b
				} else if !apiequality.Semantic.DeepEqual(first, b) {
					t.Errorf("%s sent as %s and read as %s differs:\n%+v\n%+v", path, in, out, b, first)
				}
			}
		}
	}
}

// What JSON's strings may hold and YAML's must not, or takes for the end of a line, is read in YAML all the same.
func TestEveryCharacterIsReadInYAML(t *testing.T) {
	f := start(t)
	const odd = "\x7f\u0080\u0085\u0097\u2028\u2029\ufeff\ufffe\uffff\U0001f6f6 \u0085 \t\r\n\\u0041\x00\x1b"
	if _, err := f.clientset().CoreV1().ConfigMaps("default").Create(ctx, configMap("a", "k", odd), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{maps + "/a", maps} {
		got := f.ask("GET "+path, "", "Accept", "application/yaml").ok(200)
		list := corev1.ConfigMapList{Items: make([]corev1.ConfigMap, 1)}
		into := any(&list)
		if path != maps {
			into = &list.Items[0]
		}
		if err := yaml.UnmarshalStrict(got.body, into); err != nil || len(list.Items) != 1 || list.Items[0].Data["k"] != odd {
			t.Errorf("%s: %v\n%s", path, err, got.body)
		}
	}
	refused := f.ask("GET "+maps+"/%C2%97", "", "Accept", "application/yaml").ok(404)
	var st metav1.Status
	if err := yaml.UnmarshalStrict(refused.body, &st); err != nil || st.Details == nil || st.Details.Name != "\u0097" {
		t.Errorf("%v\n%s", err, refused.body)
	}
}

func TestTables(t *testing.T) {
	f := start(t)
	f.Must(configMap("a", "k", "v"), configMap("b"))
	const accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
	for _, c := range []struct{ include, row string }{
		{"", `"kind":"PartialObjectMetadata"`}, {"Metadata", `"kind":"PartialObjectMetadata"`}, {"Object", `"kind":"ConfigMap"`}, {"None", ""},
	} {
		var table metav1.Table
		f.ask("GET /api/v1/namespaces/default/configmaps?includeObject="+c.include, "", "Accept", accept).ok(200).into(&table)
		var columns []string
		for _, d := range table.ColumnDefinitions {
			columns = append(columns, d.Name)
		}
		if !slices.Equal(columns, []string{"Name", "Data", "Age"}) || len(table.Rows) != 2 || table.ResourceVersion == "" || table.APIVersion != "meta.k8s.io/v1" {
			t.Fatalf("%v, %+v", columns, table)
		}
		if cells := table.Rows[0].Cells; cells[0] != "a" || cells[1] != int64(1) && cells[1] != float64(1) {
			t.Errorf("%v", cells)
		}
		if raw := string(table.Rows[0].Object.Raw); c.row == "" && raw != "" && raw != "null" || c.row != "" && !strings.Contains(raw, c.row) {
			t.Errorf("includeObject=%s: %s", c.include, raw)
		}
	}
	f.ask("GET /api/v1/namespaces/default/configmaps?includeObject=Some", "", "Accept", accept).ok(400)
	var empty metav1.Table
	f.ask("GET /api/v1/namespaces/kube-public/configmaps", "", "Accept", accept).ok(200).into(&empty)
	if len(empty.ColumnDefinitions) != 3 || empty.Rows == nil {
		t.Errorf("an empty table: %+v", empty)
	}
}

func TestMetadataClient(t *testing.T) {
	f := start(t)
	f.Must(configMap("a", "k", "v"), configMap("b"))
	c, err := metadata.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	maps := c.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace("default")
	one, err := maps.Get(ctx, "a", metav1.GetOptions{})
	if err != nil || one.Name != "a" || one.UID == "" {
		t.Errorf("%+v, %v", one, err)
	}
	list, err := maps.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil || len(list.Items) != 1 || list.Continue == "" || list.Items[0].Name != "a" {
		t.Errorf("%+v, %v", list, err)
	}
	if one, err = maps.Patch(ctx, "a", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil || one.Labels["a"] != "b" {
		t.Errorf("%+v, %v", one, err)
	}
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

func TestDynamicClient(t *testing.T) {
	f := start(t)
	c, err := dynamic.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	maps := c.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace("default")
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"k": "v"},
	}}
	created, err := maps.Create(ctx, obj, metav1.CreateOptions{})
	if err != nil || created.GetUID() == "" {
		t.Fatalf("%v, %v", created, err)
	}
	w, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: created.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := unstructured.SetNestedField(created.Object, "w", "data", "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Update(ctx, created, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
	if e := <-w.ResultChan(); e.Type != "MODIFIED" || e.Object.(*unstructured.Unstructured).GetName() != "a" {
		t.Errorf("%+v", e)
	}
	list, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.GetKind() != "ConfigMapList" || list.Items[0].GetKind() != "ConfigMap" {
		t.Errorf("%v, %v", list, err)
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}

// A typed client that speaks protobuf both ways sees what one that speaks JSON sees.
func TestTypedClients(t *testing.T) {
	f := start(t)
	cfg := f.config()
	cfg.ContentType, cfg.AcceptContentTypes = protobuf, protobuf
	binary, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text := f.clientset()
	if _, err := binary.CoreV1().ConfigMaps("default").Create(ctx, configMap("a", "k", "v"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	a, err := binary.CoreV1().ConfigMaps("default").Get(ctx, "a", metav1.GetOptions{})
	b, err2 := text.CoreV1().ConfigMaps("default").Get(ctx, "a", metav1.GetOptions{})
	if err != nil || err2 != nil || !apiequality.Semantic.DeepEqual(a, b) {
		t.Errorf("%v %v\n%+v\n%+v", err, err2, a, b)
	}
	_, err = binary.CoreV1().ConfigMaps("default").Get(ctx, "nobody", metav1.GetOptions{})
	if err == nil || err.Error() != `configmaps "nobody" not found` {
		t.Errorf("an error in protobuf: %v", err)
	}
	if err := binary.CoreV1().ConfigMaps("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if raw, err := json.Marshal(a); err != nil || len(raw) == 0 {
		t.Error(err)
	}
}
