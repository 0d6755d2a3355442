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
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"skiff.dev/skiff/internal/apiserver/aggregate"
	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/apiserver/configfile"
	"skiff.dev/skiff/internal/apiserver/fairness"
	"skiff.dev/skiff/internal/apiserver/http2"
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
	FrontProxy  *FrontProxy // nil: nobody speaks for others by header, and no API servers are behind this one
	Sources     authn.Sources
	Audit       *audit.Log // nil: nothing is recorded
	NoFairness  bool       // let every request through at once
	TokenKeys   TokenKeys
	Issuer      string // of service-account tokens: "https://kubernetes.default.svc.cluster.local"
	ExternalURL string
	Metrics     *prometheus.Registry
	Usage       *usage.Source // answers metrics.k8s.io; nil: nobody does
	Checks      []Check       // /readyz, /livez, and ComponentStatuses
	Steps       []Step        // likewise, of the start; the server adds its own
	UI          UI            // answers /ui; nil: nobody does
	Log         *slog.Logger
	// Stall is how long a client may be silent on its connection, or leave untaken what a watch has for it, before it is cut off; 0 is a minute.
	Stall time.Duration
	// Follow are further configuration files that are read again while the server runs.
	Follow []*configfile.Follower
	// Explain answers pods/explain with what is written as JSON; nil: no scheduler runs here.
	Explain func(ctx context.Context, namespace, name string) (any, error)
}

// FrontProxy is how this server presents itself to the API servers behind it, and who else may do so to this one.
type FrontProxy struct {
	Authority *x509.CertPool
	Client    func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
}

// TokenKeys sign and verify service-account tokens.
type TokenKeys struct {
	SigningPEM []byte   // private key, PKCS#8 or PKCS#1/EC
	VerifyPEM  [][]byte // public keys, further ones for rotation
}

// UI makes what answers /ui and below. It authenticates its callers itself: api is the whole server, who its authentication.
type UI func(api http.Handler, who func(*http.Request) (user.Info, error)) http.Handler

// Server serves the API until its context ends.
type Server struct {
	cfg      Config
	log      *slog.Logger
	authn    *authn.Authenticator
	external *authn.External
	authz    *authz.Authorizer
	reg      *registry.Registry
	requests *request.RequestInfoFactory
	plain    *http.ServeMux // what is not a resource: discovery, health, metrics
	ui       http.Handler   // may be nil
	kubelets *kubelets
	behind   *aggregate.Aggregator // API servers behind this one; nil without a front proxy
	fair     *fairness.Controller  // nil: every request goes through at once
	shapes   chan struct{}         // turns at putting big lists together
	lists    turns                 // at writing them
	metrics  *metrics
	flushes  pace
	remarked atomic.Int64 // when a warning about a client's certificate was last logged
	ready    chan struct{}
	stopping context.Context // ends when the server begins to stop: watches end then
	stop     context.CancelFunc
}

// New also registers the server's virtual resources (reviews, serviceaccounts/token) with the registry.
func New(cfg Config) (*Server, error) {
	if cfg.Stall == 0 {
		cfg.Stall = stall
	}
	stopping, stop := context.WithCancel(context.Background())
	external, err := cfg.Sources.Open(stopping, cfg.Issuer, []string{cfg.Issuer}, "")
	if err != nil {
		stop()
		return nil, err
	}
	var frontProxy *x509.CertPool
	if cfg.FrontProxy != nil {
		frontProxy = cfg.FrontProxy.Authority
	}
	a, err := authn.New(authn.Config{
		FrontProxy: frontProxy, External: external,
		ClientCA: cfg.ClientCA, Signing: cfg.TokenKeys.SigningPEM, Verify: cfg.TokenKeys.VerifyPEM,
		Issuer: cfg.Issuer, Registry: cfg.Registry, Log: cfg.Log,
	})
	if err != nil {
		stop()
		return nil, fmt.Errorf("set up authentication: %w", err)
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, reg: cfg.Registry, authn: a, external: external, authz: cfg.Authorizer,
		requests: &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")},
		metrics:  newMetrics(cfg.Metrics),
		shapes:   make(chan struct{}, bigLists),
		lists:    newTurns(),
		ready:    make(chan struct{}),
		stopping: stopping, stop: stop,
	}
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
	if cfg.FrontProxy != nil {
		s.behind = aggregate.New(aggregate.Config{Registry: cfg.Registry, Client: cfg.FrontProxy.Client, Local: s.localVersions, Log: cfg.Log})
	}
	if !cfg.NoFairness {
		s.fair = fairness.New(fairness.Config{Registry: cfg.Registry, Metrics: registererOf(cfg.Metrics), Log: cfg.Log})
	}
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(objects{cfg.Registry}, cfg.Authorizer.Figures())
	}
	s.plain = s.plainRoutes()
	if cfg.UI != nil {
		s.ui = cfg.UI(http.HandlerFunc(s.serve), a.Authenticate)
	}
	return s, nil
}

// Ready is closed once requests are answered.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// runBeside starts what the server needs beside it, and returns what ends it.
func (s *Server) runBeside(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	run := func(f func(context.Context) error) {
		running.Go(func() {
			if err := f(ctx); err != nil {
				s.log.Error("a part of the API server ended", "err", err)
			}
		})
	}
	if s.cfg.Audit != nil {
		run(s.cfg.Audit.Run)
	}
	if s.fair != nil {
		run(s.fair.Run)
	}
	figures := registererOf(s.cfg.Metrics)
	for _, f := range append([]*configfile.Follower{s.external.Follow(figures, s.log), s.authz.Follow(figures, s.log)}, s.cfg.Follow...) {
		if f != nil {
			run(f.Run)
		}
	}
	if s.behind != nil {
		run(s.behind.Run)
		<-s.behind.Ready()
	}
	return func() { cancel(); running.Wait() }
}

// Behind gets a document as u from whoever serves its path behind this server; served is false if nobody does.
func (s *Server) Behind(ctx context.Context, u user.Info, path string) (body []byte, served bool, err error) {
	r := s.behind.Of(path)
	if r == nil {
		return nil, false, nil
	}
	body, err = r.Get(ctx, u, path)
	return body, true, err
}

// registererOf keeps a nil registry from becoming an interface that isn't.
func registererOf(r *prometheus.Registry) prometheus.Registerer {
	if r == nil {
		return nil
	}
	return r
}

// ciphers of TLS 1.2: those that keep past connections secret and check what they carry. TLS 1.3 has no others.
var ciphers = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tls of the listener. Records are full from the start: growing ones halve the first bytes' latency on slow links, and cost a list or a batch of
// events several times as many writes.
func (s *Server) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, CipherSuites: ciphers, GetCertificate: s.cfg.Certificate, ClientAuth: tls.RequestClientCert,
		DynamicRecordSizingDisabled: true,
	}
}

// drainPatience is how long requests that are under way get when the server stops.
const drainPatience = 5 * time.Second

const (
	// headerPatience is how long a client may take to say what it wants.
	headerPatience = 30 * time.Second
	// stall is longer than client-go's pings are apart, so that its connections are never asked.
	stall = time.Minute
)

// Run serves until ctx ends, then drains: long requests get a bounded time, watches are closed politely.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           http.HandlerFunc(s.enter),
		TLSConfig:         s.tls(),
		ReadHeaderTimeout: min(headerPatience, s.cfg.Stall),
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	h2 := &http2.Server{
		MaxStreams: 1000, MaxHeaderBytes: 1 << 20, Idle: server.IdleTimeout, Stall: s.cfg.Stall, Patience: s.cfg.Stall / 4, Log: s.log,
	}
	defer s.runBeside(ctx)()
	failed := make(chan error, 1)
	go func() { failed <- h2.Serve(server, s.cfg.Listener) }()
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
