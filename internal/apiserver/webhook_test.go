package apiserver_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/pki"
)

// hookServer is a webhook of the test's own on loopback: a function a path.
type hookServer struct {
	f       *fixture
	url     string
	port    int
	stopped chan struct{}

	mu    sync.Mutex
	paths map[string]func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse
	seen  map[string][]*admissionv1.AdmissionRequest
}

func hooksFor(f *fixture) *hookServer {
	f.Helper()
	h := &hookServer{f: f, paths: map[string]func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse{}, stopped: make(chan struct{}),
		seen: map[string][]*admissionv1.AdmissionRequest{}}
	cert, err := f.ca.Issue(pki.Leaf{CommonName: "hook", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"hook.default.svc"}, Life: time.Hour}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
	s.StartTLS()
	f.Cleanup(func() { close(h.stopped); s.CloseClientConnections(); s.Close() })
	h.url, h.port = s.URL, s.Listener.Addr().(*net.TCPAddr).Port
	return h
}

func (h *hookServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	review := admissionv1.AdmissionReview{}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/hang" {
		select {
		case <-h.stopped:
		case <-r.Context().Done():
		}
		return
	}
	h.mu.Lock()
	h.seen[r.URL.Path] = append(h.seen[r.URL.Path], review.Request)
	answer := h.paths[r.URL.Path]
	h.mu.Unlock()
	review.Response = &admissionv1.AdmissionResponse{Allowed: true}
	if answer != nil {
		review.Response = answer(review.Request)
	}
	review.Response.UID, review.Request = review.Request.UID, nil
	_ = json.NewEncoder(w).Encode(review)
}

// requests are those that came to a path.
func (h *hookServer) requests(path string) []*admissionv1.AdmissionRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[path]
}

func (h *hookServer) on(path string, f func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paths[path] = f
}

func patched(ops string) *admissionv1.AdmissionResponse {
	kind := admissionv1.PatchTypeJSONPatch
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(ops), PatchType: &kind}
}

func denied(text string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: text, Code: http.StatusForbidden}}
}

// put creates an object from YAML by its path.
func (f *fixture) put(path, text string) answer {
	f.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		f.Fatal(err)
	}
	return f.ask("POST "+path, string(raw))
}

func (a answer) mustSay(code int, texts ...string) {
	a.t.Helper()
	for _, text := range texts {
		if a.code != code || !strings.Contains(string(a.body), text) {
			a.t.Fatalf("%d %s, want %d with %s", a.code, a.body, code, text)
		}
	}
}

const registration = "/apis/admissionregistration.k8s.io/v1/"

// configure creates a configuration with one webhook; extra is more of the webhook in YAML's flow style.
func (h *hookServer) configure(kind, name, path, rules, extra string) {
	h.f.Helper()
	if !strings.Contains(extra, "clientConfig") {
		extra += fmt.Sprintf(", clientConfig: {url: '%s%s', caBundle: %s}", h.url, path, h.bundle())
	}
	h.f.put(registration+strings.ToLower(kind)+"webhookconfigurations", fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: %sWebhookConfiguration
metadata: {name: %s}
webhooks: [{name: %s.example.com, admissionReviewVersions: [v1], sideEffects: None, rules: [%s] %s}]
`, kind, name, name, rules, extra)).ok(http.StatusCreated)
}

func (h *hookServer) bundle() string { return base64.StdEncoding.EncodeToString(h.f.ca.PEM) }

const (
	configMaps     = "/api/v1/namespaces/default/configmaps"
	configMapRule  = `{operations: [CREATE, UPDATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}`
	everythingRule = `{operations: ["*"], apiGroups: ["*"], apiVersions: ["*"], resources: ["*/*"]}`
)

func configMapText(name string, data ...string) string {
	m := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{}}
	for i := 0; i+1 < len(data); i += 2 {
		m.Data[data[i]] = data[i+1]
	}
	raw, _ := json.Marshal(m)
	return string(raw)
}

func dataOf(a answer) map[string]string {
	a.t.Helper()
	var m corev1.ConfigMap
	a.ok(http.StatusCreated).into(&m)
	return m.Data
}

func TestWebhooksMutateInOrderAndTakeEffectAtOnce(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.on("/first", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patched(`[{"op":"add","path":"/data/first","value":"yes"}]`)
	})
	h.on("/second", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if !bytes.Contains(r.Object.Raw, []byte(`"first":"yes"`)) {
			return denied("the first has not been here")
		}
		return patched(`[{"op":"add","path":"/data/second","value":"yes"}]`)
	})
	h.on("/check", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		out := &admissionv1.AdmissionResponse{Allowed: !bytes.Contains(r.Object.Raw, []byte("bad")), Warnings: []string{"checked"}}
		if !out.Allowed {
			out.Result = &metav1.Status{Message: "this is bad", Code: http.StatusTeapot}
		}
		return out
	})
	h.configure("Mutating", "b", "/second", configMapRule, "")
	h.configure("Mutating", "a", "/first", configMapRule, "")
	h.configure("Validating", "c", "/check", configMapRule, "")
	made := f.ask("POST "+configMaps, configMapText("one", "a", "b"))
	if got := dataOf(made); got["first"] != "yes" || got["second"] != "yes" || made.header.Get("Warning") != `299 - "checked"` {
		t.Fatalf("%v, warned of %q", got, made.header)
	}
	f.ask("POST "+configMaps, configMapText("two", "a", "bad")).mustSay(http.StatusTeapot, `admission webhook \"c.example.com\" denied the request: this is bad`)
	f.ask("PUT "+configMaps+"/one", configMapText("one", "a", "bad")).mustSay(http.StatusTeapot, "this is bad")
	req := h.requests("/check")[0]
	if req.Name != "one" || req.Namespace != "default" || req.Operation != admissionv1.Create || req.Kind.Kind != "ConfigMap" || req.UserInfo.Username != "admin" ||
		!bytes.Contains(req.Options.Raw, []byte("CreateOptions")) || *req.DryRun {
		t.Errorf("asked about %+v", req)
	}
	f.ask("POST "+configMaps+"?dryRun=All", configMapText("dry", "a", "b")).ok(http.StatusCreated)
	if asked := h.requests("/check"); !*asked[len(asked)-1].DryRun {
		t.Error("a dry run was not told")
	}

	// A change of the rules, and the end of the configurations, hold from the next request on.
	f.ask("PATCH "+registration+"validatingwebhookconfigurations/c", `[{"op":"replace","path":"/webhooks/0/rules/0/operations","value":["UPDATE"]}]`,
		"Content-Type", "application/json-patch+json").ok(http.StatusOK)
	f.ask("POST "+configMaps, configMapText("three", "a", "bad")).ok(http.StatusCreated)
	f.ask("DELETE "+registration+"mutatingwebhookconfigurations", "").ok(http.StatusOK)
	if got := dataOf(f.ask("POST "+configMaps, configMapText("four", "a", "b"))); len(got) != 1 {
		t.Errorf("webhooks that are gone made it %v", got)
	}
}

func TestWebhooksAreAskedAgainIfNeeded(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.on("/early", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if bytes.Contains(r.Object.Raw, []byte(`"late":"yes"`)) {
			return patched(`[{"op":"add","path":"/data/saw","value":"late"}]`)
		}
		return &admissionv1.AdmissionResponse{Allowed: true}
	})
	h.on("/late", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patched(`[{"op":"add","path":"/data/late","value":"yes"}]`)
	})
	h.configure("Mutating", "a", "/early", configMapRule, ", reinvocationPolicy: IfNeeded")
	h.configure("Mutating", "b", "/late", configMapRule, "")
	if got := dataOf(f.ask("POST "+configMaps, configMapText("one", "a", "b"))); got["saw"] != "late" {
		t.Errorf("the early webhook was not asked again: %v", got)
	}
	if early, late := len(h.requests("/early")), len(h.requests("/late")); early != 2 || late != 1 {
		t.Errorf("asked %d and %d times", early, late)
	}
}

func TestWebhooksSelect(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.on("/no", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("no") })
	f.put("/api/v1/namespaces", `{apiVersion: v1, kind: Namespace, metadata: {name: exempt, labels: {hooks: "off"}}}`).ok(http.StatusCreated)
	h.configure("Validating", "a", "/no", configMapRule, `, namespaceSelector: {matchExpressions: [{key: hooks, operator: NotIn, values: ["off"]}]},
  objectSelector: {matchLabels: {look: here}}, matchConditions: [{name: not-me, expression: "object.metadata.name != 'me' && !authorizer.group('').resource('secrets').check('get').allowed() == false"}]`)
	labelled := func(name string) string {
		return strings.Replace(configMapText(name), `"name":`, `"labels":{"look":"here"},"name":`, 1)
	}
	f.ask("POST "+configMaps, labelled("one")).mustSay(http.StatusForbidden, "denied the request: no")
	f.ask("POST "+configMaps, configMapText("one")).ok(http.StatusCreated)
	f.ask("POST "+configMaps, labelled("me")).ok(http.StatusCreated)
	f.ask("POST /api/v1/namespaces/exempt/configmaps", labelled("one")).ok(http.StatusCreated)
}

func TestWebhooksFail(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.configure("Validating", "a", "/hang", configMapRule, ", timeoutSeconds: 1")
	f.ask("POST "+configMaps, configMapText("one")).mustSay(http.StatusInternalServerError, "deadline exceeded")
	f.ask("PATCH "+registration+"validatingwebhookconfigurations/a", `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`,
		"Content-Type", "application/json-patch+json").ok(http.StatusOK)
	f.ask("POST "+configMaps, configMapText("one")).ok(http.StatusCreated)
	h.configure("Validating", "b", "", configMapRule, fmt.Sprintf(", clientConfig: {url: '%s/ok'}", h.url))
	f.ask("POST "+configMaps, configMapText("two")).mustSay(http.StatusInternalServerError, "certificate")
}

func TestWebhooksBehindServices(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.on("/deny", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return denied("from behind a service")
	})
	h.configure("Validating", "a", "", configMapRule, fmt.Sprintf(", clientConfig: {service: {namespace: default, name: hook, path: /deny, port: %d}, caBundle: %s}", h.port, h.bundle()))
	f.ask("POST "+configMaps, configMapText("one")).mustSay(http.StatusInternalServerError, "is not present")
	f.put("/api/v1/namespaces/default/services", `{apiVersion: v1, kind: Service, metadata: {name: hook}, spec: {type: ExternalName, externalName: localhost}}`).ok(http.StatusCreated)
	f.ask("POST "+configMaps, configMapText("one")).mustSay(http.StatusForbidden, "from behind a service")
}

func TestWebhooksCannotLockTheClusterOut(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.on("/deny", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("nothing goes") })
	h.configure("Validating", "a", "/deny", everythingRule, "")
	f.ask("POST "+configMaps, configMapText("one")).ok(http.StatusForbidden)
	h.configure("Validating", "b", "/deny", everythingRule, "")
	f.put("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
		`{apiVersion: authorization.k8s.io/v1, kind: SelfSubjectAccessReview, spec: {resourceAttributes: {verb: get, resource: pods}}}`).ok(http.StatusCreated)
	f.ask("DELETE "+registration+"validatingwebhookconfigurations", "").ok(http.StatusOK)
	f.ask("POST "+configMaps, configMapText("one")).ok(http.StatusCreated)
}

func TestWebhooksSeeSubresourcesAndConnections(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.on("/deny", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return denied("kept from " + r.SubResource)
	})
	f.put("/api/v1/namespaces/default/pods", `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}`).ok(http.StatusCreated)
	f.put("/apis/apps/v1/namespaces/default/deployments", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}},
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`).ok(http.StatusCreated)
	h.configure("Validating", "a", "/deny", `{operations: [CONNECT], apiGroups: [""], apiVersions: [v1], resources: [pods/attach]},
  {operations: [UPDATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments/scale]}, {operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods/eviction]}`, "")
	f.ask("POST /api/v1/namespaces/default/pods/p/attach?stdout=1", "").mustSay(http.StatusForbidden, "kept from attach")
	if r := h.requests("/deny")[0]; r.Kind.Kind != "PodAttachOptions" || !bytes.Contains(r.Object.Raw, []byte(`"stdout":true`)) || r.Name != "p" {
		t.Errorf("asked about %+v with %s", r, r.Object.Raw)
	}
	f.ask("PATCH /apis/apps/v1/namespaces/default/deployments/d/scale", `{"spec":{"replicas":3}}`, "Content-Type", "application/merge-patch+json").
		mustSay(http.StatusForbidden, "kept from scale")
	if r := h.requests("/deny")[1]; r.Kind.Kind != "Scale" || !bytes.Contains(r.OldObject.Raw, []byte(`"kind":"Scale"`)) {
		t.Errorf("asked about %+v with %s", r, r.OldObject.Raw)
	}
	f.put("/api/v1/namespaces/default/pods/p/eviction", `{apiVersion: policy/v1, kind: Eviction, metadata: {name: p}}`).mustSay(http.StatusForbidden, "kept from eviction")
}

func TestMutatedObjectsGetDefaultsAndKeepTheirPlace(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.on("/pod", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patched(`[{"op":"add","path":"/spec/initContainers","value":[{"name":"webhook-added","image":"i"}]}]`)
	})
	h.on("/move", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patched(`[{"op":"replace","path":"/metadata/namespace","value":"kube-system"}]`)
	})
	h.configure("Mutating", "a", "/pod", `{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}`, "")
	h.configure("Mutating", "b", "/move", configMapRule, "")
	var p corev1.Pod
	f.put("/api/v1/namespaces/default/pods", `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}`).ok(http.StatusCreated).into(&p)
	if len(p.Spec.InitContainers) != 1 || p.Spec.InitContainers[0].TerminationMessagePolicy != corev1.TerminationMessageReadFile {
		t.Errorf("made %+v", p.Spec.InitContainers)
	}
	f.ask("POST "+configMaps, configMapText("one")).mustSay(http.StatusBadRequest, "namespace of the provided object does not match")
}

func TestWebhooksGetTheVersionTheyAskFor(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.configure("Validating", "a", "/scaler", `{operations: [CREATE], apiGroups: [autoscaling], apiVersions: [v1], resources: [horizontalpodautoscalers]}`, "")
	f.put("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h},
  spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}}`).ok(http.StatusCreated)
	seen := h.requests("/scaler")
	if len(seen) != 1 || seen[0].Kind.Version != "v1" || seen[0].RequestKind.Version != "v2" || !bytes.Contains(seen[0].Object.Raw, []byte(`"apiVersion":"autoscaling/v1"`)) {
		t.Errorf("asked %+v", seen)
	}
}

// A webhook that wants exactly what its rules say is not asked about other versions of the kind.
func TestWebhooksMatchExactly(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.configure("Validating", "a", "/exact", `{operations: [CREATE], apiGroups: [autoscaling], apiVersions: [v1], resources: [horizontalpodautoscalers]}`, ", matchPolicy: Exact")
	for version, want := range map[string]int{"v2": 0, "v1": 1} {
		f.put("/apis/autoscaling/"+version+"/namespaces/default/horizontalpodautoscalers", `{apiVersion: autoscaling/`+version+`, kind: HorizontalPodAutoscaler, metadata: {name: `+version+`},
  spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}}`).ok(http.StatusCreated)
		asked := 0
		for _, r := range h.requests("/exact") {
			if r.Name == version {
				asked++
			}
		}
		if asked != want {
			t.Errorf("%s: asked %d times, want %d", version, asked, want)
		}
	}
}

// Webhooks without side effects are asked in a dry run, and told that it is one; others cannot be configured.
func TestWebhooksTakePartInDryRuns(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	h.on("/no", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if *r.DryRun {
			return denied("not even in a dry run")
		}
		return &admissionv1.AdmissionResponse{Allowed: true}
	})
	h.configure("Validating", "a", "/no", configMapRule, "")
	f.ask("POST "+configMaps+"?dryRun=All", configMapText("one")).mustSay(http.StatusForbidden, "not even in a dry run")
	f.ask("POST "+configMaps, configMapText("one")).ok(http.StatusCreated)
	effects := func(value string) answer {
		return f.ask("PATCH "+registration+"validatingwebhookconfigurations/a", `[{"op":"replace","path":"/webhooks/0/sideEffects","value":"`+value+`"}]`, "Content-Type", "application/json-patch+json")
	}
	effects("NoneOnDryRun").ok(http.StatusOK)
	f.ask("POST "+configMaps+"?dryRun=All", configMapText("two")).mustSay(http.StatusForbidden, "not even in a dry run")
	effects("Some").mustSay(http.StatusUnprocessableEntity, "webhooks[0].sideEffects: Unsupported value")
}

func TestWebhooksAndCustomResources(t *testing.T) {
	s := seaOf(t)
	h := hooksFor(s.fixture)
	s.define(boats)
	h.on("/boat", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patched(`[{"op":"add","path":"/spec/unknown","value":1},{"op":"add","path":"/spec/crew","value":[{"name":"ann"}]}]`)
	})
	h.on("/sink", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("boats don't sink") })
	h.configure("Mutating", "a", "/boat", `{operations: [CREATE], apiGroups: [sea.example.com], apiVersions: [v1], resources: [boats]}`, "")
	h.configure("Validating", "b", "/old", `{operations: [CREATE], apiGroups: [sea.example.com], apiVersions: [v1beta1], resources: [boats]}`, "")
	h.configure("Validating", "c", "/sink", `{operations: [DELETE], apiGroups: [sea.example.com], apiVersions: ["*"], resources: [boats]}`, "")
	made, err := s.boats.Create(ctx, boatOf("one", "{kind: skiff}"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec, _ := made.Object["spec"].(map[string]any)
	if crew, _ := json.Marshal(spec["crew"]); spec["unknown"] != nil || string(crew) != `[{"name":"ann","role":"rower"}]` {
		t.Errorf("made %v", spec)
	}
	if seen := h.requests("/old"); len(seen) != 1 || !bytes.Contains(seen[0].Object.Raw, []byte(`"sea.example.com/v1beta1"`)) {
		t.Errorf("the webhook for v1beta1 saw %+v", seen)
	}
	if err := s.boats.Delete(ctx, "one", metav1.DeleteOptions{}); err == nil || !strings.Contains(err.Error(), "boats don't sink") {
		t.Errorf("deleted: %v", err)
	}
	if seen := h.requests("/sink"); len(seen) != 1 || len(seen[0].OldObject.Raw) == 0 || !isNull(seen[0].Object) {
		t.Errorf("asked about %+v", seen)
	}
}

func isNull(r runtime.RawExtension) bool { return len(r.Raw) == 0 || string(r.Raw) == "null" }
