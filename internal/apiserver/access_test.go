package apiserver_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/pki"
)

// file writes text into a file of the test's own.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// outside is an HTTPS service outside the cluster, and its authority as PEM.
func outside(t *testing.T, h http.Handler) (url, ca string) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// kubeconfig leads to a service outside.
func kubeconfig(t *testing.T, h http.Handler) string {
	t.Helper()
	url, ca := outside(t, h)
	return file(t, "hook.kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: hook, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: skiff, user: {}}]
contexts: [{name: hook, context: {cluster: hook, user: skiff}}]
current-context: hook
`, url, file(t, "ca.pem", ca)))
}

// whoami is who the server takes a request for; an empty name for 401.
func (f *fixture) whoami(c *http.Client, headers ...string) authenticationv1.UserInfo {
	f.Helper()
	got := f.askAs(c, "POST /apis/authentication.k8s.io/v1/selfsubjectreviews", `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`, headers...)
	if got.code == http.StatusUnauthorized {
		return authenticationv1.UserInfo{}
	}
	var out authenticationv1.SelfSubjectReview
	got.ok(201).into(&out)
	return out.Status.UserInfo
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func TestStaticTokens(t *testing.T) {
	tokens := file(t, "tokens.csv", "s3cret,alice,u-7,\"dev,ops\"\n")
	f := start(t, func(c *apiserver.Config) { c.Sources.TokenFile = tokens })
	got := f.whoami(f.client(""), bearer("s3cret")...)
	if got.Username != "alice" || got.UID != "u-7" || !slices.Equal(got.Groups, []string{"dev", "ops", "system:authenticated"}) {
		t.Errorf("%+v", got)
	}
	if got := f.whoami(f.client(""), bearer("s3cre")...); got.Username != "" {
		t.Errorf("a wrong token is %+v", got)
	}
	var review authenticationv1.TokenReview
	f.ask("POST /apis/authentication.k8s.io/v1/tokenreviews", `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{"token":"s3cret"}}`).ok(201).into(&review)
	if !review.Status.Authenticated || review.Status.User.Username != "alice" || len(review.Status.Audiences) != 1 {
		t.Errorf("%+v", review.Status)
	}
	review = authenticationv1.TokenReview{}
	f.ask("POST /apis/authentication.k8s.io/v1/tokenreviews",
		`{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{"token":"s3cret","audiences":["vault"]}}`).ok(201).into(&review)
	if review.Status.Authenticated {
		t.Error("a token for the API server is good for somebody else")
	}
}

// issuer is an OpenID provider.
func issuer(t *testing.T) (url, ca string, sign func(claims map[string]any) string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	url, ca = outside(t, mux)
	answer := func(path string, v any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	answer("/.well-known/openid-configuration", map[string]any{
		"issuer": url, "jwks_uri": url + "/keys", "authorization_endpoint": url + "/auth", "token_endpoint": url + "/token",
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
	})
	answer("/keys", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return url, ca, func(claims map[string]any) string {
		token, err := jwt.Signed(signer).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
}

func claims(url string, more ...any) map[string]any {
	out := map[string]any{"iss": url, "aud": "skiff", "sub": "bob", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "groups": []string{"dev"}}
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i].(string)] = more[i+1]
	}
	return out
}

// learned waits for the server to know the issuer's keys, which it fetches as it starts.
func (f *fixture) learned(token string) authenticationv1.UserInfo {
	f.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if got := f.whoami(f.client(""), bearer(token)...); got.Username != "" || time.Now().After(deadline) {
			return got
		}
	}
}

func TestIdentityTokens(t *testing.T) {
	url, ca, sign := issuer(t)
	t.Run("by flags", func(t *testing.T) {
		authority := file(t, "ca.pem", ca)
		f := start(t, func(c *apiserver.Config) {
			c.Sources.OIDC = authn.OIDC{Issuer: url, ClientID: "skiff", UsernameClaim: "sub", GroupsClaim: "groups", GroupsPrefix: "idp:", CAFile: authority,
				RequiredClaims: []string{"team=a"}, Algorithms: []string{"RS256"}}
		})
		got := f.learned(sign(claims(url, "team", "a")))
		if got.Username != url+"#bob" || !slices.Equal(got.Groups, []string{"idp:dev", "system:authenticated"}) {
			t.Errorf("%+v", got)
		}
		for what, token := range map[string]string{
			"without a required claim": sign(claims(url)),
			"for somebody else":        sign(claims(url, "team", "a", "aud", "vault")),
			"of an hour ago":           sign(claims(url, "team", "a", "exp", time.Now().Add(-time.Hour).Unix())),
			"of another issuer":        sign(claims("https://other.example", "team", "a")),
		} {
			if got := f.whoami(f.client(""), bearer(token)...); got.Username != "" {
				t.Errorf("a token %s is %s", what, got.Username)
			}
		}
	})
	t.Run("by file", func(t *testing.T) {
		body, _ := json.Marshal(map[string]any{
			"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
			"anonymous": map[string]any{"enabled": true, "conditions": []any{map[string]any{"path": "/livez"}}},
			"jwt": []any{map[string]any{
				"issuer":              map[string]any{"url": url, "certificateAuthority": ca, "audiences": []string{"skiff"}},
				"claimMappings":       map[string]any{"username": map[string]any{"expression": `"idp:" + claims.sub`}},
				"userValidationRules": []any{map[string]any{"expression": "!user.username.startsWith('idp:system')", "message": "no"}},
			}},
		})
		config := file(t, "authentication.yaml", string(body))
		f := start(t, func(c *apiserver.Config) { c.Sources.ConfigFile = config })
		if got := f.learned(sign(claims(url))); got.Username != "idp:bob" {
			t.Errorf("%+v", got)
		}
		if got := f.whoami(f.client(""), bearer(sign(claims(url, "sub", "system:admin")))...); got.Username != "" {
			t.Errorf("a user that a rule forbids is %s", got.Username)
		}
		f.healthy()
		f.askAs(f.client(""), "GET /livez", "").ok(200)
		f.askAs(f.client(""), "GET /readyz", "").ok(401)
	})
}

func TestWrongAccessFilesAreNamed(t *testing.T) {
	for want, s := range map[string]authn.Sources{
		"token-auth-file":       {TokenFile: "/nowhere"},
		`unknown field "jwts"`:  {ConfigFile: file(t, "a.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwts: []\n")},
		"jwt[0].issuer.url":     {ConfigFile: file(t, "b.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: 'http://x', audiences: [a]}}]\n")},
		"oidc-client-id":        {OIDC: authn.OIDC{Issuer: "https://x.example"}},
		"exclude each other":    {OIDC: authn.OIDC{Issuer: "https://x.example"}, ConfigFile: "/x"},
		"webhook-config-file":   {WebhookConfig: "/nowhere"},
		"is not of the form":    {OIDC: authn.OIDC{Issuer: "https://x.example", ClientID: "a", UsernameClaim: "sub", RequiredClaims: []string{"x"}}},
		"AuthenticationConfigu": {ConfigFile: file(t, "c.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n")},
	} {
		if _, err := s.Open(ctx, "https://cluster.example", []string{"a"}, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestTokenWebhook(t *testing.T) {
	hook := kubeconfig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		if review.Spec.Token == "carol's" {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: review.Spec.Audiences,
				User: authenticationv1.UserInfo{Username: "carol", Extra: map[string]authenticationv1.ExtraValue{"floor": {"3"}}}}
		}
		_ = json.NewEncoder(w).Encode(&review)
	}))
	f := start(t, func(c *apiserver.Config) { c.Sources.WebhookConfig = hook })
	if got := f.whoami(f.client(""), bearer("carol's")...); got.Username != "carol" || got.Extra["floor"][0] != "3" {
		t.Errorf("%+v", got)
	}
	if got := f.whoami(f.client(""), bearer("dave's")...); got.Username != "" {
		t.Errorf("%+v", got)
	}
}

func TestFrontProxySpeaksForOthers(t *testing.T) {
	f := start(t)
	as := func(ca *pki.Authority, name string) *http.Client {
		c, err := ca.Issue(pki.Leaf{CommonName: name, Life: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return f.clientWith(*c)
	}
	headers := []string{"X-Remote-User", "erin", "X-Remote-Group", "dev", "X-Remote-Uid", "u-1", "X-Remote-Extra-Acme.com%2fteam", "a"}
	got := f.whoami(as(f.proxy, authn.FrontProxyName), headers...)
	if got.Username != "erin" || got.UID != "u-1" || !slices.Equal(got.Groups, []string{"dev", "system:authenticated"}) || len(got.Extra["acme.com/team"]) != 1 {
		t.Errorf("%+v", got)
	}
	if got := f.whoami(as(f.proxy, "somebody"), headers...); got.Username != "" {
		t.Errorf("another name of the same authority is %+v", got)
	}
	if got := f.whoami(as(f.ca, authn.FrontProxyName), headers...); got.Username != authn.FrontProxyName {
		t.Errorf("the same name of another authority is %+v", got)
	}
	if st := f.askAs(f.client(""), "GET /api", "", headers...).ok(403).status(); !strings.Contains(st.Message, "system:anonymous") {
		t.Errorf("headers alone: %s", st.Message)
	}
}

func TestAuthorizationWebhook(t *testing.T) {
	hook := kubeconfig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		switch a := review.Spec.ResourceAttributes; {
		case review.Spec.User == "mallory":
			review.Status = authorizationv1.SubjectAccessReviewStatus{Denied: true, Reason: "mallory may nothing"}
		case a != nil && a.Resource == "configmaps":
			review.Status.Allowed = true
		}
		_ = json.NewEncoder(w).Encode(&review)
	}))
	config := file(t, "authorization.yaml", fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: first
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %q}
    matchConditions: [{expression: "request.user != 'bypass'"}]
- {type: Node, name: node}
- {type: RBAC, name: rbac}
`, hook))
	f := start(t, func(c *apiserver.Config) {
		if err := c.Authorizer.Use(authz.Sources{ConfigFile: config}); err != nil {
			t.Fatal(err)
		}
	})
	f.askAs(f.client("alice"), "GET /api/v1/namespaces/default/configmaps", "").ok(200)
	f.askAs(f.client("alice"), "GET /api/v1/namespaces/default/secrets", "").ok(403)
	f.askAs(f.client("bypass"), "GET /api/v1/namespaces/default/configmaps", "").ok(403)
	f.askAs(f.client("alice"), "GET /version", "").ok(200)
	if st := f.askAs(f.client("mallory"), "GET /version", "").ok(403).status(); !strings.Contains(st.Message, "mallory may nothing") {
		t.Error(st.Message)
	}
	f.ask("GET /api/v1/namespaces/default/secrets", "").ok(200)
}
