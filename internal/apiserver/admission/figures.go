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
	step        map[string]observers
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
	m.step = map[string]observers{}
	for _, kind := range []string{"admit", "validate"} {
		m.step[kind] = observersOf("CUDX", func(operation, rejected string) *histogram.Histogram {
			return steps.WithLabelValues(kind, operation, rejected)
		})
	}
	to.MustRegister(m.controllers, steps)
	return m
}

func (m *figures) of(p plugin, kind string) observers {
	if m.controllers == nil {
		return nil
	}
	return observersOf(p.on, func(operation, rejected string) *histogram.Histogram {
		return m.controllers.WithLabelValues(p.name, kind, operation, rejected)
	})
}

// observers hear how long something took, by operation: let in, refused. They are looked up once, for every write asks.
type observers map[string]*[2]*histogram.Histogram

var letters = map[string]string{"C": create, "U": update, "D": remove, "X": "CONNECT"}

func observersOf(on string, of func(operation, rejected string) *histogram.Histogram) observers {
	out := observers{}
	for letter, operation := range letters {
		if strings.Contains(on, letter) {
			out[operation] = &[2]*histogram.Histogram{of(operation, "false"), of(operation, "true")}
		}
	}
	return out
}

func (o observers) observe(operation string, err error, took time.Duration) {
	pair := o[operation]
	switch {
	case pair == nil:
	case err == nil:
		pair[0].Observe(took)
	default:
		pair[1].Observe(took)
	}
}

// since observes what has passed since at, and returns the present.
func (o observers) since(at time.Time, operation string, err error) time.Time {
	if o[operation] == nil {
		return at
	}
	now := time.Now()
	o.observe(operation, err, now.Sub(at))
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
