package dashboard

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// fixture is a dashboard before an API server that knows the token "good" and the certificate of "ann", and says what it was asked.
type fixture struct {
	*testing.T
	*dashboard
	http.Handler
	mu      sync.Mutex
	clock   time.Time
	revoked bool
	asked   chan *http.Request
}

func start(t *testing.T) *fixture {
	f := &fixture{T: t, clock: time.Now(), asked: make(chan *http.Request, 100)}
	who := func(r *http.Request) (user.Info, error) {
		switch {
		case f.revoked:
			return nil, errors.New("revoked")
		case r.Header.Get("Authorization") == "Bearer good":
			return &user.DefaultInfo{Name: "tom", Groups: []string{user.AllAuthenticated}}, nil
		case r.Header.Get("Authorization") != "":
			return nil, errors.New("unknown token")
		case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
			return &user.DefaultInfo{Name: r.TLS.PeerCertificates[0].Subject.CommonName}, nil
		}
		return &user.DefaultInfo{Name: user.Anonymous}, nil
	}
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked <- r
		u, err := who(r)
		if err != nil {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src *")
		w.Header().Set("Set-Cookie", "evil=1")
		fmt.Fprintln(w, u.GetName(), r.URL.RequestURI())
		if r.URL.Query().Has("watch") {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
	f.dashboard = &dashboard{Config: Config{Cluster: "test", API: api, Who: who, Log: slog.New(slog.DiscardHandler)}, now: func() time.Time {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.clock
	}}
	f.Handler = f.handler()
	return f
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock = f.clock.Add(d)
}

// ask sends "GET /ui/", with headers in pairs.
func (f *fixture) ask(request, body string, headers ...string) *httptest.ResponseRecorder {
	f.Helper()
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, "https://skiff.test:6443"+path, strings.NewReader(body))
	r.TLS = nil
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func (f *fixture) signIn(body string) (w *httptest.ResponseRecorder, headers []string) {
	f.Helper()
	w = f.ask("POST /ui/session", body, "Content-Type", "application/json", "Sec-Fetch-Site", "same-origin", "Origin", "https://skiff.test:6443")
	if w.Code != http.StatusCreated {
		return w, nil
	}
	var got signedIn
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Secret == "" {
		f.Fatalf("%v: %s", err, w.Body)
	}
	c := w.Result().Cookies()[0]
	return w, []string{"Cookie", c.Name + "=" + c.Value, secretHeader, got.Secret}
}

func TestSignInAndAct(t *testing.T) {
	f := start(t)
	w, session := f.signIn(`{"token":" Bearer good\n"}`)
	if session == nil {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	c := w.Result().Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/ui" || c.Name != "__Secure-skiff-6443" {
		t.Errorf("the cookie is %v", c)
	}
	w = f.ask("POST /ui/api/api/v1/namespaces/a%2Fb/pods?dryRun=All", "{}", append(session, "Impersonate-User", "root", "X-Remote-User", "root", "Authorization", "Bearer other")...)
	if w.Code != 200 || w.Body.String() != "tom /api/v1/namespaces/a%2Fb/pods?dryRun=All\n" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	r := <-f.asked
	for _, name := range []string{"Cookie", secretHeader, "Impersonate-User", "X-Remote-User"} {
		if r.Header.Get(name) != "" {
			t.Errorf("%s went on to the API", name)
		}
	}
	if h := w.Header(); h.Get("Set-Cookie") != "" || h.Get("Content-Security-Policy") != closedPolicy || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("what the API answers changes the headers: %v", h)
	}
	if w = f.ask("GET /ui/session", "", session...); w.Code != 200 || strings.Contains(w.Body.String(), `"secret"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	f.revoked = true
	if w = f.ask("GET /ui/api/version", "", session...); w.Code != 401 {
		t.Errorf("a revoked token still acts: %d", w.Code)
	}
}

func TestRefused(t *testing.T) {
	f := start(t)
	_, session := f.signIn(`{"token":"good"}`)
	cookie, secret := session[:2:2], session[2:]
	kept := []string{"Content-Type", "application/json"}
	for name, c := range map[string]struct {
		request, body string
		headers       []string
		code          int
		text          string
	}{
		"no session":             {"GET /ui/api/version", "", nil, 401, "sign in"},
		"a cookie alone":         {"GET /ui/api/version", "", cookie, 401, "sign in"},
		"a secret alone":         {"GET /ui/api/version", "", secret, 401, "sign in"},
		"another's secret":       {"GET /ui/api/version", "", append(cookie, secretHeader, "x"), 401, "sign in"},
		"another site's request": {"POST /ui/api/api/v1/pods", "{}", append(session, "Sec-Fetch-Site", "cross-site"), 403, "another site"},
		"another port's":         {"GET /ui/api/version", "", append(session, "Sec-Fetch-Site", "same-site"), 403, "another site"},
		"another origin":         {"GET /ui/api/version", "", append(session, "Origin", "https://skiff.test:30443"), 403, "another site"},
		"no origin at all":       {"GET /ui/api/version", "", append(session, "Origin", "null"), 403, "another site"},
		"a pod's page":           {"GET /ui/api/api/v1/namespaces/default/pods/p/proxy/x", "", session, 403, "does not pass pages"},
		"a node's page":          {"GET /ui/api/api/v1/nodes/n/proxy/stats/summary", "", session, 403, "does not pass pages"},
		"another port of a node": {"GET /ui/api/api/v1/nodes/n:8080/proxy/stats/history", "", session, 403, "does not pass pages"},
		"beyond the history":     {"GET /ui/api/api/v1/nodes/n/proxy/stats/history/x", "", session, 403, "does not pass pages"},
		"a service's page":       {"GET /ui/api/api/v1/namespaces/default/services/http:s:80/proxy", "", session, 403, "does not pass pages"},
		"a wrong token":          {"POST /ui/session", `{"token":"bad"}`, kept, 401, "does not know this credential"},
		"no token":               {"POST /ui/session", `{}`, kept, 400, "one word"},
		"two words":              {"POST /ui/session", `{"token":"a b"}`, kept, 400, "one word"},
		"a header in the token":  {"POST /ui/session", `{"token":"a\r\nX: y"}`, kept, 400, "one word"},
		"a form":                 {"POST /ui/session", `token=good`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 400, "application/json"},
		"no JSON":                {"POST /ui/session", `{`, kept, 400, "not the JSON"},
		"an unknown link":        {"POST /ui/session", `{"code":"abc"}`, kept, 401, "link has been used"},
		"a link for nobody":      {"POST /ui/link", "", nil, 401, "give a token"},
		"a link for a cookie":    {"POST /ui/link", "", session, 401, "give a token"},
		"nothing there":          {"GET /ui/none.js", "", nil, 404, ""},
		"out of the folder":      {"GET /ui/..%2fassets.go", "", nil, 404, ""},
		"the list of files":      {"GET /ui/sources", "", nil, 404, ""},
	} {
		w := f.ask(c.request, c.body, c.headers...)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if h := w.Header(); h.Get("X-Frame-Options") != "DENY" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") != closedPolicy {
			t.Errorf("%s: headers %v", name, h)
		}
		var st metav1.Status
		if c.code != 404 && (json.Unmarshal(w.Body.Bytes(), &st) != nil || st.Kind != "Status" || int(st.Code) != c.code) {
			t.Errorf("%s: not a status: %s", name, w.Body)
		}
	}
	if len(f.asked) != 0 {
		t.Error("the API was asked")
	}
}

func TestSessionsEnd(t *testing.T) {
	for name, end := range map[string]func(f *fixture, session []string){
		"idle":       func(f *fixture, _ []string) { f.pass(idleLife + time.Second) },
		"signed out": func(f *fixture, s []string) { f.ask("DELETE /ui/session", "", s...) },
		"another user": func(f *fixture, s []string) {
			f.ask("POST /ui/session", `{"token":"good"}`, append(s[:2], "Content-Type", "application/json")...)
		},
	} {
		f := start(t)
		_, session := f.signIn(`{"token":"good"}`)
		end(f, session)
		if w := f.ask("GET /ui/api/version", "", session...); w.Code != 401 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	f := start(t)
	_, session := f.signIn(`{"token":"good"}`)
	for range 13 {
		f.pass(55 * time.Minute)
		f.ask("GET /ui/session", "", session...)
	}
	if w := f.ask("GET /ui/api/version", "", session...); w.Code != 200 {
		t.Errorf("a session that is used ended early: %d", w.Code)
	}
	f.pass(time.Minute * 6)
	if w := f.ask("GET /ui/api/version", "", session...); w.Code != 401 {
		t.Errorf("a session lives longer than %v", sessionLife)
	}
}

// TestEndsWatches: what a session has open ends with it, also when its credential was revoked and the page asks who it is.
func TestEndsWatches(t *testing.T) {
	for name, end := range map[string]func(f *fixture, session []string){
		"signed out": func(f *fixture, session []string) { f.ask("DELETE /ui/session", "", session...) },
		"revoked": func(f *fixture, session []string) {
			f.revoked = true
			if w := f.ask("GET /ui/session", "", session...); w.Code != 401 {
				f.Errorf("whose token was revoked is told %d %s", w.Code, w.Body)
			}
		},
	} {
		f := start(t)
		_, session := f.signIn(`{"token":"good"}`)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.ask("GET /ui/api/api/v1/pods?watch=1", "", session...)
		}()
		<-f.asked
		f.pass(2 * time.Hour) // a page that is open is not idle
		if w := f.ask("GET /ui/session", "", session...); w.Code != 200 {
			t.Errorf("a session that watches counts as idle: %d", w.Code)
		}
		end(f, session)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatalf("%s: the watch goes on", name)
		}
	}
}

// TestUntil: a session lives no longer than its credential.
func TestUntil(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	jwt := func(claims string) credential {
		return credential{token: "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig"}
	}
	for _, tc := range []struct {
		c    credential
		want time.Time
	}{
		{credential{token: "static"}, now.Add(sessionLife)},
		{credential{token: "not.a.jwt"}, now.Add(sessionLife)},
		{jwt(fmt.Sprintf(`{"exp":%d}`, now.Add(time.Hour).Unix())), now.Add(time.Hour)},
		{jwt(fmt.Sprintf(`{"exp":%d}`, now.Add(24*time.Hour).Unix())), now.Add(sessionLife)},
		{jwt(`{"exp":"never"}`), now.Add(sessionLife)},
		{credential{chain: []*x509.Certificate{{NotAfter: now.Add(time.Minute)}}}, now.Add(time.Minute)},
	} {
		if _, _, until := newSessions(func() time.Time { return now }).begin(tc.c, &user.DefaultInfo{}); !until.Equal(tc.want) {
			t.Errorf("%+v: until %v, not %v", tc.c, until, tc.want)
		}
	}
}

func TestSessionsAreBounded(t *testing.T) {
	f := start(t)
	for range maxSessions + 10 {
		f.sessions.begin(credential{token: "good"}, &user.DefaultInfo{})
		f.pass(time.Second)
	}
	if n := len(f.sessions.all); n != maxSessions {
		t.Errorf("%d sessions are kept", n)
	}
	for range 3 * maxLinks {
		f.links.add(credential{token: "good"})
	}
	if n := len(f.links.all); n > maxLinks {
		t.Errorf("%d links are kept", n)
	}
}

func TestWebSocketSecret(t *testing.T) {
	f := start(t)
	_, session := f.signIn(`{"token":"good"}`)
	w := f.ask("GET /ui/api/api/v1/namespaces/a/pods/p/exec", "", "Cookie", session[1], "Upgrade", "websocket", "Origin", "https://skiff.test:6443",
		"Sec-WebSocket-Protocol", "v5.channel.k8s.io, "+secretProtocol+session[3])
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if p := (<-f.asked).Header.Get("Sec-WebSocket-Protocol"); p != "v5.channel.k8s.io" {
		t.Errorf("protocols %q went on", p)
	}
}

func TestLinks(t *testing.T) {
	f := start(t)
	link := func() string {
		w := f.ask("POST /ui/link", "", "Authorization", "Bearer good")
		var got Link
		if err := json.Unmarshal(w.Body.Bytes(), &got); w.Code != 201 || err != nil {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return strings.TrimPrefix(got.Path, "/ui/#/link/")
	}
	code := link()
	if w, session := f.signIn(`{"code":"` + code + `"}`); session == nil {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w, _ := f.signIn(`{"code":"` + code + `"}`); w.Code != 401 {
		t.Errorf("a link is good twice: %d", w.Code)
	}
	code = link()
	f.pass(linkLife)
	if w, _ := f.signIn(`{"code":"` + code + `"}`); w.Code != 401 {
		t.Errorf("an old link is good: %d", w.Code)
	}
}

// pair is a client certificate and its key, as PEM.
func pair(t *testing.T, name string) (cert, key []byte) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func TestKubeconfigs(t *testing.T) {
	cert, key := pair(t, "ann")
	_, otherKey := pair(t, "bob")
	for name, c := range map[string]struct {
		user clientcmdapi.AuthInfo
		want string // user's name, or what the error says
	}{
		"certificate":      {clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}, "ann"},
		"token":            {clientcmdapi.AuthInfo{Token: "good"}, "tom"},
		"another's key":    {clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: otherKey}, "private key does not match"},
		"certificate only": {clientcmdapi.AuthInfo{ClientCertificateData: cert}, "neither a token nor a client certificate"},
		"files":            {clientcmdapi.AuthInfo{ClientCertificate: "/etc/passwd", ClientKey: "/etc/shadow"}, "--flatten"},
		"token file":       {clientcmdapi.AuthInfo{TokenFile: "/etc/passwd"}, "--flatten"},
		"program":          {clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{Command: "/bin/false", APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: "Never"}}, "sign in with a token"},
		"nothing":          {clientcmdapi.AuthInfo{}, "neither a token"},
	} {
		raw, err := clientcmd.Write(clientcmdapi.Config{
			AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": &c.user}, Contexts: map[string]*clientcmdapi.Context{"c": {AuthInfo: "u"}}, CurrentContext: "c",
		})
		if err != nil {
			t.Fatal(err)
		}
		body, _ := json.Marshal(signInRequest{Kubeconfig: string(raw)})
		if w, _ := start(t).signIn(string(body)); !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	for _, text := range []string{"no: [yaml", "kind: Config\nusers: []\n", "\x00"} {
		body, _ := json.Marshal(signInRequest{Kubeconfig: text})
		if w, _ := start(t).signIn(string(body)); w.Code != 400 {
			t.Errorf("%q: %d %s", text, w.Code, w.Body)
		}
	}
}

func TestCertificateSessions(t *testing.T) {
	f := start(t)
	cert, key := pair(t, "ann")
	raw, err := clientcmd.Write(clientcmdapi.Config{AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {ClientCertificateData: cert, ClientKeyData: key}}})
	if err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(signInRequest{Kubeconfig: string(raw)})
	_, session := f.signIn(string(body))
	if w := f.ask("GET /ui/api/version", "", append(session, "Authorization", "Bearer good")...); w.Body.String() != "ann /version\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, s := range f.sessions.all {
		if bytes.Contains([]byte(fmt.Sprintf("%+v", s.credential)), key) {
			t.Error("the key is kept")
		}
	}
}

func TestServedOverHTTP(t *testing.T) {
	f := start(t)
	server := httptest.NewServer(f)
	defer server.Close()
	req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL+"/ui", nil)
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, _ := io.ReadAll(res.Body)
	if res.Request.URL.Path != "/ui/" || res.StatusCode != 200 || !bytes.Contains(page, []byte("<title>Skiff</title>")) {
		t.Errorf("%s %d %.200s", res.Request.URL, res.StatusCode, page)
	}
}
