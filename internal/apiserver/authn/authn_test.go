package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
)

const issuer = "https://kubernetes.default.svc.cluster.local"

func keyPair(t testing.TB, key crypto.Signer) (private, public []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthenticator(t testing.TB, r *registrytest.Registry, change ...func(*Config)) *Authenticator {
	t.Helper()
	private, public := keyPair(t, ecKey(t))
	cfg := Config{Signing: private, Verify: [][]byte{public}, Issuer: issuer, Log: slog.New(slog.DiscardHandler)}
	if r != nil {
		cfg.Registry = r.Registry
	}
	for _, f := range change {
		f(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func withToken(token string) *http.Request {
	return &http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}
}

func TestAnonymous(t *testing.T) {
	u, err := newAuthenticator(t, nil).Authenticate(&http.Request{Header: http.Header{}})
	if err != nil || u.GetName() != "system:anonymous" || !slices.Equal(u.GetGroups(), []string{"system:unauthenticated"}) {
		t.Errorf("%v, %v", u, err)
	}
}

// authority signs test certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	ca := &authority{t: t, key: ecKey(t)}
	ca.cert = ca.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, ca.key)
	return ca
}

func (ca *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	}
	parent := ca.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

func (ca *authority) client(name string, change ...func(*x509.Certificate)) *http.Request {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: []string{"devs"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, f := range change {
		f(c)
	}
	cert := ca.sign(c, ecKey(ca.t))
	return &http.Request{Header: http.Header{}, TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}}
}

func TestCertificates(t *testing.T) {
	ca := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	a := newAuthenticator(t, nil, func(c *Config) { c.ClientCA = pool })
	for name, c := range map[string]struct {
		req *http.Request
		ok  bool
	}{
		"good":       {ca.client("ann"), true},
		"another's":  {newAuthority(t).client("ann"), false},
		"a server's": {ca.client("ann", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), false},
		"expired": {ca.client("ann", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
		}), false},
		"without any name": {ca.client(""), false},
	} {
		for range 2 { // the second answer comes from memory
			u, err := a.Authenticate(c.req)
			if (err == nil) != c.ok {
				t.Errorf("%s: %v, %v", name, u, err)
			}
			if c.ok && (u.GetName() != "ann" || !slices.Equal(u.GetGroups(), []string{"devs", "system:authenticated"}) ||
				!strings.HasPrefix(u.GetExtra()["authentication.kubernetes.io/credential-id"][0], "X509SHA256=")) {
				t.Errorf("%s: %v", name, u)
			}
		}
	}
	// What was good once is not good for ever.
	req := ca.client("bob")
	if _, err := a.Authenticate(req); err != nil {
		t.Fatal(err)
	}
	a.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if _, err := a.Authenticate(req); err == nil {
		t.Error("an expired certificate is still taken from memory")
	}
}

// issue asks for a token through the registry, as clients do.
func issue(r *registrytest.Registry, account string, spec authenticationv1.TokenRequestSpec) (*authenticationv1.TokenRequest, error) {
	res, err := r.Registry.Create(context.Background(), r.Request(registrytest.Admin, "", "serviceaccounts", "token", "default", account),
		&authenticationv1.TokenRequest{Spec: spec}, &metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return res.Object.(*authenticationv1.TokenRequest), nil
}

func startIssuer(t *testing.T) (*registrytest.Registry, *Authenticator) {
	r := registrytest.Start(t, nil, nil)
	a := newAuthenticator(t, r)
	for path, v := range a.Virtuals() {
		r.Handle(path, v)
	}
	r.Must(registrytest.Account("worker"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}},
		registrytest.Pod("p", func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Spec.NodeName = "worker", "one" }))
	return r, a
}

func podRef(name string) *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name}
}

func TestTokens(t *testing.T) {
	r, a := startIssuer(t)
	plain, err := issue(r, "worker", authenticationv1.TokenRequestSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if *plain.Spec.ExpirationSeconds != 3600 || !slices.Equal(plain.Spec.Audiences, []string{issuer}) ||
		plain.Status.ExpirationTimestamp.Sub(plain.CreationTimestamp.Time) != time.Hour {
		t.Errorf("defaults: %+v", plain)
	}
	u, err := a.Authenticate(withToken(plain.Status.Token))
	if err != nil {
		t.Fatal(err)
	}
	if u.GetName() != "system:serviceaccount:default:worker" || u.GetUID() == "" ||
		!slices.Equal(u.GetGroups(), []string{"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"}) {
		t.Errorf("user %v", u)
	}
	hour := int64(podSeconds)
	bound, err := issue(r, "worker", authenticationv1.TokenRequestSpec{BoundObjectRef: podRef("p"), ExpirationSeconds: &hour})
	if err != nil {
		t.Fatal(err)
	}
	u, err = a.Authenticate(withToken(bound.Status.Token))
	if err != nil {
		t.Fatal(err)
	}
	extra := u.GetExtra()
	for k, want := range map[string]string{"pod-name": "p", "node-name": "one", "credential-id": "JTI="} {
		if v := extra["authentication.kubernetes.io/"+k]; len(v) != 1 || !strings.HasPrefix(v[0], want) {
			t.Errorf("%s: %v", k, v)
		}
	}
	if life := a.lifeOf(t, bound.Status.Token); life != extendedLife || bound.Status.ExpirationTimestamp.Sub(bound.CreationTimestamp.Time) != podSeconds*time.Second {
		t.Errorf("a pod's token lives %v and says %v", life, bound.Status.ExpirationTimestamp)
	}

	// Elsewhere-bound, changed and late tokens are refused.
	vault, err := issue(r, "worker", authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}})
	if err != nil {
		t.Fatal(err)
	}
	other := newAuthenticator(t, r)
	for name, c := range map[string]struct {
		a     *Authenticator
		token string
	}{
		"another audience": {a, vault.Status.Token}, "another key": {other, plain.Status.Token}, "rubbish": {a, "x.y.z"},
		"unsigned": {a, unsigned(plain.Status.Token)}, "changed": {a, plain.Status.Token[:len(plain.Status.Token)-6] + "AAAAAA"},
	} {
		if u, err := c.a.Authenticate(withToken(c.token)); err == nil {
			t.Errorf("%s: taken as %v", name, u)
		}
	}
	a.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if _, err := a.Authenticate(withToken(plain.Status.Token)); err == nil {
		t.Error("an expired token is taken")
	}
	a.now = time.Now

	// A token dies with its pod, and with its account.
	if err := r.Delete(registrytest.Admin, registrytest.Pod("p")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(withToken(bound.Status.Token)); err == nil {
		t.Error("the token outlives its pod")
	}
	if err := r.Delete(registrytest.Admin, registrytest.Account("worker")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(withToken(plain.Status.Token)); err == nil {
		t.Error("the token outlives its account")
	}
	r.Must(registrytest.Account("worker"))
	if _, err := a.Authenticate(withToken(plain.Status.Token)); err == nil {
		t.Error("the token is good for another account of the same name")
	}
}

func (a *Authenticator) lifeOf(t *testing.T, token string) time.Duration {
	t.Helper()
	c, err := a.parse(token)
	if err != nil {
		t.Fatal(err)
	}
	return c.Expiry.Time().Sub(c.IssuedAt.Time())
}

func unsigned(token string) string {
	parts := strings.Split(token, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
}

func TestTokenRequestsRefused(t *testing.T) {
	r, _ := startIssuer(t)
	r.Must(registrytest.Account("other"))
	short, long := int64(599), int64(1)<<32+1
	deployment := &authenticationv1.BoundObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}
	elder := podRef("p")
	elder.UID = "x"
	for name, c := range map[string]struct {
		account string
		spec    authenticationv1.TokenRequestSpec
		code    int32
		text    string
	}{
		"short":        {"worker", authenticationv1.TokenRequestSpec{ExpirationSeconds: &short}, 422, "may not specify a duration less than 10 minutes"},
		"long":         {"worker", authenticationv1.TokenRequestSpec{ExpirationSeconds: &long}, 422, "may not specify a duration larger than 2^32 seconds"},
		"no account":   {"missing", authenticationv1.TokenRequestSpec{}, 404, `serviceaccounts "missing" not found`},
		"no pod":       {"worker", authenticationv1.TokenRequestSpec{BoundObjectRef: podRef("gone")}, 404, `pods "gone" not found`},
		"another's":    {"other", authenticationv1.TokenRequestSpec{BoundObjectRef: podRef("p")}, 400, "cannot bind token for serviceaccount"},
		"another kind": {"worker", authenticationv1.TokenRequestSpec{BoundObjectRef: deployment}, 400, "cannot bind token to object of type apps/v1, Kind=Deployment"},
		"another uid":  {"worker", authenticationv1.TokenRequestSpec{BoundObjectRef: elder}, 409, "does not match the UID in record"},
	} {
		_, err := issue(r, c.account, c.spec)
		status, ok := err.(apierrors.APIStatus)
		if !ok || status.Status().Code != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReviews(t *testing.T) {
	r, _ := startIssuer(t)
	tr, err := issue(r, "worker", authenticationv1.TokenRequestSpec{Audiences: []string{"vault", issuer}})
	if err != nil {
		t.Fatal(err)
	}
	review := func(u user.Info, plural string, obj api.Object) (api.Object, error) {
		res, err := r.Registry.Create(context.Background(), r.Request(u, authenticationv1.GroupName, plural, "", "", ""), obj, &metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		return res.Object.(api.Object), nil
	}
	for name, c := range map[string]struct {
		spec authenticationv1.TokenReviewSpec
		ok   bool
		aud  []string
	}{
		"ours":    {authenticationv1.TokenReviewSpec{Token: tr.Status.Token}, true, []string{issuer}},
		"vault's": {authenticationv1.TokenReviewSpec{Token: tr.Status.Token, Audiences: []string{"vault", "x"}}, true, []string{"vault"}},
		"other's": {authenticationv1.TokenReviewSpec{Token: tr.Status.Token, Audiences: []string{"x"}}, false, nil},
		"rubbish": {authenticationv1.TokenReviewSpec{Token: "x"}, false, nil},
	} {
		obj, err := review(registrytest.Admin, "tokenreviews", &authenticationv1.TokenReview{Spec: c.spec})
		if err != nil {
			t.Fatal(err)
		}
		s := obj.(*authenticationv1.TokenReview).Status
		if s.Authenticated != c.ok || !slices.Equal(s.Audiences, c.aud) || (s.Error == "") != c.ok || c.ok && s.User.Username != "system:serviceaccount:default:worker" {
			t.Errorf("%s: %+v", name, s)
		}
	}
	obj, err := review(&user.DefaultInfo{Name: "ann", Groups: []string{"devs"}}, "selfsubjectreviews", &authenticationv1.SelfSubjectReview{})
	if err != nil || obj.(*authenticationv1.SelfSubjectReview).Status.UserInfo.Username != "ann" {
		t.Errorf("%v, %v", obj, err)
	}
}

func TestImpersonation(t *testing.T) {
	var asked []string
	may := authorizer.AuthorizerFunc(func(_ context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
		if strings.HasPrefix(at.GetVerb(), "impersonate-on:") {
			return authorizer.DecisionNoOpinion, "", nil
		}
		asked = append(asked, at.GetVerb()+" "+at.GetAPIGroup()+":"+at.GetResource()+"/"+at.GetSubresource()+" "+at.GetNamespace()+"/"+at.GetName())
		if at.GetName() == "forbidden" {
			return authorizer.DecisionNoOpinion, "", nil
		}
		return authorizer.DecisionAllow, "", nil
	})
	me := &user.DefaultInfo{Name: "me"}
	for name, c := range map[string]struct {
		header http.Header
		who    string // name, then groups; "" = refused
		asked  []string
	}{
		"nobody": {http.Header{}, "me", nil},
		"a user": {http.Header{"Impersonate-User": {"ann"}}, "ann system:authenticated", []string{"impersonate :users/ /ann"}},
		"all of it": {
			http.Header{"Impersonate-User": {"ann"}, "Impersonate-Group": {"a", "b"}, "Impersonate-Uid": {"7"}, "Impersonate-Extra-Example.org%2fscope": {"x"}},
			"ann a b system:authenticated",
			[]string{"impersonate :users/ /ann", "impersonate authentication.k8s.io:uids/ /7", "impersonate :groups/ /a", "impersonate :groups/ /b",
				"impersonate authentication.k8s.io:userextras/example.org/scope /x"},
		},
		"an account": {http.Header{"Impersonate-User": {"system:serviceaccount:ns:sa"}},
			"system:serviceaccount:ns:sa system:serviceaccounts system:serviceaccounts:ns system:authenticated", []string{"impersonate :serviceaccounts/ ns/sa"}},
		"not allowed":       {http.Header{"Impersonate-User": {"ann"}, "Impersonate-Group": {"forbidden"}}, "", []string{"impersonate :users/ /ann", "impersonate :groups/ /forbidden"}},
		"a group by itself": {http.Header{"Impersonate-Group": {"a"}}, "", nil},
	} {
		asked = nil
		req := &http.Request{Header: c.header}
		u, constraint, err := Impersonate(context.Background(), req, &authorizer.AttributesRecord{User: me, Verb: "get", Resource: "pods", ResourceRequest: true}, may)
		got := ""
		if err == nil {
			got = strings.Join(append([]string{u.GetName()}, u.GetGroups()...), " ")
			for h := range req.Header {
				t.Errorf("%s: header %s is left", name, h)
			}
		}
		if got != c.who || !slices.Equal(asked, c.asked) || constraint != "" {
			t.Errorf("%s: %q %q, %v, asked %v", name, got, constraint, err, asked)
		}
	}
}

// Impersonation may be granted for some users and some requests only (KEP-5284).
func TestConstrainedImpersonation(t *testing.T) {
	agent := &user.DefaultInfo{Name: "system:serviceaccount:ns:agent", Extra: map[string][]string{serviceaccount.NodeNameKey: {"one"}}}
	const (
		onNode    = "impersonate-on:associated-node:list :pods/ ns/"
		asNode    = "impersonate:associated-node authentication.k8s.io:nodes/ /*"
		onAnyNode = "impersonate-on:arbitrary-node:list :pods/ ns/"
		onAccount = "impersonate-on:serviceaccount:list :pods/ ns/"
		onUser    = "impersonate-on:user-info:list :pods/ ns/"
		asAnn     = "impersonate:user-info authentication.k8s.io:users/ /ann"
	)
	named := func(name string, more ...string) http.Header {
		h := http.Header{"Impersonate-User": {name}}
		for i := 0; i+1 < len(more); i += 2 {
			h.Add(more[i], more[i+1])
		}
		return h
	}
	for name, c := range map[string]struct {
		header  http.Header
		allowed []string
		who     string // name, then groups; "": refused
		by      string // or why it is refused
	}{
		"its own node":        {named("system:node:one"), []string{onNode, asNode}, "system:node:one system:nodes system:authenticated", "impersonate:associated-node"},
		"another node":        {named("system:node:two"), []string{onNode, asNode}, "", `cannot impersonate-on:arbitrary-node:list resource "pods"`},
		"its node, else":      {named("system:node:one"), []string{asNode}, "", `cannot impersonate-on:associated-node:list resource "pods"`},
		"its node, with more": {named("system:node:one", "Impersonate-Group", "g"), []string{onNode, asNode}, "", `cannot impersonate resource "users"`},
		"any node": {named("system:node:two"), []string{onAnyNode, "impersonate:arbitrary-node authentication.k8s.io:nodes/ /two"},
			"system:node:two system:nodes system:authenticated", "impersonate:arbitrary-node"},
		"no name of a node": {named("system:node:Two_"), []string{onAnyNode, "impersonate:arbitrary-node authentication.k8s.io:nodes/ /Two_"}, "", "cannot impersonate-on:user-info:list"},
		"an account": {named("system:serviceaccount:x:y"), []string{onAccount, "impersonate:serviceaccount authentication.k8s.io:serviceaccounts/ x/y"},
			"system:serviceaccount:x:y system:serviceaccounts system:serviceaccounts:x system:authenticated", "impersonate:serviceaccount"},
		"a user": {named("ann"), []string{onUser, asAnn}, "ann system:authenticated", "impersonate:user-info"},
		"a user with all": {named("ann", "Impersonate-Group", "g", "Impersonate-Uid", "7", "Impersonate-Extra-Example.org%2fk", "v"),
			[]string{onUser, asAnn, "impersonate:user-info authentication.k8s.io:groups/ /g", "impersonate:user-info authentication.k8s.io:uids/ /7",
				"impersonate:user-info authentication.k8s.io:userextras/example.org/k /v"}, "ann g system:authenticated", "impersonate:user-info"},
		"a user without the request": {named("ann"), []string{asAnn}, "", "cannot impersonate-on:user-info:list"},
		"a user without the group":   {named("ann", "Impersonate-Group", "g"), []string{onUser, asAnn}, "", `cannot impersonate:user-info resource "groups"`},
		"masters": {named("ann", "Impersonate-Group", "system:masters"), []string{onUser, asAnn, "impersonate:user-info authentication.k8s.io:groups/ /system:masters"},
			"", "impersonating the system:masters group is not allowed"},
		"an empty group": {named("ann", "Impersonate-Group", ""), []string{onUser, asAnn, "impersonate:user-info authentication.k8s.io:groups/ /"},
			"", "impersonating the empty string group is not allowed"},
		"a wrong key": {named("ann", "Impersonate-Extra-K", "v"), []string{onUser, asAnn, "impersonate:user-info authentication.k8s.io:userextras/k /v"},
			"", "impersonating an invalid key in extra is not allowed"},
		"as of old": {named("ann"), []string{"impersonate :users/ /ann"}, "ann system:authenticated", ""},
	} {
		t.Run(name, func(t *testing.T) {
			may := authorizer.AuthorizerFunc(func(_ context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
				asked := at.GetVerb() + " " + at.GetAPIGroup() + ":" + at.GetResource() + "/" + at.GetSubresource() + " " + at.GetNamespace() + "/" + at.GetName()
				if at.GetUser() == user.Info(agent) && slices.Contains(c.allowed, asked) {
					return authorizer.DecisionAllow, "", nil
				}
				return authorizer.DecisionNoOpinion, "", nil
			})
			at := &authorizer.AttributesRecord{User: agent, Verb: "list", APIVersion: "v1", Resource: "pods", Namespace: "ns", ResourceRequest: true}
			u, by, err := Impersonate(t.Context(), &http.Request{Header: c.header}, at, may)
			if c.who == "" {
				if err == nil || !strings.Contains(err.Error(), c.by) {
					t.Errorf("%v, want a refusal: %s", err, c.by)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(append([]string{u.GetName()}, u.GetGroups()...), " "); got != c.who || by != c.by {
				t.Errorf("%q by %q", got, by)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private, public := keyPair(t, rsaKey)
	_, older := keyPair(t, ecKey(t))
	a := newAuthenticator(t, nil, func(c *Config) { c.Signing, c.Verify = private, [][]byte{public, older} })
	raw, err := a.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Keys) != 2 || set.Keys[0]["kty"] != "RSA" || set.Keys[1]["alg"] != "ES256" || set.Keys[0]["d"] != "" {
		t.Errorf("%s, %v", raw, err)
	}
	raw, err = a.Discovery("https://10.0.0.1:6443")
	if err != nil || !strings.Contains(string(raw), `"jwks_uri":"https://10.0.0.1:6443/openid/v1/jwks"`) || !strings.Contains(string(raw), `["ES256","RS256"]`) {
		t.Errorf("%s, %v", raw, err)
	}
	if _, err := New(Config{Signing: []byte("rubbish")}); err == nil {
		t.Error("rubbish is taken for a key")
	}
}

func TestWebSocketToken(t *testing.T) {
	encoded := protocolPrefix + base64.RawURLEncoding.EncodeToString([]byte("secret"))
	for name, c := range map[string]struct{ offered, token, left string }{
		"with a protocol": {encoded + ", v5.channel.k8s.io", "secret", "v5.channel.k8s.io"},
		"alone":           {encoded, "", encoded},
		"without":         {"v5.channel.k8s.io", "", "v5.channel.k8s.io"},
	} {
		req := &http.Request{Header: http.Header{"Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {c.offered}}}
		if got := bearer(req); got != c.token || req.Header.Get("Sec-WebSocket-Protocol") != c.left {
			t.Errorf("%s: %q, left %q", name, got, req.Header.Get("Sec-WebSocket-Protocol"))
		}
	}
}

func BenchmarkToken(b *testing.B) {
	r := registrytest.Start(b, nil, nil)
	a := newAuthenticator(b, r)
	r.Must(registrytest.Account("worker"))
	obj, err := a.Token(context.Background(), r.Request(registrytest.Admin, "", "serviceaccounts", "token", "default", "worker"), &authenticationv1.TokenRequest{}, false)
	if err != nil {
		b.Fatal(err)
	}
	req := withToken(obj.(*authenticationv1.TokenRequest).Status.Token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(req); err != nil {
			b.Fatal(err)
		}
	}
}
