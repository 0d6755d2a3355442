// Package histogram counts how long things take, or how many bytes they are, as Kubernetes' histograms do since 1.37 (KEP-5808): in the classic buckets that
// their options name, and beside them in native ones, which whoever scrapes protobuf gets too. An observation costs a few atomic additions and allocates nothing: admission alone makes dozens
// for each write, and Prometheus' own native buckets, found in a map each time, were a twentieth of what the API server did. It imports nothing of ours, so that
// every part that measures may import it.
//
// Every observation is in exactly one native bucket, and how many there are is the sum of these; what has been counted classically is always among them.
package histogram

import (
	"math"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// schema makes each native bucket 2^(1/8) as wide as the one before it.
	schema = 3
	steps  = 1 << schema
	// most is how many native buckets a histogram shows; if it needs more, they are shown twice as wide.
	most = 160
	// shortest is the exponent of the octave that a nanosecond is in, and octaves is how many there are up to the longest Duration, in seconds; as bytes that is 16 GiB.
	shortest = -29
	octaves  = 64
)

// RequestSeconds are the classic buckets that upstream has for requests to the API server, and for those to etcd. Nobody may change them.
var RequestSeconds = []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}

// bounds are the upper ends of an octave's buckets but for the last, as fractions that math.Frexp gives.
var bounds = func() (out [steps - 1]float64) {
	for i := range out {
		out[i] = math.Exp2(float64(i+1)/steps) / 2
	}
	return out
}()

// Histogram of how long something takes, or of how many bytes it is.
type Histogram struct {
	desc    *prometheus.Desc
	labels  []string
	since   time.Time
	limits  []float64       // of the classic buckets, in seconds
	classic []atomic.Uint64 // how many are in each, not in those before it; none for what is longer than all limits
	native  [octaves]atomic.Pointer[octave]
	zero    atomic.Uint64 // no time at all, or less: clocks jump
	sizes   bool          // what it counts are bytes, not nanoseconds
	sum     atomic.Int64  // of these
}

// octave is the native buckets between two powers of two.
type octave [steps]atomic.Uint64

// New makes a histogram.
func New(o prometheus.HistogramOpts) *Histogram {
	return newHistogram(descOf(o, nil), false, o.Buckets, nil)
}

func newHistogram(desc *prometheus.Desc, sizes bool, limits []float64, labels []string) *Histogram {
	return &Histogram{desc: desc, labels: labels, since: time.Now(), sizes: sizes, limits: limits, classic: make([]atomic.Uint64, len(limits))}
}

func descOf(o prometheus.HistogramOpts, labels []string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(o.Namespace, o.Subsystem, o.Name), o.Help, labels, o.ConstLabels)
}

// Vec is a histogram for each set of the labels' values.
type Vec struct{ *prometheus.MetricVec }

// NewVec makes a histogram of times for each set of the labels' values.
func NewVec(o prometheus.HistogramOpts, labels []string) *Vec { return newVec(o, false, labels) }

// NewSizes makes a histogram of sizes for each set of the labels' values.
func NewSizes(o prometheus.HistogramOpts, labels []string) *Vec { return newVec(o, true, labels) }

func newVec(o prometheus.HistogramOpts, sizes bool, labels []string) *Vec {
	desc := descOf(o, labels)
	return &Vec{prometheus.NewMetricVec(desc, func(values ...string) prometheus.Metric {
		return newHistogram(desc, sizes, o.Buckets, slices.Clone(values))
	})}
}

// WithLabelValues is the histogram of these values, made if there is none yet.
func (v *Vec) WithLabelValues(values ...string) *Histogram {
	m, err := v.GetMetricWithLabelValues(values...)
	if err != nil {
		panic(err) // the number of values is wrong, as with Prometheus' own
	}
	return m.(*Histogram)
}

// Observe counts something that took so long.
func (h *Histogram) Observe(took time.Duration) { h.observe(int64(took), took.Seconds()) }

// ObserveSize counts something of so many bytes.
func (h *Histogram) ObserveSize(bytes int64) { h.observe(bytes, float64(bytes)) }

func (h *Histogram) observe(units int64, value float64) {
	if units <= 0 {
		h.zero.Add(1)
		value = 0
	} else {
		at, step := bucketOf(value)
		h.octave(at)[step].Add(1)
		h.sum.Add(units)
	}
	// Last, for Write reads it first: what it finds here it finds in a native bucket too.
	if i := sort.SearchFloat64s(h.limits, value); i < len(h.limits) {
		h.classic[i].Add(1)
	}
}

// bucketOf is the native bucket of a value: its octave, and which of its buckets.
func bucketOf(value float64) (at, step int) {
	fraction, exponent := math.Frexp(value)
	for step < len(bounds) && fraction > bounds[step] {
		step++
	}
	if fraction == 0.5 { // a power of two is the upper end of the octave below it
		exponent, step = exponent-1, steps-1
	}
	return min(max(exponent-shortest, 0), octaves-1), step
}

func (h *Histogram) octave(at int) *octave {
	if o := h.native[at].Load(); o != nil {
		return o
	}
	h.native[at].CompareAndSwap(nil, new(octave))
	return h.native[at].Load()
}

// Desc implements prometheus.Metric.
func (h *Histogram) Desc() *prometheus.Desc { return h.desc }

// Describe and Collect make a single histogram a collector.
func (h *Histogram) Describe(out chan<- *prometheus.Desc) { out <- h.desc }

func (h *Histogram) Collect(out chan<- prometheus.Metric) { out <- h }

// Write implements prometheus.Metric.
func (h *Histogram) Write(out *dto.Metric) error {
	classic := h.cumulative()
	buckets, count := map[int]int64{}, uint64(0)
	for at := range h.native {
		o := h.native[at].Load()
		for step := 0; o != nil && step < steps; step++ {
			if n := o[step].Load(); n > 0 {
				// Bucket k ends at 2^(k/steps).
				buckets[(at+shortest-1)*steps+step+1] = int64(n)
				count += n
			}
		}
	}
	width := int32(schema)
	for ; len(buckets) > most; width-- {
		buckets = twiceAsWide(buckets)
	}
	zero := h.zero.Load()
	m, err := prometheus.NewConstNativeHistogram(h.desc, count+zero, h.total(), buckets, nil, zero,
		width, prometheus.DefNativeHistogramZeroThreshold, h.since, h.labels...)
	if err != nil {
		return err
	}
	if err := m.Write(out); err != nil {
		return err
	}
	out.Histogram.Bucket = classic
	return nil
}

// total of all that was observed, in seconds or bytes.
func (h *Histogram) total() float64 {
	if h.sizes {
		return float64(h.sum.Load())
	}
	return time.Duration(h.sum.Load()).Seconds()
}

// cumulative are the classic buckets, each with those before it.
func (h *Histogram) cumulative() []*dto.Bucket {
	out, sum := make([]*dto.Bucket, len(h.limits)), uint64(0)
	for i := range out {
		sum += h.classic[i].Load()
		total := sum
		out[i] = &dto.Bucket{CumulativeCount: &total, UpperBound: &h.limits[i]}
	}
	return out
}

// twiceAsWide has each two neighbours in one bucket.
func twiceAsWide(buckets map[int]int64) map[int]int64 {
	out := map[int]int64{}
	for k, n := range buckets {
		out[(k+1)>>1] += n
	}
	return out
}
