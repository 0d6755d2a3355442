package apiserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/admission/dynamic"
	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

var ctx = context.Background()

// fixture is an API server that listens on loopback, and what is beneath it.
type fixture struct {
	*testing.T
	*registrytest.Registry
	server *apiserver.Server
	host   string // "127.0.0.1:12345"
	ca     *pki.Authority
	proxy  *pki.Authority // of front proxies
	admin  *http.Client
	stop   func() // stops the server, once
}

// checks that tests make fail.
type breakable struct {
	mu  sync.Mutex
	err error
}

func (b *breakable) run(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
func (b *breakable) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// start starts a server that authenticates by certificate and authorizes by RBAC.
func start(t *testing.T, change ...func(*apiserver.Config)) *fixture {
	t.Helper()
	return startOver(t, nil, change...)
}

// startOver is start over a registry that beneath changes.
func startOver(t *testing.T, beneath func(*registry.Config, func() *authz.Authorizer), change ...func(*apiserver.Config)) *fixture {
	t.Helper()
	return startAsking(t, dynamic.New(), beneath, change...)
}

// startAsking is startOver with webhooks and policies that may be configured.
func startAsking(t *testing.T, d *dynamic.Plugins, beneath func(*registry.Config, func() *authz.Authorizer), change ...func(*apiserver.Config)) *fixture {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	var a *authz.Authorizer
	reg := registrytest.Start(t, []registry.Admit{d.Admit}, []registry.Validate{func(ctx context.Context, at *registry.Attributes) error { return a.Validate(ctx, at) }, d.Validate},
		func(c *registry.Config) {
			c.Log = log
			if beneath != nil {
				beneath(c, func() *authz.Authorizer { return a })
			}
		})
	a = authz.New(reg.Registry, log)
	d.Start(reg.Registry, a)
	dir := t.TempDir()
	ca, err := pki.OpenAuthority(dir, "ca", "test-ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, err := ca.Issue(pki.Leaf{CommonName: "kube-apiserver", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := pki.OpenAuthority(dir, "front-proxy-ca", "test-front-proxy", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	speaker, err := proxy.Issue(pki.Leaf{CommonName: authn.FrontProxyName, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := pki.OpenTokenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := apiserver.Config{
		Registry: reg.Registry, Authorizer: a, Listener: listener, ClientCA: ca.Pool(), KubeletTLS: &tls.Config{RootCAs: ca.Pool()},
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return serving, nil },
		FrontProxy: &apiserver.FrontProxy{Authority: proxy.Pool(), Client: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return speaker, nil
		}},
		TokenKeys: apiserver.TokenKeys{SigningPEM: private, VerifyPEM: [][]byte{public}},
		Issuer:    "https://kubernetes.default.svc.cluster.local", ExternalURL: "https://" + listener.Addr().String(),
		Metrics: prometheus.NewRegistry(), Log: log,
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := apiserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	registrytest.Run(t, a)
	f := &fixture{T: t, Registry: reg, server: s, host: listener.Addr().String(), ca: ca, proxy: proxy}
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(running) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	t.Cleanup(f.stop)
	f.admin = f.client("admin", "system:masters") // after the server: its connections are closed first
	<-s.Ready()
	return f
}

// healthy returns once every step of the start has been taken.
func (f *fixture) healthy() {
	f.Helper()
	var got answer
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = f.ask("GET /readyz", ""); got.code == 200 {
			return
		}
	}
	f.Fatalf("the server does not become ready: %s", got.body)
}

// certificate of a client.
func (f *fixture) certificate(user string, groups ...string) *tls.Certificate {
	f.Helper()
	c, err := f.ca.Issue(pki.Leaf{CommonName: user, Organizations: groups, Life: time.Hour}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// client is an HTTP client with a certificate of that user; without a user, one without a certificate.
func (f *fixture) client(user string, groups ...string) *http.Client {
	f.Helper()
	if user == "" {
		return f.clientWith()
	}
	return f.clientWith(*f.certificate(user, groups...))
}

// clientWith is an HTTP client with these certificates.
func (f *fixture) clientWith(certificates ...tls.Certificate) *http.Client {
	cfg := &tls.Config{RootCAs: f.ca.Pool(), Certificates: certificates}
	t := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	f.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// config is client-go's, as the administrator.
func (f *fixture) config() *rest.Config {
	f.Helper()
	return f.configOf("admin", "system:masters")
}

func (f *fixture) configOf(user string, groups ...string) *rest.Config {
	f.Helper()
	cert, key, err := pki.EncodePair(f.certificate(user, groups...))
	if err != nil {
		f.Fatal(err)
	}
	cfg := &rest.Config{Host: "https://" + f.host, TLSClientConfig: rest.TLSClientConfig{CertData: cert, KeyData: key, CAData: f.ca.PEM}, QPS: -1}
	transport, err := rest.TransportFor(cfg) // shared by all clients of this configuration
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { utilnet.CloseIdleConnectionsFor(transport) }) // a server that stops waits for them
	return cfg
}

func (f *fixture) clientset() *kubernetes.Clientset {
	f.Helper()
	c, err := kubernetes.NewForConfig(f.config())
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// answer is what the server said.
type answer struct {
	t      *testing.T
	code   int
	header http.Header
	body   []byte
}

// ask sends a request as the administrator: "GET /api", with headers in pairs.
func (f *fixture) ask(request, body string, headers ...string) answer {
	f.Helper()
	return f.askAs(f.admin, request, body, headers...)
}

func (f *fixture) askAs(c *http.Client, request, body string, headers ...string) answer {
	f.Helper()
	method, path, _ := strings.Cut(request, " ")
	req, err := http.NewRequestWithContext(ctx, method, "https://"+f.host+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	if body == "" {
		req.Body, req.ContentLength = nil, 0
	} else if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		f.Fatalf("%s: %v", request, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		f.Fatalf("%s: %v", request, err)
	}
	return answer{f.T, res.StatusCode, res.Header, raw}
}

// into decodes a JSON answer.
func (a answer) into(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%v in %.300s", err, a.body)
	}
}

func (a answer) status() metav1.Status {
	a.t.Helper()
	var st metav1.Status
	a.into(&st)
	if st.Kind != "Status" || st.APIVersion != "v1" || st.Code != int32(a.code) {
		a.t.Errorf("%d with a body that is no status: %.300s", a.code, a.body)
	}
	return st
}

// ok fails the test unless the answer has the code.
func (a answer) ok(code int) answer {
	a.t.Helper()
	if a.code != code {
		a.t.Fatalf("got %d, want %d: %.500s", a.code, code, a.body)
	}
	return a
}

func configMap(name string, data ...string) *corev1.ConfigMap {
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{}}
	for i := 0; i+1 < len(data); i += 2 {
		c.Data[data[i]] = data[i+1]
	}
	return c
}

func TestServerStopsWhenItsContextEnds(t *testing.T) {
	f := start(t)
	f.ask("GET /version", "").ok(200)
	f.stop()
	if _, err := f.admin.Get("https://" + f.host + "/version"); err == nil {
		t.Error("a server that was stopped answers")
	}
}

func TestHealth(t *testing.T) {
	sick := &breakable{}
	f := start(t, func(c *apiserver.Config) { c.Checks = []apiserver.Check{{Name: "etcd", Run: sick.run}} })
	f.healthy()
	cases := []struct {
		path string
		err  error
		code int
		text string
	}{
		{"/healthz", nil, 200, "ok"},
		{"/livez", nil, 200, "ok"},
		{"/readyz", nil, 200, "ok"},
		{"/readyz/etcd", nil, 200, "ok"},
		{"/readyz/ping", nil, 200, "ok"},
		{"/readyz/poststarthook/rbac/bootstrap-roles", nil, 200, "ok"},
		{"/livez/autoregister-completion?verbose", nil, 200, "[+]autoregister-completion ok\nlivez check passed\n"},
		{"/readyz?verbose", nil, 200, "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n[+]poststarthook/"},
		{"/readyz?verbose", nil, 200, "[+]shutdown ok\nreadyz check passed\n"},
		{"/livez?verbose", nil, 200, "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]poststarthook/"},
		{"/livez?verbose", nil, 200, "[+]autoregister-completion ok\nlivez check passed\n"},
		{"/livez?verbose&exclude=etcd", nil, 200, "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n"},
		{"/livez?verbose&exclude=poststarthook/rbac/bootstrap-roles", nil, 200, "[+]poststarthook/rbac/bootstrap-roles excluded: ok\n"},
		{"/livez?verbose&exclude=etc&exclude=\"", nil, 200, `warn: some health checks cannot be excluded: no matches for "etc","\""` + "\nlivez check passed\n"},
		{"/livez?exclude=etc", errors.New("secret reason"), 500, "[-]etcd failed: reason withheld\n"},
		{"/readyz/etcd-readiness", errors.New("secret reason"), 500, "[-]etcd-readiness failed: reason withheld\n"},
		{"/healthz", errors.New("secret reason"), 500, "[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n"},
		{"/healthz/etcd", errors.New("secret reason"), 500, "failed: reason withheld"},
		{"/healthz?exclude=etcd", errors.New("secret reason"), 200, "ok"},
		{"/healthz/ping", errors.New("secret reason"), 200, "ok"},
	}
	for _, c := range cases {
		sick.set(c.err)
		got := f.ask("GET "+c.path, "")
		text := string(got.body)
		if got.code != c.code || text != c.text && !(strings.Contains(text, c.text) && len(c.text) > 2) || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %q, want %d %q", c.path, got.code, text, c.code, c.text)
		}
		if c.code == 200 && !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s is a %s", c.path, got.header.Get("Content-Type"))
		}
	}
	for _, path := range []string{"/healthz/nothing", "/livez/shutdown", "/livez/informer-sync", "/readyz/poststarthook", "/readyz/poststarthook/", "/readyz/ping/", "/readyz/"} {
		f.ask("GET "+path, "").ok(404)
	}
	f.ask("HEAD /readyz?exclude=etcd&exclude=etcd-readiness", "").ok(200)
}

// The names of a 1.37 server, but for those of what stands beside this one.
var healthNames = []string{
	"ping", "log", "etcd", "poststarthook/start-apiserver-admission-initializer", "poststarthook/generic-apiserver-start-informers",
	"poststarthook/priority-and-fairness-config-consumer", "poststarthook/priority-and-fairness-config-producer", "poststarthook/priority-and-fairness-filter",
	"poststarthook/start-system-namespaces-controller", "poststarthook/start-service-ip-repair-controllers", "poststarthook/rbac/bootstrap-roles",
	"poststarthook/scheduling/bootstrap-system-priority-classes", "poststarthook/bootstrap-controller", "poststarthook/start-kubernetes-service-cidr-controller",
	"poststarthook/start-kube-aggregator-informers", "poststarthook/apiservice-status-local-available-controller",
	"poststarthook/apiservice-status-remote-available-controller", "poststarthook/apiservice-registration-controller",
	"poststarthook/apiservice-discovery-controller", "poststarthook/kube-apiserver-autoregistration", "autoregister-completion",
	"poststarthook/apiservice-openapi-controller", "poststarthook/apiservice-openapiv3-controller",
}

func TestHealthNames(t *testing.T) {
	done := make(chan struct{})
	f := start(t, func(c *apiserver.Config) {
		c.Checks = []apiserver.Check{{Name: "etcd", Run: c.Registry.Store().Healthy}}
		c.Steps = []apiserver.Step{{Name: "poststarthook/beside", Done: done}}
	})
	for _, of := range []string{"healthz", "livez", "readyz"} {
		got := f.ask("GET /"+of+"?verbose=1", "").ok(500)
		if !bytes.Contains(got.body, []byte("[-]poststarthook/beside failed: reason withheld\n")) {
			t.Errorf("%s does not wait for a step that is under way:\n%s", of, got.body)
		}
	}
	close(done)
	f.healthy()
	for _, of := range []string{"healthz", "livez", "readyz"} {
		names := append([]string{"poststarthook/beside"}, healthNames...)
		if of == "readyz" {
			names = append(names, "informer-sync", "etcd-readiness", "shutdown")
		}
		lines := strings.Split(string(f.ask("GET /"+of+"?verbose=1", "").ok(200).body), "\n")
		for _, name := range names {
			if !slices.Contains(lines, "[+]"+name+" ok") {
				t.Errorf("%s has no check %s: %q", of, name, lines)
			}
			f.ask("GET /"+of+"/"+name, "").ok(200)
		}
	}
}

// A part that a server was not given has no check: nobody would ever be done.
func TestHealthWithoutParts(t *testing.T) {
	f := start(t, func(c *apiserver.Config) { c.FrontProxy, c.NoFairness = nil, true })
	f.healthy()
	for name, there := range map[string]bool{
		"poststarthook/rbac/bootstrap-roles": true, "poststarthook/priority-and-fairness-config-consumer": false, "autoregister-completion": false,
		"poststarthook/start-kube-aggregator-informers": false, "poststarthook/crd-informer-synced": false,
	} {
		if got := f.ask("GET /livez/"+name, ""); (got.code == 200) != there || !there && got.code != 404 {
			t.Errorf("%s: %d", name, got.code)
		}
	}
}

func TestPlainPaths(t *testing.T) {
	f := start(t)
	f.healthy()
	var v struct{ Major, Minor, GitVersion, Platform string }
	f.ask("GET /version", "").ok(200).into(&v)
	if v.Major != "1" || v.Minor != "37" || !strings.HasPrefix(v.GitVersion, "v1.37.") || !strings.Contains(v.Platform, "/") {
		t.Errorf("%+v", v)
	}
	var paths struct{ Paths []string }
	f.ask("GET /", "").ok(200).into(&paths)
	for _, p := range paths.Paths {
		if p != "/metrics" && f.ask("GET "+p, "").code != 200 {
			t.Errorf("%s is listed and not served", p)
		}
	}
	for _, p := range []string{"/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"} {
		if with, without := f.ask("GET "+p+"/", "").ok(200), f.ask("GET "+p, "").ok(200); !bytes.Equal(with.body, without.body) {
			t.Errorf("%s/ is not %s:\n%s\n%s", p, p, with.body, without.body)
		}
	}
	if metrics := f.ask("GET /metrics", "").ok(200); !bytes.Contains(metrics.body, []byte("apiserver_request_total")) {
		t.Errorf("%.300s", metrics.body)
	}
	for timeout, code := range map[string]int{"invalid": 400, "0s": 200, "3m": 200, "5s": 200} {
		if got := f.ask("GET /version?timeout="+timeout, ""); got.code != code {
			t.Errorf("a time-out of %s: %d", timeout, got.code)
		}
	}
	var list metav1.APIResourceList
	f.ask("GET /apis/apps/v1", "").ok(200).into(&list)
	for _, r := range list.APIResources {
		if (r.Name == "deployments") != (r.StorageVersionHash == discovery.StorageVersionHash("apps", "v1", "Deployment")) {
			t.Errorf("the storage version of %s: %q", r.Name, r.StorageVersionHash)
		}
	}
	f.ask("GET /readyz", "").ok(200)
	if slis := f.ask("GET /metrics/slis", "").ok(200); !bytes.Contains(slis.body, []byte(`kubernetes_healthcheck{name="ping",type="readyz"} 1`)) {
		t.Errorf("%.300s", slis.body)
	}
	var keys struct{ Keys []map[string]string }
	f.ask("GET /openid/v1/jwks", "").ok(200).into(&keys)
	if len(keys.Keys) == 0 {
		t.Error("no keys verify tokens")
	}
	if h := f.ask("GET /version", "").header; h.Get("Audit-Id") == "" || h.Get("Cache-Control") != "no-cache, private" {
		t.Errorf("headers are %v", h)
	}
}
