package apiserver

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"skiff.dev/skiff/internal/histogram"
	"skiff.dev/skiff/internal/registry"
)

// metrics go by upstream's names.
type metrics struct {
	requests         *prometheus.CounterVec
	duration         *histogram.Vec
	watches          *prometheus.GaugeVec
	events           *prometheus.CounterVec
	reading, writing prometheus.Gauge
	signedIn, notSignedIn,
	allowed, denied, noOpinion prometheus.Counter
}

func newMetrics(r *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests by verb, resource and HTTP status.",
		}, []string{"verb", "group", "version", "resource", "subresource", "code"}),
		duration: histogram.NewVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "How long requests took, watches and connections apart.",
			Buckets: []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"verb", "group", "resource"}),
		watches: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests", Help: "Watches that are open.",
		}, []string{"group", "resource"}),
	}
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_watch_events_total", Help: "Events that were sent to watchers."},
		[]string{"group", "version", "resource"})
	inFlight := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "apiserver_current_inflight_requests", Help: "Requests being answered, watches and connections apart."},
		[]string{"request_kind"})
	m.reading, m.writing = inFlight.WithLabelValues("readOnly"), inFlight.WithLabelValues("mutating")
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authentication_attempts", Help: "Requests by whether their credentials were right."}, []string{"result"})
	m.signedIn, m.notSignedIn = attempts.WithLabelValues("success"), attempts.WithLabelValues("error")
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_authorization_decisions_total", Help: "Requests by whether they were allowed."}, []string{"decision"})
	m.allowed, m.denied, m.noOpinion = decisions.WithLabelValues("allowed"), decisions.WithLabelValues("denied"), decisions.WithLabelValues("no-opinion")
	if r != nil {
		r.MustRegister(m.requests, m.duration, m.watches, m.events, inFlight, attempts, decisions)
	}
	return m
}

func (m *metrics) authenticated(err error) {
	if err != nil {
		m.notSignedIn.Inc()
		return
	}
	m.signedIn.Inc()
}

func (m *metrics) authorized(d authorizer.Decision) {
	switch d {
	case authorizer.DecisionAllow:
		m.allowed.Inc()
	case authorizer.DecisionDeny:
		m.denied.Inc()
	default:
		m.noOpinion.Inc()
	}
}

// inFlight counts a request until done is called.
func (m *metrics) inFlight(info *request.RequestInfo) (done func()) {
	gauge := m.reading
	switch info.Verb {
	case "create", "update", "patch", "delete", "deletecollection", "post", "put":
		gauge = m.writing
	}
	if endless(info) {
		return func() {}
	}
	gauge.Inc()
	return gauge.Dec
}

// objects says at each scrape how many objects of each resource there are.
type objects struct{ reg *registry.Registry }

var objectsDesc = prometheus.NewDesc("apiserver_storage_objects", "Objects that are stored.", []string{"resource"}, nil)

func (objects) Describe(out chan<- *prometheus.Desc) { out <- objectsDesc }

func (o objects) Collect(out chan<- prometheus.Metric) {
	for _, row := range o.reg.Table().All() {
		if row.Key == "" {
			continue
		}
		if c := o.reg.Store().Opened(row); c != nil {
			out <- prometheus.MustNewConstMetric(objectsDesc, prometheus.GaugeValue, float64(c.Len()), row.GroupResource().String())
		}
	}
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
		m.duration.WithLabelValues(verb, group, resource).Observe(took)
	}
}
