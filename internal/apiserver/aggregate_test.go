package apiserver_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/client-go/kubernetes"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/pki"
)

// extension is an API server behind the one under test. It believes whom the published ConfigMap says, and asks back whether they may.
type extension struct {
	t      *testing.T
	api    *kubernetes.Clientset
	trust  *corev1.ConfigMap
	ca     *pki.Authority
	port   int32
	broken atomic.Bool
	server *httptest.Server
}

// extend starts an extension and registers it as v1.fruit.example.
func extend(t *testing.T, f *fixture) *extension {
	t.Helper()
	f.Must(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "extension-apiserver-authentication"},
		Data: authn.PublishedTrust(f.ca.PEM, f.proxy.PEM)})
	x := &extension{t: t, api: f.clientset()}
	var err error
	if x.trust, err = x.api.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if x.ca, err = pki.OpenAuthority(t.TempDir(), "ca", "extension", time.Now()); err != nil {
		t.Fatal(err)
	}
	serving, err := x.ca.Issue(pki.Leaf{CommonName: "fruit", DNSNames: []string{"fruit.default.svc"}, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	x.server = httptest.NewUnstartedServer(x)
	x.server.TLS = &tls.Config{Certificates: []tls.Certificate{*serving}, ClientAuth: tls.RequestClientCert}
	x.server.StartTLS()
	t.Cleanup(x.server.Close)
	x.port = int32(x.server.Listener.Addr().(*net.TCPAddr).Port) //nolint:gosec // a port
	f.Must(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "fruit"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}})
	f.Must(x.registration())
	return x
}

func (x *extension) registration() *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.fruit.example"}, Spec: apiregistrationv1.APIServiceSpec{
		Group: "fruit.example", Version: "v1", GroupPriorityMinimum: 1000, VersionPriority: 15, CABundle: x.ca.PEM,
		Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "fruit", Port: &x.port},
	}}
}

// list is the one value of a published JSON list.
func (x *extension) list(key string) headerrequest.StaticStringSlice {
	var out []string
	if err := json.Unmarshal([]byte(x.trust.Data[key]), &out); err != nil {
		x.t.Errorf("%s: %v", key, err)
	}
	return out
}

func (x *extension) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verify := func() (x509.VerifyOptions, bool) {
		o := x509request.DefaultVerifyOptions()
		o.Roots = x509.NewCertPool()
		o.Roots.AppendCertsFromPEM([]byte(x.trust.Data["requestheader-client-ca-file"]))
		return o, true
	}
	sent := r.Header.Clone()
	who, ok, err := headerrequest.NewDynamicVerifyOptionsSecure(verify, x.list("requestheader-allowed-names"), x.list("requestheader-username-headers"),
		x.list("requestheader-uid-headers"), x.list("requestheader-group-headers"), x.list("requestheader-extra-headers-prefix")).AuthenticateRequest(r)
	if err != nil || !ok {
		http.Error(w, fmt.Sprintf("unauthenticated: %v", err), http.StatusUnauthorized)
		return
	}
	if sent.Get("Authorization") != "" || sent.Get("Impersonate-User") != "" {
		x.t.Error("a client's credentials were passed on")
	}
	review, err := x.api.AuthorizationV1().SubjectAccessReviews().Create(r.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.User.GetName(), Groups: who.User.GetGroups(), ResourceAttributes: &authorizationv1.ResourceAttributes{Group: "fruit.example", Resource: "apples", Verb: "list"},
	}}, metav1.CreateOptions{})
	if err != nil || !review.Status.Allowed {
		http.Error(w, "forbidden behind", http.StatusForbidden)
		return
	}
	x.answer(w, r, who.User.GetName())
}

func (x *extension) answer(w http.ResponseWriter, r *http.Request, user string) {
	w.Header().Set("Content-Type", "application/json")
	const apples = "/apis/fruit.example/v1/apples"
	switch path := r.URL.Path; {
	case x.broken.Load():
		http.Error(w, "rotten", http.StatusInternalServerError)
	case path == "/apis/fruit.example/v1":
		_ = json.NewEncoder(w).Encode(metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "fruit.example/v1",
			APIResources: []metav1.APIResource{{Name: "apples", SingularName: "apple", Kind: "Apple", Verbs: metav1.Verbs{"get", "list", "watch"}},
				{Name: "apples/status", Kind: "Apple", Verbs: metav1.Verbs{"get"}}}})
	case path == "/openapi/v2":
		_, _ = io.WriteString(w, `{"swagger":"2.0","paths":{"/apis/fruit.example/v1/apples":{},"/api/v1/pods":{"bad":{}}},"definitions":{"example.fruit.v1.Apple":{"type":"object"}}}`)
	case path == "/openapi/v3/apis/fruit.example/v1":
		_, _ = io.WriteString(w, `{"openapi":"3.0.0","paths":{}}`)
	case path == apples && r.URL.Query().Get("watch") == "true":
		for i := range 3 {
			_, _ = fmt.Fprintf(w, `{"type":"ADDED","object":{"metadata":{"name":"a%d"}}}`+"\n", i)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	case path == apples:
		_, _ = fmt.Fprintf(w, `{"kind":"AppleList","apiVersion":"fruit.example/v1","user":%q,"query":%q,"items":[]}`, user, r.URL.RawQuery)
	case path == apples+"/a/peel":
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			x.t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
		line, _ := buf.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	default:
		http.NotFound(w, r)
	}
}

// available waits for a condition of v1.fruit.example.
func (f *fixture) available(status apiregistrationv1.ConditionStatus, reason string) apiregistrationv1.APIServiceCondition {
	f.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var s apiregistrationv1.APIService
		f.ask("GET /apis/apiregistration.k8s.io/v1/apiservices/v1.fruit.example", "").ok(200).into(&s)
		if c := s.Status.Conditions; len(c) == 1 && c[0].Status == status && c[0].Reason == reason {
			return c[0]
		}
		if time.Now().After(deadline) {
			f.Fatalf("want %s (%s), got %+v", status, reason, s.Status.Conditions)
		}
	}
}

func TestAPIServersBehind(t *testing.T) {
	f := start(t)
	x := extend(t, f)
	f.available("True", "Passed")
	f.allow("alice", rbacv1.PolicyRule{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{"fruit.example"}, Resources: []string{"apples", "apples/peel"}})
	alice := f.client("alice")
	const apples = "GET /apis/fruit.example/v1/apples"
	f.soon(alice, apples, 200)
	t.Run("requests", func(t *testing.T) {
		var got struct{ Kind, User, Query string }
		f.askAs(alice, apples+"?limit=5", "").ok(200).into(&got)
		if got.Kind != "AppleList" || got.User != "alice" || got.Query != "limit=5" {
			t.Errorf("%+v", got)
		}
		f.ask(apples, "", "Impersonate-User", "alice", "X-Remote-User", "mallory").ok(200).into(&got)
		if got.User != "alice" {
			t.Errorf("%+v", got)
		}
		f.askAs(f.client("mallory"), apples, "").ok(403).status()
	})
	t.Run("watch", func(t *testing.T) {
		resp, err := alice.Get("https://" + f.host + "/apis/fruit.example/v1/apples?watch=true")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for i := range 3 {
			if !lines.Scan() || !strings.Contains(lines.Text(), fmt.Sprintf("a%d", i)) {
				t.Fatalf("event %d: %q %v", i, lines.Text(), lines.Err())
			}
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		conn, err := tls.Dial("tcp", f.host, &tls.Config{RootCAs: f.ca.Pool(), Certificates: []tls.Certificate{*f.certificate("admin", "system:masters")}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = fmt.Fprintf(conn, "GET /apis/fruit.example/v1/apples/a/peel HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n", f.host)
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != 101 {
			t.Fatalf("%v, %v", resp, err)
		}
		_, _ = io.WriteString(conn, "hello\n")
		if line, err := in.ReadString('\n'); line != "echo hello\n" {
			t.Errorf("%q, %v", line, err)
		}
	})
	t.Run("discovery", func(t *testing.T) { testDiscoveryBehind(t, f) })
	t.Run("gone and back", func(t *testing.T) {
		s := x.registration()
		s.Name, s.Spec.Version = "v2.fruit.example", "v2"
		s.Spec.Service.Name = "nowhere"
		f.Must(s)
		f.soon(f.admin, "GET /apis/fruit.example/v2/apples", 503)
		if st := f.ask("GET /apis/fruit.example/v2/apples", "").status(); !strings.Contains(st.Message, `ServiceNotFound: service/nowhere in "default" is not present`) {
			t.Error(st.Message)
		}
		f.ask("DELETE /apis/apiregistration.k8s.io/v1/apiservices/v2.fruit.example", "").ok(200)
		f.soon(f.admin, "GET /apis/fruit.example/v2/apples", 404)
		f.ask("DELETE /apis/apiregistration.k8s.io/v1/apiservices/v1.fruit.example", "").ok(200)
		f.soon(f.admin, apples, 404)
		x.broken.Store(true)
		f.Must(x.registration())
		if c := f.available("False", "FailedDiscoveryCheck"); !strings.Contains(c.Message, "bad status") {
			t.Error(c.Message)
		}
		x.broken.Store(false)
		f.available("True", "Passed")
		f.soon(alice, apples, 200)
	})
	t.Run("a certificate of somebody else", func(t *testing.T) {
		f.ask("PATCH /apis/apiregistration.k8s.io/v1/apiservices/v1.fruit.example", fmt.Sprintf(`{"spec":{"caBundle":%q}}`, encoded(f.ca.PEM)),
			"Content-Type", "application/merge-patch+json").ok(200)
		if c := f.available("False", "FailedDiscoveryCheck"); !strings.Contains(c.Message, "certificate") {
			t.Error(c.Message)
		}
	})
}

func encoded(b []byte) string {
	s, _ := json.Marshal(b)
	return strings.Trim(string(s), `"`)
}

func testDiscoveryBehind(t *testing.T, f *fixture) {
	var group metav1.APIGroup
	f.ask("GET /apis/fruit.example", "").ok(200).into(&group)
	if group.PreferredVersion.GroupVersion != "fruit.example/v1" {
		t.Errorf("%+v", group)
	}
	var list metav1.APIResourceList
	f.ask("GET /apis/fruit.example/v1", "").ok(200).into(&list)
	if len(list.APIResources) != 2 {
		t.Errorf("%+v", list)
	}
	var all apidiscoveryv2.APIGroupDiscoveryList
	f.ask("GET /apis", "", "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").ok(200).into(&all)
	found := false
	for _, g := range all.Items {
		if g.Name == "fruit.example" && len(g.Versions) == 1 {
			v := g.Versions[0]
			found = v.Freshness == "Current" && len(v.Resources) == 1 && v.Resources[0].Subresources[0].Subresource == "status"
		}
	}
	if !found {
		t.Error("aggregated discovery does not know apples")
	}
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	f.ask("GET /openapi/v3", "").ok(200).into(&index)
	if got := f.ask("GET "+index.Paths["apis/fruit.example/v1"].ServerRelativeURL, "").ok(200); !bytes.Contains(got.body, []byte("3.0.0")) {
		t.Errorf("%s", got.body)
	}
	var v2 struct{ Paths, Definitions map[string]any }
	f.ask("GET /openapi/v2", "").ok(200).into(&v2)
	if v2.Definitions["example.fruit.v1.Apple"] == nil || v2.Paths["/apis/fruit.example/v1/apples"] == nil || v2.Definitions["io.k8s.api.core.v1.Pod"] == nil {
		t.Error("the merged document lacks a part")
	}
	if pods, _ := v2.Paths["/api/v1/pods"].(map[string]any); pods["bad"] != nil {
		t.Error("an API server behind this one describes what is not its own")
	}
}

func TestLocalAPIServices(t *testing.T) {
	f := start(t)
	f.soon(f.admin, "GET /apis/apiregistration.k8s.io/v1/apiservices/v1.apps", 200)
	f.soon(f.admin, "GET /apis/apiregistration.k8s.io/v1/apiservices/v1.", 200)
	var table metav1.Table
	f.ask("GET /apis/apiregistration.k8s.io/v1/apiservices/v1.apps", "", "Accept", "application/json;as=Table;g=meta.k8s.io;v=v1").ok(200).into(&table)
	if got := fmt.Sprint(table.Rows[0].Cells[:3]); got != "[v1.apps Local True]" {
		t.Error(got)
	}
	f.ask("DELETE /apis/apiregistration.k8s.io/v1/apiservices/v1.apps", "").ok(200)
	f.soon(f.admin, "GET /apis/apiregistration.k8s.io/v1/apiservices/v1.apps", 200)

	for want, body := range map[string]string{
		"spec.version+":                  `"metadata":{"name":"v1.wrong"},"spec":{"group":"a.b","version":"v1","groupPriorityMinimum":1,"versionPriority":1}`,
		"spec.groupPriorityMinimum":      `"metadata":{"name":"v1.a.b"},"spec":{"group":"a.b","version":"v1","versionPriority":1}`,
		"spec.service.name":              `"metadata":{"name":"v1.a.b"},"spec":{"group":"a.b","version":"v1","groupPriorityMinimum":1,"versionPriority":1,"service":{"namespace":"x"}}`,
		"spec.insecureSkipTLSVerify":     `"metadata":{"name":"v1.a.b"},"spec":{"group":"a.b","version":"v1","groupPriorityMinimum":1,"versionPriority":1,"insecureSkipTLSVerify":true}`,
		"may not be true if caBundle is": `"metadata":{"name":"v1.a.b"},"spec":{"group":"a.b","version":"v1","groupPriorityMinimum":1,"versionPriority":1,"insecureSkipTLSVerify":true,"caBundle":"eA==","service":{"namespace":"x","name":"y"}}`,
	} {
		st := f.ask("POST /apis/apiregistration.k8s.io/v1/apiservices", `{"kind":"APIService","apiVersion":"apiregistration.k8s.io/v1",`+body+`}`).ok(422).status()
		if !strings.Contains(st.Message, want) {
			t.Errorf("%s lacks %s", st.Message, want)
		}
	}
}
