package fairness

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"skiff.dev/skiff/internal/histogram"
)

// figures are the metrics of requests by their flow schema and priority level, under upstream's names.
type figures struct {
	rejected, dispatched     *prometheus.CounterVec
	queued, executing, taken *prometheus.GaugeVec
	waited, executed         *histogram.Vec
}

func newFigures() *figures {
	const prefix = "apiserver_flowcontrol_"
	labels := []string{"priority_level", "flow_schema"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
	}
	times := func(name, help string, more ...string) *histogram.Vec {
		return histogram.NewVec(prometheus.HistogramOpts{
			Name: prefix + name, Help: help, Buckets: []float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30},
		}, append(labels[:2:2], more...))
	}
	return &figures{
		rejected:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "rejected_requests_total", Help: "Requests that were refused because too many others came."}, append(labels[:2:2], "reason")),
		dispatched: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "dispatched_requests_total", Help: "Requests that were let through."}, labels),
		queued:     gauge("current_inqueue_requests", "Requests that wait for a seat."),
		executing:  gauge("current_executing_requests", "Requests that are being answered; of watches, only their beginning."),
		taken:      gauge("current_executing_seats", "Seats that the requests being answered have."),
		waited:     times("request_wait_duration_seconds", "How long requests waited for a seat.", "execute"),
		executed:   times("request_execution_seconds", "How long requests kept their seats.", "type"),
	}
}

func (f *figures) register(r prometheus.Registerer) {
	r.MustRegister(f.rejected, f.dispatched, f.queued, f.executing, f.taken, f.waited, f.executed)
}

// flow is the figures of one flow schema.
type flow struct {
	level, schema            string
	all                      *figures
	dispatched               prometheus.Counter
	queued, executing, seats prometheus.Gauge
	seatedAfter, gaveUpAfter *histogram.Histogram
	executed                 *histogram.Histogram
}

func (f *figures) of(level, schema string) *flow {
	return &flow{
		level: level, schema: schema, all: f,
		dispatched:  f.dispatched.WithLabelValues(level, schema),
		queued:      f.queued.WithLabelValues(level, schema),
		executing:   f.executing.WithLabelValues(level, schema),
		seats:       f.taken.WithLabelValues(level, schema),
		seatedAfter: f.waited.WithLabelValues(level, schema, "true"),
		gaveUpAfter: f.waited.WithLabelValues(level, schema, "false"),
		executed:    f.executed.WithLabelValues(level, schema, "regular"),
	}
}

// seated counts a request that begins after it waited.
func (f *flow) seated(seats int, waited time.Duration) {
	f.dispatched.Inc()
	f.executing.Inc()
	f.seats.Add(float64(seats))
	f.seatedAfter.Observe(waited)
}

// left counts the end of a request that was seated.
func (f *flow) left(seats int, took time.Duration) {
	f.executing.Dec()
	f.seats.Sub(float64(seats))
	f.executed.Observe(took)
}

func (f *flow) refused(reason string, waited time.Duration) {
	f.all.rejected.WithLabelValues(f.level, f.schema, reason).Inc()
	f.gaveUpAfter.Observe(waited)
}

var (
	nominalSeats = prometheus.NewDesc("apiserver_flowcontrol_nominal_limit_seats", "Seats of a priority level by its share of all.", []string{"priority_level"}, nil)
	currentSeats = prometheus.NewDesc("apiserver_flowcontrol_current_limit_seats", "Seats that a priority level can have now, those included that others lend it.", []string{"priority_level"}, nil)
)

// Describe and Collect make the controller a collector of its levels' seats.
func (c *Controller) Describe(out chan<- *prometheus.Desc) { out <- nominalSeats; out <- currentSeats }

func (c *Controller) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.levels {
		out <- prometheus.MustNewConstMetric(nominalSeats, prometheus.GaugeValue, float64(l.nominal), l.name)
		out <- prometheus.MustNewConstMetric(currentSeats, prometheus.GaugeValue, float64(max(l.nominal, l.inUse)), l.name)
	}
}
