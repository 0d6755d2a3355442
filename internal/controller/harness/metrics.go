package harness

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"skiff.dev/skiff/internal/histogram"
)

// Metrics counts what controllers do. The zero registerer is allowed: everything is counted, nothing is shown.
type Metrics struct {
	registry prometheus.Registerer
	total    *prometheus.CounterVec
	seconds  *histogram.Vec
}

// NewMetrics registers the controllers' metrics; to may be nil.
func NewMetrics(to prometheus.Registerer) *Metrics {
	m := &Metrics{
		registry: to,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skiff_controller_reconcile_total", Help: "Reconciles by controller and result.",
		}, []string{"controller", "result"}),
		seconds: histogram.NewVec(prometheus.HistogramOpts{
			Name: "skiff_controller_reconcile_duration_seconds", Help: "How long reconciles took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"controller"}),
	}
	if to != nil {
		to.MustRegister(m.total, m.seconds)
	}
	return m
}

// loopMetrics are one controller's, looked up once.
type loopMetrics struct {
	ok, failed prometheus.Counter
	seconds    *histogram.Histogram
}

func (m *Metrics) of(name string) *loopMetrics {
	return &loopMetrics{
		ok:      m.total.WithLabelValues(name, "success"),
		failed:  m.total.WithLabelValues(name, "error"),
		seconds: m.seconds.WithLabelValues(name),
	}
}

func (l *loopMetrics) observe(d time.Duration, err error) {
	l.seconds.Observe(d)
	if err != nil {
		l.failed.Inc()
		return
	}
	l.ok.Inc()
}

// track shows a queue's depth under upstream's name until the returned function is called.
func (m *Metrics) track(name string, depth func() int) (stop func()) {
	if m.registry == nil {
		return func() {}
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "workqueue_depth", Help: "Keys that wait for a worker.", ConstLabels: prometheus.Labels{"name": name},
	}, func() float64 { return float64(depth()) })
	m.registry.MustRegister(gauge)
	return func() { m.registry.Unregister(gauge) }
}
