package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"
)

// Bounds of a request's way to a pod. How long an answer may take once it has begun is not bounded: it may be a stream.
const (
	dialTimeout   = 3 * time.Second
	headerTimeout = time.Minute // until the pod begins to answer
	idleTimeout   = 90 * time.Second
	mostAttempts  = 3
)

// Handler carries requests to the pods that the table in force names.
type Handler struct {
	table func() *Table
	log   *slog.Logger
	http1 *http.Transport
	h2c   *http.Transport
}

// NewHandler returns a Handler that asks for the table with each request.
func NewHandler(table func() *Table, log *slog.Logger) *Handler {
	return &Handler{table: table, log: log, http1: newTransport(false), h2c: newTransport(true)}
}

func newTransport(h2c bool) *http.Transport {
	t := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConns:          1024,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: headerTimeout,
		DisableCompression:    true, // what the client and the pod agree on goes through as it is
		Protocols:             &http.Protocols{},
	}
	t.Protocols.SetHTTP1(!h2c)
	t.Protocols.SetUnencryptedHTTP2(h2c)
	return t
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, name := h.table(), Hostname(r.Host)
	route, routed := t.Find(name, r.URL.Path)
	switch {
	case route == nil && routed:
		refuse(w, http.StatusNotFound, fmt.Sprintf("no Ingress has a path for %q on the host %q", r.URL.Path, name))
	case route == nil:
		refuse(w, http.StatusNotFound, fmt.Sprintf("no Ingress of a class served here has a rule for the host %q", name))
	case route.Redirect && r.TLS == nil && t.Certificate(name) != nil:
		http.Redirect(w, r, "https://"+name+r.URL.RequestURI(), http.StatusPermanentRedirect)
	case len(route.Backend.Endpoints) == 0:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, route.Backend.Problem)
	default:
		h.carry(w, r, route.Backend)
	}
}

func (h *Handler) carry(w http.ResponseWriter, r *http.Request, b *Backend) {
	transport := h.http1
	if b.H2C {
		transport = h.h2c
	}
	proxy := httputil.ReverseProxy{
		Transport: attempts{b, transport},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", b.Name
			p.Out.URL.RawQuery = p.In.URL.RawQuery // also what Go cannot parse
			p.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { h.failed(w, r, b, err) },
		ErrorLog:     slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
}

// failed answers in the place of a pod that did not.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, b *Backend, err error) {
	if r.Context().Err() != nil {
		w.WriteHeader(http.StatusBadGateway) // nobody hears it
		return
	}
	h.log.Warn("a request failed", "service", b.Name, "host", r.Host, "path", r.URL.Path, "err", err)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		refuse(w, http.StatusGatewayTimeout, fmt.Sprintf("the service %s took too long to answer", b.Name))
		return
	}
	refuse(w, http.StatusBadGateway, fmt.Sprintf("the service %s broke off the connection or refused it", b.Name))
}

func refuse(w http.ResponseWriter, code int, why string) {
	http.Error(w, fmt.Sprintf("%d %s: %s", code, http.StatusText(code), why), code)
}

// attempts sends a request to the endpoint whose turn it is, and to the next if that cannot be reached: nothing was sent then.
type attempts struct {
	backend   *Backend
	transport http.RoundTripper
}

func (a attempts) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	for range min(mostAttempts, len(a.backend.Endpoints)) {
		try := r.WithContext(r.Context())
		at := *r.URL
		at.Host = a.backend.Next()
		try.URL = &at
		if r.Body != nil && r.Body != http.NoBody {
			try.Body = io.NopCloser(r.Body) // ReverseProxy closes it in the end
		}
		resp, err = a.transport.RoundTrip(try)
		var op *net.OpError
		if err == nil || !errors.As(err, &op) || op.Op != "dial" || r.Context().Err() != nil {
			break
		}
	}
	return resp, err
}
