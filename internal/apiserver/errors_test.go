package apiserver_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	protobufcodec "k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"skiff.dev/skiff/internal/api"
)

const maps = "/api/v1/namespaces/default/configmaps"

func TestErrors(t *testing.T) {
	f := start(t)
	f.Must(configMap("there"))
	cm := func(name, more string) string {
		return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `"}` + more + `}`
	}
	cases := []struct {
		name, request, body string
		headers             []string
		code                int
		reason              metav1.StatusReason
		message             string
	}{
		{"no such object", "GET " + maps + "/nobody", "", nil, 404, "NotFound", `configmaps "nobody" not found`},
		{"no such resource", "GET /api/v1/namespaces/default/nothings", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"no such group", "GET /apis/nothing/v1/things", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"no such version", "GET /apis/apps/v9/deployments", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"no such subresource", "GET " + maps + "/there/nothing", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"no such path", "GET /nothing", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"cluster kind in a namespace", "GET /api/v1/namespaces/default/nodes", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"post to a name", "POST " + maps + "/there", cm("there", ""), nil, 405, "MethodNotAllowed", "the server does not allow"},
		{"put to a collection", "PUT " + maps, cm("there", ""), nil, 405, "MethodNotAllowed", "the server does not allow"},
		{"create in all namespaces", "POST /api/v1/configmaps", cm("a", ""), nil, 405, "MethodNotAllowed", "the server does not allow"},
		{"delete in all namespaces", "DELETE /api/v1/configmaps", "", nil, 405, "MethodNotAllowed", "the server does not allow"},
		{"list what is only created", "GET /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "", nil, 405, "MethodNotAllowed", "the server does not allow"},
		{"delete all namespaces", "DELETE /api/v1/namespaces", "", nil, 405, "MethodNotAllowed", "the server does not allow"},
		{"there already", "POST " + maps, cm("there", ""), nil, 409, "AlreadyExists", `configmaps "there" already exists`},
		{"stale", "PUT " + maps + "/there", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"there","resourceVersion":"1"}}`, nil, 409, "Conflict",
			`Operation cannot be fulfilled on configmaps "there": the object has been modified; please apply your changes to the latest version and try again`},
		{"another name", "PUT " + maps + "/there", cm("other", ""), nil, 400, "BadRequest", "the name of the object (other) does not match the name on the URL (there)"},
		{"another namespace", "POST /api/v1/namespaces/kube-public/configmaps", `{"metadata":{"name":"a","namespace":"default"}}`, nil, 400, "BadRequest",
			"the namespace of the provided object does not match the namespace sent on the request"},
		{"invalid", "POST " + maps, cm("A_b", ""), nil, 422, "Invalid", `ConfigMap "A_b" is invalid: metadata.name: Invalid value: "A_b"`},
		{"no body", "POST " + maps, "", nil, 400, "BadRequest", "the body is empty"},
		{"half a body", "POST " + maps, cm("a", "")[:20], nil, 400, "BadRequest", "unexpected"},
		{"a list for a body", "POST " + maps, "[1]", nil, 400, "BadRequest", "cannot be handled as a ConfigMap"},
		{"a wrong type", "POST " + maps, cm("a", `,"data":{"k":7}`), nil, 400, "BadRequest",
			`ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string`},
		{"another kind", "POST " + maps, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}`, nil, 400, "BadRequest", "Pod in version \"v1\" cannot be handled as a ConfigMap"},
		{"another version", "POST " + maps, `{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"a"}}`, nil, 400, "BadRequest",
			"the API version in the data (v2) does not match the expected API version (v1)"},
		{"an unknown encoding", "POST " + maps, "a=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "UnsupportedMediaType",
			"the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"an unknown patch", "PATCH " + maps + "/there", "{}", []string{"Content-Type", "application/json"}, 415, "UnsupportedMediaType", "accepted media types include: application/json-patch+json"},
		{"a dry run of sorts", "POST " + maps + "?dryRun=Some", cm("a", ""), nil, 422, "Invalid", `dryRun: Unsupported value: ["Some"]: supported values: "All"`},
		{"a validation of sorts", "POST " + maps + "?fieldValidation=Some", cm("a", ""), nil, 422, "Invalid", `fieldValidation: Unsupported value: "Some"`},
		{"a grace of sorts", "DELETE " + maps + "/there?gracePeriodSeconds=soon", "", nil, 400, "BadRequest", ""},
		{"options of sorts", "DELETE " + maps + "/there", `{"gracePeriodSeconds":"soon"}`, nil, 400, "BadRequest", ""},
		{"a manager with a bell", "POST " + maps + "?fieldManager=a%07b", cm("a", ""), nil, 422, "Invalid", "fieldManager: Invalid value"},
		{"an object as a table of nothing", "GET " + maps + "/there", "", []string{"Accept", "image/png"}, 406, "NotAcceptable", "only the following media types are accepted"},
		{"a review as a table", "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{"nonResourceAttributes":{"path":"/","verb":"get"}}}`,
			[]string{"Accept", "application/json;as=Table;v=v1;g=meta.k8s.io"}, 406, "NotAcceptable", "only the following media types are accepted"},
		{"too large", "POST " + maps, cm("a", `,"data":{"k":"`+strings.Repeat("x", 3<<20)+`"}`), nil, 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"},
		{"too large for a config map", "POST " + maps, cm("a", `,"data":{"k":"`+strings.Repeat("x", 1<<20)+`x"}`), nil, 422, "Invalid", "Too long: may not be more than 1048576 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := f.ask(c.request, c.body, c.headers...)
			got.t = t
			st := got.status()
			if got.code != c.code || st.Reason != c.reason || !strings.Contains(st.Message, c.message) || st.Status != metav1.StatusFailure {
				t.Errorf("got %d %s: %.400s\nwant %d %s: %s", got.code, st.Reason, st.Message, c.code, c.reason, c.message)
			}
		})
	}
}

func TestInvalidObjectsNameTheirFields(t *testing.T) {
	f := start(t)
	st := f.ask("POST /api/v1/namespaces/default/pods", `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"web","ports":[{"containerPort":0}]},{"name":"b"}]}}`).ok(422).status()
	if st.Details == nil || st.Details.Name != "p" || st.Details.Kind != "Pod" || len(st.Details.Causes) != 2 {
		t.Fatalf("%+v", st.Details)
	}
	var fields []string
	for _, c := range st.Details.Causes {
		fields = append(fields, string(c.Type)+" "+c.Field)
	}
	slices.Sort(fields)
	if want := []string{"FieldValueRequired spec.containers[0].ports[0].containerPort", "FieldValueRequired spec.containers[1].image"}; !slices.Equal(fields, want) {
		t.Errorf("%v", fields)
	}
	if !strings.HasPrefix(st.Message, `Pod "p" is invalid: [spec.containers[0].ports[0].containerPort: Required value, spec.containers[1].image: Required value]`) {
		t.Error(st.Message)
	}
	st = f.ask("GET /api/v1/namespaces/default/pods/p", "").ok(404).status()
	if st.Details.Name != "p" || st.Details.Kind != "pods" || st.Details.Group != "" {
		t.Errorf("%+v", st.Details)
	}
}

func TestErrorsInProtobuf(t *testing.T) {
	f := start(t)
	got := f.ask("GET "+maps+"/nobody", "", "Accept", "application/vnd.kubernetes.protobuf").ok(404)
	obj, _, err := protobufcodec.NewSerializer(api.Scheme(), api.Scheme()).Decode(got.body, nil, nil)
	if st, ok := obj.(*metav1.Status); err != nil || !ok || st.Reason != metav1.StatusReasonNotFound || got.header.Get("Content-Type") != "application/vnd.kubernetes.protobuf" {
		t.Errorf("%T %v", obj, err)
	}
}

func TestFieldValidation(t *testing.T) {
	f := start(t)
	const unknown = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","label":{}},"spec":{"containers":[{"name":"a","image":"web","name":"a"}],"foo":1}}`
	const text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  foo: 1\n  containers: [{name: a, image: web}]\n"
	const twice = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  hostname: a\n  hostname: b\n  containers: [{name: a, image: web}]\n"
	const pods = "POST /api/v1/namespaces/default/pods?dryRun=All&fieldValidation="
	cases := []struct {
		request, body, media string
		code                 int
		want                 []string // warnings, or parts of the message
	}{
		{pods + "Strict", unknown, "application/json", 400, []string{
			`Pod in version "v1" cannot be handled as a Pod: strict decoding error: `, `unknown field "metadata.label"`, `duplicate field "spec.containers[0].name"`, `unknown field "spec.foo"`}},
		{pods + "Warn", unknown, "application/json", 201, []string{
			`299 - "unknown field \"metadata.label\""`, `299 - "duplicate field \"spec.containers[0].name\""`, `299 - "unknown field \"spec.foo\""`}},
		{pods, unknown, "application/json", 201, []string{
			`299 - "unknown field \"metadata.label\""`, `299 - "duplicate field \"spec.containers[0].name\""`, `299 - "unknown field \"spec.foo\""`}},
		{pods + "Ignore", unknown, "application/json", 201, nil},
		{pods + "Strict", text, "application/yaml", 400, []string{`strict decoding error: unknown field "spec.foo"`}},
		{pods + "Warn", text, "application/yaml", 201, []string{`299 - "unknown field \"spec.foo\""`}},
		{pods + "Strict", twice, "application/yaml", 400, []string{`key "hostname" already set in map`}},
		{pods + "Ignore", twice, "application/yaml", 201, nil},
	}
	for _, c := range cases {
		got := f.ask(c.request, c.body, "Content-Type", c.media)
		if got.code != c.code {
			t.Errorf("%s: %d %s", c.request, got.code, got.body)
			continue
		}
		if c.code == 400 {
			for _, part := range c.want {
				if st := got.status(); !strings.Contains(st.Message, part) {
					t.Errorf("%s: %s\nhas no %s", c.request, st.Message, part)
				}
			}
			continue
		}
		warnings := got.header.Values("Warning")
		if slices.Sort(warnings); !slices.Equal(warnings, slices.Sorted(slices.Values(c.want))) {
			t.Errorf("%s: warnings are %q", c.request, warnings)
		}
	}
}

func TestWritesAnswer(t *testing.T) {
	f := start(t)
	var created corev1.ConfigMap
	f.ask("POST "+maps, `{"metadata":{"name":"a"},"data":{"k":"v"}}`).ok(201).into(&created)
	if created.Kind != "ConfigMap" || created.APIVersion != "v1" || created.UID == "" || created.Namespace != "default" {
		t.Errorf("%+v", created)
	}
	f.ask("POST "+maps+"?dryRun=All", `{"metadata":{"name":"b"}}`).ok(201)
	f.ask("GET "+maps+"/b", "").ok(404)
	f.ask("PUT "+maps+"/a", `{"metadata":{"name":"a"},"data":{"k":"w"}}`).ok(200)
	f.ask("PATCH "+maps+"/a", `{"data":{"l":"m"}}`, "Content-Type", "application/merge-patch+json").ok(200)
	f.ask("PATCH "+maps+"/a", `[{"op":"remove","path":"/data/l"}]`, "Content-Type", "application/json-patch+json; charset=utf-8").ok(200)
	st := f.ask("DELETE "+maps+"/a", "").ok(200).status()
	if st.Status != metav1.StatusSuccess || st.Details.Name != "a" || st.Details.Kind != "configmaps" || st.Details.UID != created.UID {
		t.Errorf("%+v", st)
	}
	f.ask("POST "+maps, `{"metadata":{"name":"kept","finalizers":["example.com/a"]}}`).ok(201)
	var kept corev1.ConfigMap
	f.ask("DELETE "+maps+"/kept?propagationPolicy=Background", "").ok(200).into(&kept)
	if kept.DeletionTimestamp == nil || kept.Name != "kept" {
		t.Errorf("%+v", kept)
	}
	var gone metav1.PartialObjectMetadataList
	f.ask("POST "+maps, `{"metadata":{"name":"c"}}`).ok(201)
	f.ask("DELETE "+maps+"?fieldSelector=metadata.name=c", "").ok(200).into(&gone)
	if gone.Kind != "ConfigMapList" || len(gone.Items) != 1 || gone.Items[0].Name != "c" {
		t.Errorf("what was deleted: %+v", gone)
	}
	// A client that goes by types sees types.
	_, err := f.clientset().CoreV1().ConfigMaps("default").Create(ctx, configMap("A_b"), metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Error(err)
	}
}
