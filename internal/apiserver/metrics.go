package apiserver

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"skiff.dev/skiff/internal/histogram"
	"skiff.dev/skiff/internal/registry"
)

// metrics go by upstream's names, labels and buckets.
type metrics struct {
	requests, terminated, aborted *prometheus.CounterVec
	duration, sli, sizes          *histogram.Vec
	longRunning, deprecated       *prometheus.GaugeVec
	watchLists                    *histogram.Vec
	events                        *prometheus.CounterVec
	eventSizes                    *histogram.Vec
	reading, writing              prometheus.Gauge
	signedIn, notSignedIn,
	allowed, denied, noOpinion, undecided outcomes

	mu     sync.RWMutex
	series map[outcome]*series
}

var (
	// ofRequests are the labels that nearly all have.
	ofRequests = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	ofResource = []string{"group", "version", "resource"}
)

func newMetrics(r *prometheus.Registry) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	times := func(name, help string, buckets []float64, labels ...string) *histogram.Vec {
		return histogram.NewVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		requests:   counter("apiserver_request_total", "Requests by what they ask for and HTTP status.", append(slices.Clone(ofRequests), "dry_run", "code")...),
		terminated: counter("apiserver_request_terminations_total", "Requests that the server ended to protect itself.", append(slices.Clone(ofRequests), "code")...),
		aborted:    counter("apiserver_request_aborts_total", "Requests whose answers were broken off.", ofRequests[:6]...),
		duration:   times("apiserver_request_duration_seconds", "How long requests took.", histogram.RequestSeconds, append(slices.Clone(ofRequests), "dry_run")...),
		sli: times("apiserver_request_sli_duration_seconds", "How long requests took, less what they waited for webhooks and for their turn.",
			histogram.RequestSeconds[2:], ofRequests...),
		sizes: histogram.NewSizes(prometheus.HistogramOpts{
			Name: "apiserver_response_sizes", Help: "How long the answers to reads are, in bytes.", Buckets: prometheus.ExponentialBuckets(1000, 10, 7),
		}, ofRequests),
		longRunning: gauge("apiserver_longrunning_requests", "Watches and connections that are open.", ofRequests...),
		deprecated: gauge("apiserver_requested_deprecated_apis", "Deprecated APIs that have been asked for.",
			append(slices.Clone(ofRequests[1:5]), "removed_release")...),
		watchLists: times("apiserver_watch_list_duration_seconds", "How long watches took to send what there was when they began.",
			append(slices.Clone(histogram.RequestSeconds[2:]), 90, 120, 180, 300), append(slices.Clone(ofResource), "scope")...),
		events: counter("apiserver_watch_events_total", "Events that were sent to watchers.", ofResource...),
		eventSizes: histogram.NewSizes(prometheus.HistogramOpts{
			Name: "apiserver_watch_events_sizes", Help: "How long the events that were sent to watchers are, in bytes.", Buckets: prometheus.ExponentialBuckets(1024, 2, 8),
		}, ofResource),
		series: map[outcome]*series{},
	}
	inFlight := gauge("apiserver_current_inflight_requests", "Requests being answered, watches and connections apart.", "request_kind")
	m.reading, m.writing = inFlight.WithLabelValues("readOnly"), inFlight.WithLabelValues("mutating")
	filterSeconds := prometheus.ExponentialBuckets(0.001, 2, 15)
	attempts := counter("authentication_attempts", "Requests by whether their credentials were right.", "result")
	checks := times("authentication_duration_seconds", "How long it took to find out who asks, by whether their credentials were right.", filterSeconds, "result")
	m.signedIn, m.notSignedIn = outcomesOf(attempts, checks, "success"), outcomesOf(attempts, checks, "error")
	decisions := counter("authorization_attempts_total", "Requests by whether they were allowed.", "result")
	deciding := times("authorization_duration_seconds", "How long it took to decide whether requests are allowed, by whether they were.", filterSeconds, "result")
	m.allowed, m.denied = outcomesOf(decisions, deciding, "allowed"), outcomesOf(decisions, deciding, "denied")
	m.noOpinion, m.undecided = outcomesOf(decisions, deciding, "no-opinion"), outcomesOf(decisions, deciding, "error")
	if r != nil {
		r.MustRegister(m.requests, m.terminated, m.aborted, m.duration, m.sli, m.sizes, m.longRunning, m.deprecated, m.watchLists, m.events, m.eventSizes,
			inFlight, attempts, checks, decisions, deciding)
	}
	return m
}

// outcomes are how often a filter came to a result, and how long that took.
type outcomes struct {
	count prometheus.Counter
	took  *histogram.Histogram
}

func outcomesOf(count *prometheus.CounterVec, took *histogram.Vec, result string) outcomes {
	return outcomes{count.WithLabelValues(result), took.WithLabelValues(result)}
}

func (o outcomes) add(took time.Duration) {
	o.count.Inc()
	o.took.Observe(took)
}

func (m *metrics) authenticated(err error, took time.Duration) {
	if err != nil {
		m.notSignedIn.add(took)
		return
	}
	m.signedIn.add(took)
}

func (m *metrics) authorized(d authorizer.Decision, err error, took time.Duration) {
	switch {
	case d == authorizer.DecisionAllow:
		m.allowed.add(took)
	case err != nil:
		m.undecided.add(took)
	case d == authorizer.DecisionDeny:
		m.denied.add(took)
	default:
		m.noOpinion.add(took)
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

var (
	objectsDesc = prometheus.NewDesc("apiserver_resource_objects", "Objects that are stored.", []string{"group", "resource"}, nil)
	// storageObjectsDesc is what they were called before 1.34.
	storageObjectsDesc = prometheus.NewDesc("apiserver_storage_objects", "Objects that are stored.", []string{"resource"}, nil)
)

func (objects) Describe(out chan<- *prometheus.Desc) { out <- objectsDesc; out <- storageObjectsDesc }

func (o objects) Collect(out chan<- prometheus.Metric) {
	for _, row := range o.reg.Table().All() {
		if row.Key == "" {
			continue
		}
		if c := o.reg.Store().Opened(row); c != nil {
			n := float64(c.Len())
			out <- prometheus.MustNewConstMetric(objectsDesc, prometheus.GaugeValue, n, row.Group, row.Plural)
			out <- prometheus.MustNewConstMetric(storageObjectsDesc, prometheus.GaugeValue, n, row.GroupResource().String())
		}
	}
}

// outcome is how requests of a route were answered.
type outcome struct {
	route
	code int
}

// series of an outcome. They are looked up once.
type series struct {
	count    prometheus.Counter
	duration *histogram.Histogram
	sli      *histogram.Histogram // nil: dry runs are not among them
	sizes    *histogram.Histogram // nil: only those of reads are
}

func (m *metrics) of(o outcome) *series {
	m.mu.RLock()
	s := m.series[o]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	for _, text := range []*string{&o.group, &o.version, &o.resource, &o.subresource} {
		*text = strings.Clone(*text) // of a path that need not be kept whole
	}
	labels := []string{o.verb, o.group, o.version, o.resource, o.subresource, o.scope, o.component}
	s = &series{
		count:    m.requests.WithLabelValues(append(slices.Clone(labels), o.dryRun, strconv.Itoa(o.code))...),
		duration: m.duration.WithLabelValues(append(slices.Clone(labels), o.dryRun)...),
	}
	if o.dryRun == "" {
		s.sli = m.sli.WithLabelValues(labels...)
	}
	if o.verb == request.MethodGet || o.verb == request.MethodList || o.subresource == "log" {
		s.sizes = m.sizes.WithLabelValues(labels...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.series[o] = s // whoever else made it has the same ones
	return s
}

// answered counts a request that took so long, and waited so long meanwhile for what is not the server's to answer for.
func (m *metrics) answered(to route, rec *recorder, took, waited time.Duration) {
	s := m.of(outcome{to, rec.code})
	s.count.Inc()
	s.duration.Observe(took)
	if s.sli != nil {
		s.sli.Observe(took - waited)
	}
	if s.sizes != nil {
		s.sizes.ObserveSize(rec.bytes)
	}
}

// endedEarly counts a request that was ended to protect the server.
func (m *metrics) endedEarly(to route, code int) {
	m.terminated.WithLabelValues(to.verb, to.group, to.version, to.resource, to.subresource, to.scope, to.component, strconv.Itoa(code)).Inc()
}

// brokenOff counts a request whose answer was broken off.
func (m *metrics) brokenOff(to route) {
	m.aborted.WithLabelValues(to.verb, to.group, to.version, to.resource, to.subresource, to.scope).Inc()
}

// open counts a watch or connection until done is called.
func (m *metrics) open(r *http.Request, info *request.RequestInfo) (done func()) {
	to := longRouteOf(r, info)
	gauge := m.longRunning.WithLabelValues(to.verb, to.group, to.version, to.resource, to.subresource, to.scope, to.component)
	gauge.Inc()
	return gauge.Dec
}

// listing tells how long a watch took to send what there was when it began, once that is done.
func (m *metrics) listing(r *http.Request, p *passage) (done func()) {
	return func() {
		to := longRouteOf(r, p.info)
		m.watchLists.WithLabelValues(to.group, to.version, to.resource, to.scope).Observe(time.Since(p.start))
	}
}
