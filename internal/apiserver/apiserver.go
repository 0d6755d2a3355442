// Package apiserver speaks HTTP: filters, verbs, discovery, OpenAPI, content negotiation, and the connections that go through to kubelets.
//
// It owns what is between a socket and a call of the registry: who asks (package authn), whether they may (package authz), what the path and the
// body mean, and how the answer is written. Its invariant: a request that reaches the registry has been authorized as what it is. It keeps no state
// of its own; objects are written from the store's shared encodings. Package host starts it.
package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/apiserver/usage"
	"skiff.dev/skiff/internal/registry"
)

// Config of a server.
type Config struct {
	Registry    *registry.Registry
	Authorizer  *authz.Authorizer
	Listener    net.Listener                                         // TCP, TLS is put on by the server
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error) // serving, reloadable
	ClientCA    *x509.CertPool
	KubeletTLS  *tls.Config // how the server presents itself to kubelets
	TokenKeys   TokenKeys
	Issuer      string // of service-account tokens: "https://kubernetes.default.svc.cluster.local"
	ExternalURL string
	Metrics     *prometheus.Registry
	Usage       *usage.Source // answers metrics.k8s.io; nil: nobody does
	Checks      []Check       // /readyz, /livez
	UI          UI            // answers /ui; nil: nobody does
	Log         *slog.Logger
}

// TokenKeys sign and verify service-account tokens.
type TokenKeys struct {
	SigningPEM []byte   // private key, PKCS#8 or PKCS#1/EC
	VerifyPEM  [][]byte // public keys, further ones for rotation
}

// UI makes what answers /ui and below. It authenticates its callers itself: api is the whole server, who its authentication.
type UI func(api http.Handler, who func(*http.Request) (user.Info, error)) http.Handler

// Check is one line of /readyz?verbose.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// Server serves the API until its context ends.
type Server struct {
	cfg      Config
	log      *slog.Logger
	authn    *authn.Authenticator
	authz    *authz.Authorizer
	reg      *registry.Registry
	requests *request.RequestInfoFactory
	plain    *http.ServeMux // what is not a resource: discovery, health, metrics
	ui       http.Handler   // may be nil
	kubelets *kubelets
	metrics  *metrics
	ready    chan struct{}
	stopping context.Context // ends when the server begins to stop: watches end then
	stop     context.CancelFunc
}

// New also registers the server's virtual resources (reviews, serviceaccounts/token) with the registry.
func New(cfg Config) (*Server, error) {
	a, err := authn.New(authn.Config{
		ClientCA: cfg.ClientCA, Signing: cfg.TokenKeys.SigningPEM, Verify: cfg.TokenKeys.VerifyPEM,
		Issuer: cfg.Issuer, Registry: cfg.Registry, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up authentication: %w", err)
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, reg: cfg.Registry, authn: a, authz: cfg.Authorizer,
		requests: &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")},
		metrics:  newMetrics(cfg.Metrics),
		ready:    make(chan struct{}),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.kubelets = newKubelets(cfg.Registry, cfg.KubeletTLS)
	for path, v := range a.Virtuals() {
		s.reg.Handle(path, v)
	}
	for path, v := range s.authz.Virtuals() {
		s.reg.Handle(path, v)
	}
	s.reg.HandleRead("componentstatuses", s.components)
	if cfg.Usage != nil {
		cfg.Usage.Through(s.kubelets.summary)
		for path, f := range cfg.Usage.Reads() {
			s.reg.HandleRead(path, f)
		}
	}
	s.plain = s.plainRoutes()
	if cfg.UI != nil {
		s.ui = cfg.UI(http.HandlerFunc(s.serve), a.Authenticate)
	}
	return s, nil
}

// Ready is closed once requests are answered.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// drainPatience is how long requests that are under way get when the server stops.
const drainPatience = 5 * time.Second

// Run serves until ctx ends, then drains: long requests get a bounded time, watches are closed politely.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           http.HandlerFunc(s.enter),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.cfg.Certificate, ClientAuth: tls.RequestClientCert},
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    1 << 20,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000},
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(s.cfg.Listener, "", "") }()
	close(s.ready)
	select {
	case err := <-failed:
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	s.stop()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainPatience)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
