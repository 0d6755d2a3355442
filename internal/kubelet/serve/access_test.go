package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// judge stands in for the API server: one token is a scraper's, which may get nodes/metrics of node-1, and nothing else is allowed.
type judge struct {
	crclient.Writer
	asked int
	down  bool
}

func (j *judge) Create(_ context.Context, obj crclient.Object, _ ...crclient.CreateOption) error {
	j.asked++
	if j.down {
		return errors.New("the server is away")
	}
	switch r := obj.(type) {
	case *authenticationv1.TokenReview:
		r.Status.Authenticated = r.Spec.Token == "good"
		r.Status.User = authenticationv1.UserInfo{Username: "system:serviceaccount:monitoring:prometheus"}
	case *authorizationv1.SubjectAccessReview:
		want := authorizationv1.ResourceAttributes{Verb: "get", Version: "v1", Resource: "nodes", Subresource: "metrics", Name: "node-1"}
		r.Status.Allowed = *r.Spec.ResourceAttributes == want && r.Spec.User == "system:serviceaccount:monitoring:prometheus" && r.Spec.Groups[0] == "system:authenticated"
	}
	return nil
}

func TestAccess(t *testing.T) {
	const scraper = "Forbidden (user=system:serviceaccount:monitoring:prometheus, verb="
	j := &judge{}
	s := New(Config{NodeName: "node-1", API: j, Metrics: prometheus.NewRegistry()})
	for _, tc := range []struct {
		name, method, path, token string
		owner                     *pkix.Name
		code                      int
		says                      string
	}{
		{"nobody", "GET", "/metrics", "", nil, 401, "Unauthorized"},
		{"a wrong token", "GET", "/metrics", "bad", nil, 401, "Unauthorized"},
		{"a scraper", "GET", "/metrics", "good", nil, 200, ""},
		{"a scraper that asks for more", "GET", "/pods", "good", nil, 403, scraper + "get, resource=nodes, subresource(s)=[pods proxy])"},
		{"a scraper that would run something", "GET", "/exec/a/b/c", "good", nil, 403, scraper + "create, resource=nodes, subresource(s)=[proxy])"},
		{"a scraper that posts", "POST", "/metrics", "good", nil, 403, scraper + "create, resource=nodes, subresource(s)=[metrics])"},
		{"somebody who would search logs", "GET", "/logs/search", "good", nil, 403, scraper + "get, resource=nodes, subresource(s)=[proxy])"},
		{"somebody who would read the host's", "GET", "/logs/syslog", "good", nil, 403, scraper + "get, resource=nodes, subresource(s)=[log])"},
		{"another node's certificate", "GET", "/healthz", "", &pkix.Name{CommonName: "system:node:node-2", Organization: []string{"system:nodes"}}, 403, "Forbidden (user=system:node:node-2"},
		{"the API server", "GET", "/healthz", "", &pkix.Name{CommonName: "kube-apiserver-kubelet-client"}, 200, "ok"},
		{"an administrator", "GET", "/healthz", "", &pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, 200, "ok"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if w := ask(s, tc.method, tc.path, tc.token, tc.owner); w.Code != tc.code || !strings.HasPrefix(w.Body.String(), tc.says) {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tc.code, tc.says)
			}
		})
	}
	asked := j.asked
	if w := ask(s, "GET", "/metrics", "good", nil); w.Code != 200 || j.asked != asked {
		t.Errorf("%d; the API server was asked again about what it has just said", w.Code)
	}
	j.down = true
	s.access.now = func() time.Time { return time.Now().Add(time.Hour) }
	if w := ask(s, "GET", "/metrics", "good", nil); w.Code != 401 {
		t.Errorf("%d for a token that nobody can vouch for any more", w.Code)
	}
	if w := ask(s, "GET", "/healthz", "", &pkix.Name{CommonName: "kube-apiserver-kubelet-client"}); w.Code != 200 {
		t.Errorf("%d for the API server's own client", w.Code)
	}
	if w := ask(s, "GET", "/healthz", "", &pkix.Name{CommonName: "eve"}); w.Code != 500 {
		t.Errorf("%d for somebody of whom nobody can say what is allowed", w.Code)
	}
}

func ask(s *Server, method, path, token string, owner *pkix.Name) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if owner != nil {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: *owner}}}}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}
