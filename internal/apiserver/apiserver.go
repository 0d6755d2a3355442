// Package apiserver speaks HTTP: filters, verbs, discovery, OpenAPI, content negotiation, and the connections that go through to kubelets.
// SKELETON: signatures agreed with host.
package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"skiff.dev/skiff/internal/registry"
)

type Config struct {
	Registry    *registry.Registry
	Listener    net.Listener                                         // TCP, TLS is put on by the server
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error) // serving, reloadable
	ClientCA    *x509.CertPool
	KubeletTLS  *tls.Config // how the server presents itself to kubelets
	TokenKeys   TokenKeys
	Issuer      string // of service-account tokens: "https://kubernetes.default.svc.cluster.local"
	ExternalURL string
	Metrics     *prometheus.Registry
	Checks      []Check // /readyz, /livez
	Log         *slog.Logger
}

// TokenKeys sign and verify service-account tokens.
type TokenKeys struct {
	SigningPEM []byte   // private key, PKCS#8 or PKCS#1/EC
	VerifyPEM  [][]byte // public keys, further ones for rotation
}

// Check is one line of /readyz?verbose.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

type Server struct{}

// New also registers the server's virtual resources (reviews, serviceaccounts/token) with the registry.
func New(cfg Config) (*Server, error) { panic("skeleton") }

// Run serves until ctx ends, then drains: long requests get a bounded time, watches are closed politely.
func (s *Server) Run(ctx context.Context) error { panic("skeleton") }
func (s *Server) Ready() <-chan struct{}        { panic("skeleton") }
