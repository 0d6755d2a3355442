package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/histogram"
)

const (
	late        = time.Minute      // changes that wait longer than this for the kernel make the node unhealthy
	listenAgain = 10 * time.Second // how often a port is tried that another program has
)

// removalTaint is on nodes that a cluster autoscaler is about to remove.
const removalTaint = "ToBeDeletedByClusterAutoscaler"

// proxyHealth is whether the table follows the API's changes, and whether load balancers outside should lead packets to this node. It answers by
// the names and in the form of upstream's proxy.
type proxyHealth struct {
	now func() time.Time

	mu       sync.Mutex
	waiting  time.Time // since when a change has not been taken up; zero: there is none
	writing  time.Time // since when those have waited that are being written
	written  time.Time // when the table last was as the API has it
	eligible bool      // nobody is about to remove the node

	registry      *prometheus.Registry
	took          *histogram.Histogram
	queued        prometheus.Gauge
	done          prometheus.Gauge
	healthz, live *prometheus.CounterVec
}

func newProxyHealth(now func() time.Time) *proxyHealth {
	h := &proxyHealth{now: now, eligible: true, registry: prometheus.NewRegistry()}
	h.took = histogram.New(prometheus.HistogramOpts{
		Name: "kubeproxy_sync_proxy_rules_duration_seconds", Help: "How long it took to write changes of services and policies into the kernel.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 17),
	})
	h.queued = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", Help: "When a change of services or policies was last learnt of.",
	})
	h.done = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds", Help: "When changes of services and policies were last written into the kernel.",
	})
	codes := func(name, path string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "Answers at " + path + " by their HTTP code."}, []string{"code"})
	}
	h.healthz, h.live = codes("kubeproxy_proxy_healthz_total", "/healthz"), codes("kubeproxy_proxy_livez_total", "/livez")
	h.registry.MustRegister(h.took, h.queued, h.done, h.healthz, h.live)
	return h
}

// changed: there is something to write.
func (h *proxyHealth) changed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if h.waiting.IsZero() {
		h.waiting = now
	}
	h.queued.Set(seconds(now))
}

// write does what writes all changes that are known by now.
func (h *proxyHealth) write(do func() error) error {
	h.mu.Lock()
	began := h.now()
	if h.writing, h.waiting = h.waiting, (time.Time{}); h.writing.IsZero() {
		h.writing = began
	}
	h.mu.Unlock()
	err := do()
	h.mu.Lock()
	defer h.mu.Unlock()
	since := h.writing
	h.writing = time.Time{}
	if err != nil {
		h.waiting = since // longer than what came meanwhile
		return err
	}
	h.written = h.now()
	h.took.Observe(h.written.Sub(began))
	h.done.Set(seconds(h.written))
	return nil
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// see this node as the API has it; nil: not any more.
func (h *proxyHealth) see(node *corev1.Node) {
	eligible := node != nil && node.DeletionTimestamp == nil
	for i := 0; eligible && i < len(node.Spec.Taints); i++ {
		eligible = node.Spec.Taints[i].Key != removalTaint
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.eligible = eligible
}

// current: what the API says is in the kernel, or has not waited for that for long.
func (h *proxyHealth) current() bool {
	current, _, _, _ := h.look()
	return current
}

// look says how things are. What is well counts as updated just now.
func (h *proxyHealth) look() (current, eligible bool, updated, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now = h.now()
	updated, current = h.written, true
	for _, since := range []time.Time{h.waiting, h.writing} {
		current = current && (since.IsZero() || now.Sub(since) < late)
	}
	return current, h.eligible, updated, now
}

// health answers load balancers at /healthz, and at /livez whoever restarts what does not live: that a node goes is no reason to.
func (h *proxyHealth) health() http.Handler {
	answer := func(w http.ResponseWriter, well bool, counter *prometheus.CounterVec, updated, now time.Time, more string) {
		code := http.StatusOK
		if well {
			updated = now
		} else {
			code = http.StatusServiceUnavailable
		}
		counter.WithLabelValues(strconv.Itoa(code)).Inc()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"lastUpdated": %q,"currentTime": %q%s}`, updated.Round(0).String(), now.Round(0).String(), more)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		current, eligible, updated, now := h.look()
		answer(w, current && eligible, h.healthz, updated, now, fmt.Sprintf(`, "nodeEligible": %v`, eligible))
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		current, _, updated, now := h.look()
		answer(w, current, h.live, updated, now, "")
	})
	return mux
}

// metrics answers whoever measures.
func (h *proxyHealth) metrics() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.registry, promhttp.HandlerOpts{}))
	say := func(path, text string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write([]byte(text))
		})
	}
	say("/healthz", "ok")
	say("/proxyMode", "nftables")
	return mux
}

// serve answers at an address until ctx ends. A port that another program has, such as a second cluster on this host, is no reason to stop:
// it is said once, and the port is taken when it is free.
func serve(ctx context.Context, key, addr string, handler http.Handler, again time.Duration, log *slog.Logger) error {
	if addr == "" {
		return nil
	}
	for told := false; ; told = true {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			log.Debug("the service proxy answers", "address", l.Addr().String(), "for", key)
			server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
			stop := context.AfterFunc(ctx, func() { _ = server.Close() })
			defer stop()
			if err = server.Serve(l); ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s: %w", key, err)
		}
		if !told {
			why := err.Error()
			if errors.Is(err, syscall.EADDRINUSE) {
				why = "another program has the port"
			}
			log.Warn("the service proxy cannot answer here, and tries again; another address can be given, or none", "setting", key, "address", addr, "why", why)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
	}
}
