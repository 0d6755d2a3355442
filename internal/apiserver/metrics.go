package apiserver

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// metrics go by upstream's names.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watches  *prometheus.GaugeVec
}

func newMetrics(r *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests by verb, resource and HTTP status.",
		}, []string{"verb", "group", "version", "resource", "subresource", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "How long requests took, watches and connections apart.",
			Buckets: []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"verb", "group", "resource"}),
		watches: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests", Help: "Watches that are open.",
		}, []string{"group", "resource"}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.duration, m.watches)
	}
	return m
}

func (m *metrics) observe(info *request.RequestInfo, rec *recorder, took time.Duration) {
	if info == nil {
		return
	}
	verb, group, version, resource, sub := info.Verb, info.APIGroup, info.APIVersion, info.Resource, info.Subresource
	if !info.IsResourceRequest {
		group, version, resource, sub = "", "", "", ""
	}
	if rec.code == 404 && resource != "" && sub == "" { // whoever asks for what isn't there must not make a series of it
		resource = "unknown"
	}
	m.requests.WithLabelValues(verb, group, version, resource, sub, strconv.Itoa(rec.code)).Inc()
	if verb != "watch" && verb != "connect" && sub == "" {
		m.duration.WithLabelValues(verb, group, resource).Observe(took.Seconds())
	}
}
