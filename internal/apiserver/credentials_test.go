package apiserver_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/admission/dynamic"
	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/pki"
)

// guarded is a service outside the cluster, over TLS, that answers only who shows the right credential.
type guarded struct {
	url, ca, host string
	let           atomic.Int64 // requests with the credential
	refused       atomic.Int64
}

// credential is what a kubeconfig's user has, and how the service knows it.
type credential struct {
	name, user string
	right      func(*http.Request) bool
}

// credentials are of every kind that a kubeconfig can hold for a service; clients signs certificates.
func credentials(t *testing.T, clients *pki.Authority) []credential {
	t.Helper()
	leaf, err := clients.Issue(pki.Leaf{CommonName: "apiserver-of-the-test", Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := pki.EncodePair(leaf)
	if err != nil {
		t.Fatal(err)
	}
	byCertificate := func(r *http.Request) bool {
		return len(r.TLS.PeerCertificates) > 0 && r.TLS.PeerCertificates[0].Subject.CommonName == "apiserver-of-the-test"
	}
	byToken := func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer s3cret" }
	return []credential{
		{"a certificate from files", fmt.Sprintf("{client-certificate: %q, client-key: %q}", file(t, "tls.crt", string(cert)), file(t, "tls.key", string(key))), byCertificate},
		{"a certificate within", fmt.Sprintf("{client-certificate-data: %s, client-key-data: %s}", base64.StdEncoding.EncodeToString(cert), base64.StdEncoding.EncodeToString(key)), byCertificate},
		{"a token", "{token: s3cret}", byToken},
		{"a token from a file", fmt.Sprintf("{tokenFile: %q}", file(t, "token", "s3cret\n")), byToken},
		{"a password", "{username: me, password: s3cret}", func(r *http.Request) bool { u, p, _ := r.BasicAuth(); return u == "me" && p == "s3cret" }},
	}
}

func guard(t *testing.T, clients *pki.Authority, c credential, h http.HandlerFunc) *guarded {
	t.Helper()
	g := &guarded{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.right(r) {
			g.refused.Add(1)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		g.let.Add(1)
		w.Header().Set("Content-Type", "application/json")
		h(w, r)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients.Pool()}
	s.StartTLS()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	g.url, g.host = s.URL, strings.TrimPrefix(s.URL, "https://")
	g.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return g
}

// kubeconfig leads to the service with a user's credential.
func (g *guarded) kubeconfig(t *testing.T, user string) string {
	t.Helper()
	return file(t, "hook.kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: hook, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: skiff, user: %s}]
contexts: [{name: hook, context: {cluster: hook, user: skiff}}]
current-context: hook
`, g.url, file(t, "ca.pem", g.ca), user))
}

// seen checks that the service was asked with the credential, and never without.
func (g *guarded) seen(t *testing.T) {
	t.Helper()
	if g.let.Load() == 0 || g.refused.Load() > 0 {
		t.Errorf("the service let %d requests in and refused %d", g.let.Load(), g.refused.Load())
	}
}

// review answers an AdmissionReview: it adds a field of data, or warns.
func review(w http.ResponseWriter, r *http.Request) {
	var in admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := patched(`[{"op":"add","path":"/data/seen","value":"yes"}]`)
	if r.URL.Path == "/validate" {
		out = &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"seen"}}
	}
	out.UID = in.Request.UID
	in.Response, in.Request = out, nil
	_ = json.NewEncoder(w).Encode(in)
}

func clientAuthority(t *testing.T) *pki.Authority {
	t.Helper()
	ca, err := pki.OpenAuthority(t.TempDir(), "ca", "hook-clients", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// webhookPlugins are those that take a kubeconfig.
var webhookPlugins = []string{"MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"}

// startConfigured is a server whose webhook plug-ins have the kubeconfig that the AdmissionConfiguration names; "" for none.
func startConfigured(t *testing.T, kubeconfig string) *fixture {
	t.Helper()
	d := dynamic.New()
	if kubeconfig != "" {
		for _, name := range webhookPlugins {
			if err := d.Configure()[name](fmt.Appendf(nil, "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\nkubeConfigFile: %q\n", kubeconfig)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	return startAsking(t, d, nil)
}

// hook registers a mutating and a validating webhook at a service.
func (f *fixture) hook(clientConfig func(path string) string) {
	f.Helper()
	for kind, path := range map[string]string{"Mutating": "/mutate", "Validating": "/validate"} {
		f.put(registration+strings.ToLower(kind)+"webhookconfigurations", fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: %sWebhookConfiguration
metadata: {name: a}
webhooks: [{name: a.example.com, admissionReviewVersions: [v1], sideEffects: None, rules: [%s], clientConfig: %s}]
`, kind, configMapRule, clientConfig(path))).ok(http.StatusCreated)
	}
}

// What the kubeconfig of the AdmissionConfiguration says of a webhook's host, or of its domain, is shown to the webhooks there.
func TestAdmissionWebhooksAreShownCredentials(t *testing.T) {
	clients := clientAuthority(t)
	users := func(t *testing.T, name, user string) string {
		return file(t, "admission.kubeconfig", fmt.Sprintf("apiVersion: v1\nkind: Config\nusers: [{name: %q, user: %s}, {name: other.example, user: {token: wrong}}]\n", name, user))
	}
	for _, c := range credentials(t, clients) {
		t.Run(c.name, func(t *testing.T) {
			g := guard(t, clients, c, review)
			f := startConfigured(t, users(t, g.host, c.user))
			f.hook(func(path string) string {
				return fmt.Sprintf("{url: '%s%s', caBundle: %s}", g.url, path, base64.StdEncoding.EncodeToString([]byte(g.ca)))
			})
			made := f.ask("POST "+configMaps, configMapText("one", "a", "b"))
			if dataOf(made)["seen"] != "yes" || made.header.Get("Warning") != `299 - "seen"` {
				t.Errorf("%s, warned of %q", made.body, made.header.Get("Warning"))
			}
			g.seen(t)
		})
	}
	token := credentials(t, clients)[2]
	t.Run("any host", func(t *testing.T) {
		g := guard(t, clients, token, review)
		f := startConfigured(t, users(t, "*", token.user))
		f.hook(func(path string) string {
			return fmt.Sprintf("{url: '%s%s', caBundle: %s}", g.url, path, base64.StdEncoding.EncodeToString([]byte(g.ca)))
		})
		dataOf(f.ask("POST "+configMaps, configMapText("one", "a", "b")))
		g.seen(t)
	})
	t.Run("a file that is gone since", func(t *testing.T) {
		g := guard(t, clients, token, review)
		kubeconfig := users(t, g.host, token.user)
		f := startConfigured(t, kubeconfig)
		if err := os.Remove(kubeconfig); err != nil {
			t.Fatal(err)
		}
		f.hook(func(path string) string {
			return fmt.Sprintf("{url: '%s%s', caBundle: %s}", g.url, path, base64.StdEncoding.EncodeToString([]byte(g.ca)))
		})
		dataOf(f.ask("POST "+configMaps, configMapText("one", "a", "b")))
		g.seen(t)
	})
	t.Run("another host's", func(t *testing.T) {
		g := guard(t, clients, token, review)
		for _, kubeconfig := range []string{"", users(t, "another.example", token.user)} {
			f := startConfigured(t, kubeconfig)
			f.hook(func(path string) string {
				return fmt.Sprintf("{url: '%s%s', caBundle: %s}", g.url, path, base64.StdEncoding.EncodeToString([]byte(g.ca)))
			})
			f.ask("POST "+configMaps, configMapText("one", "a", "b")).mustSay(http.StatusInternalServerError, "failed calling webhook")
			if g.let.Load() > 0 {
				t.Error("a credential was shown to somebody it is not for")
			}
		}
	})
}

// A kubeconfig that is of no use is named at the start.
func TestAdmissionKubeconfigsAreChecked(t *testing.T) {
	for name, text := range map[string]string{"missing": "/nowhere/kubeconfig", "broken": file(t, "broken", "users: [")} {
		for _, plugin := range webhookPlugins {
			err := dynamic.New().Configure()[plugin](fmt.Appendf(nil, "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\nkubeConfigFile: %q\n", text))
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s, %s: %v", plugin, name, err)
			}
		}
	}
}

// The services that say whose a token is, who may do what, and that take audit events, are shown what their kubeconfigs say.
func TestOtherWebhooksAreShownCredentials(t *testing.T) {
	clients := clientAuthority(t)
	for _, c := range credentials(t, clients) {
		t.Run(c.name, func(t *testing.T) {
			tokens := guard(t, clients, c, func(w http.ResponseWriter, r *http.Request) {
				var review authenticationv1.TokenReview
				_ = json.NewDecoder(r.Body).Decode(&review)
				review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: review.Spec.Audiences, User: authenticationv1.UserInfo{Username: "carol"}}
				_ = json.NewEncoder(w).Encode(&review)
			})
			access := guard(t, clients, c, func(w http.ResponseWriter, r *http.Request) {
				var review authorizationv1.SubjectAccessReview
				_ = json.NewDecoder(r.Body).Decode(&review)
				review.Status.Allowed = review.Spec.User == "carol"
				_ = json.NewEncoder(w).Encode(&review)
			})
			events := guard(t, clients, c, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
			log, err := audit.Open(audit.Settings{PolicyFile: file(t, "policy.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"), WebhookConfig: events.kubeconfig(t, c.user)})
			if err != nil {
				t.Fatal(err)
			}
			f := start(t, func(cfg *apiserver.Config) {
				cfg.Sources.WebhookConfig, cfg.Audit = tokens.kubeconfig(t, c.user), log
				if err := cfg.Authorizer.Use(authz.Sources{WebhookConfig: access.kubeconfig(t, c.user)}); err != nil {
					t.Fatal(err)
				}
			})
			f.askAs(f.client(""), "GET /api/v1/namespaces/default/secrets", "", bearer("carol's")...).ok(http.StatusOK)
			f.stop() // what is left of the events is sent
			tokens.seen(t)
			access.seen(t)
			events.seen(t)
		})
	}
}
