package admission

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics/legacyregistry"

	"skiff.dev/skiff/internal/histogram"
)

// The figures of admission have upstream's names, labels and buckets. What webhooks and policies took and refused is counted by upstream's code that
// runs them, in upstream's registry: Dynamic gathers it.

var buckets = []float64{0.005, 0.025, 0.1, 0.5, 1.0, 2.5}

type figures struct {
	controllers *histogram.Vec
	admit       observers
	validate    observers
}

func newFigures(to prometheus.Registerer) *figures {
	if to == nil {
		return &figures{}
	}
	m := &figures{controllers: histogram.NewVec(prometheus.HistogramOpts{
		Name: "apiserver_admission_controller_admission_duration_seconds", Buckets: buckets,
		Help: "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
	}, []string{"name", "type", "operation", "rejected"})}
	steps := histogram.NewVec(prometheus.HistogramOpts{
		Name: "apiserver_admission_step_admission_duration_seconds", Buckets: buckets,
		Help: "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
	}, []string{"type", "operation", "rejected"})
	for kind, step := range map[string]*observers{"admit": &m.admit, "validate": &m.validate} {
		*step = observersOf("CUDX", func(operation, rejected string) *histogram.Histogram {
			return steps.WithLabelValues(kind, operation, rejected)
		})
	}
	to.MustRegister(m.controllers, steps)
	return m
}

func (m *figures) of(p plugin, kind string) observers {
	if m.controllers == nil {
		return observers{}
	}
	return observersOf(p.on, func(operation, rejected string) *histogram.Histogram {
		return m.controllers.WithLabelValues(p.name, kind, operation, rejected)
	})
}

// operations are admission's, in the order of observers; plug-ins name them by their letters.
var operations = [...]struct{ letter, name string }{{"C", create}, {"U", update}, {"D", remove}, {"X", "CONNECT"}}

// placeOf is an operation's place in observers. Every write asks it for its two dozen plug-ins, which is why observers are no map.
func placeOf(operation string) int {
	switch operation {
	case create:
		return 0
	case update:
		return 1
	case remove:
		return 2
	}
	return 3
}

// observers hear how long something took, by operation: let in, refused. None are there for what a plug-in has no say in.
type observers [len(operations)][2]*histogram.Histogram

func observersOf(on string, of func(operation, rejected string) *histogram.Histogram) (out observers) {
	for i, o := range operations {
		if strings.Contains(on, o.letter) {
			out[i] = [2]*histogram.Histogram{of(o.name, "false"), of(o.name, "true")}
		}
	}
	return out
}

// observe tells how long an operation took, which has this place.
func (o *observers) observe(place int, err error, took time.Duration) {
	outcome := 0
	if err != nil {
		outcome = 1
	}
	if h := o[place][outcome]; h != nil {
		h.Observe(took)
	}
}

// since observes what has passed since at, and returns the present.
func (o *observers) since(at time.Time, place int, err error) time.Time {
	if o[place][0] == nil {
		return at
	}
	now := time.Now()
	o.observe(place, err, now.Sub(at))
	return now
}

// Dynamic gathers the figures of webhooks and policies.
type Dynamic struct{}

// Gather implements prometheus.Gatherer.
func (Dynamic) Gather() ([]*dto.MetricFamily, error) {
	all, err := legacyregistry.DefaultGatherer.Gather()
	var out []*dto.MetricFamily
	for _, f := range all {
		for _, prefix := range []string{"apiserver_admission_webhook_", "apiserver_admission_match_condition_", "apiserver_validating_admission_policy_", "apiserver_mutating_admission_policy_"} {
			if strings.HasPrefix(f.GetName(), prefix) {
				out = append(out, f)
			}
		}
	}
	return out, err
}
