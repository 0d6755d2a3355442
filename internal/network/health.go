package network

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"skiff.dev/skiff/internal/proxy"
)

// healthPorts answer load balancers: a service that keeps traffic on its node has a port at which each node says whether it has an endpoint.
type healthPorts struct {
	log     *slog.Logger
	current func() bool // the proxy follows what the API says

	mu   sync.Mutex
	open map[string]*healthPort // by part
}

type healthPort struct {
	server  *http.Server
	port    uint16
	current func() bool

	mu  sync.Mutex
	now proxy.Health
}

func newHealthPorts(current func() bool, log *slog.Logger) *healthPorts {
	return &healthPorts{log: log, current: current, open: map[string]*healthPort{}}
}

// set follows what changed parts say.
func (h *healthPorts) set(parts map[string]proxy.Part) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, part := range parts {
		p := h.open[name]
		if p != nil && (part.Health == nil || part.Health.Port != p.port) {
			_ = p.server.Close()
			delete(h.open, name)
			p = nil
		}
		if part.Health == nil {
			continue
		}
		if p == nil {
			if p = h.listen(part.Health); p == nil {
				continue
			}
			h.open[name] = p
		}
		p.mu.Lock()
		p.now = *part.Health
		p.mu.Unlock()
	}
}

func (h *healthPorts) listen(of *proxy.Health) *healthPort {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", of.Port))
	if err != nil {
		h.log.Error("load balancers cannot ask for a service's health on this node", "service", of.Namespace+"/"+of.Name, "port", of.Port, "err", err)
		return nil
	}
	p := &healthPort{port: of.Port, now: *of, current: h.current}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = p.server.Serve(l) }() // ends when it is closed
	return p
}

// ServeHTTP answers as upstream's proxy does.
func (p *healthPort) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	now := p.now
	p.mu.Unlock()
	current := p.current()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", fmt.Sprint(now.Local))
	if now.Local == 0 || !current {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"service":        map[string]string{"namespace": now.Namespace, "name": now.Name},
		"localEndpoints": now.Local, "serviceProxyHealthy": current,
	})
}

func (h *healthPorts) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.open {
		_ = p.server.Close()
	}
}
