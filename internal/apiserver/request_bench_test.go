package apiserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/admission"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// BenchmarkRequest is what the server's filters, the registry and admission take for a request, without the network and without etcd.
func BenchmarkRequest(b *testing.B) {
	figures, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	admit, validate, err := admission.New(admission.Config{Metrics: figures})
	if err != nil {
		b.Fatal(err)
	}
	reg := registrytest.Start(b, admit, validate)
	a := authz.New(reg.Registry, log)
	registrytest.Run(b, a)
	ca, err := pki.OpenAuthority(b.TempDir(), "ca", "test-ca", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	private, public, err := pki.OpenTokenKey(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	var server http.Handler
	if _, err := apiserver.New(apiserver.Config{
		Registry: reg.Registry, Authorizer: a, Listener: listener, ClientCA: ca.Pool(), KubeletTLS: &tls.Config{}, Issuer: "https://test",
		TokenKeys: apiserver.TokenKeys{SigningPEM: private, VerifyPEM: [][]byte{public}}, Metrics: figures, Log: log, NoFairness: true,
		UI: func(api http.Handler, _ func(*http.Request) (user.Info, error)) http.Handler {
			server = api
			return api
		},
	}); err != nil {
		b.Fatal(err)
	}
	admin, err := ca.Issue(pki.Leaf{CommonName: "admin", Organizations: []string{"system:masters"}, Life: time.Hour}, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	ask := func(method, path, body string) int {
		r := httptest.NewRequest(method, "https://localhost"+path, strings.NewReader(body))
		r.TLS.PeerCertificates = []*x509.Certificate{admin.Leaf}
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		return w.Code
	}
	if code := ask("POST", configMaps, configMapText("a", "k", "v")); code != http.StatusCreated {
		b.Fatal(code)
	}
	for _, one := range []struct {
		name, method, path, body string
		code                     int
	}{
		{"get", "GET", configMaps + "/a", "", http.StatusOK},
		{"list", "GET", configMaps, "", http.StatusOK},
		{"create", "POST", configMaps + "?dryRun=All", configMapText("b", "k", "v"), http.StatusCreated},
	} {
		b.Run(one.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if code := ask(one.method, one.path, one.body); code != one.code {
					b.Fatal(code)
				}
			}
		})
	}
}
