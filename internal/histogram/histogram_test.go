package histogram

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/testing/protocmp"
)

var opts = prometheus.HistogramOpts{Name: "a", Help: "b", Buckets: []float64{0.001, 0.1, 1}}

// reference is Prometheus' own histogram of the same kind, without its limit of buckets.
func reference() prometheus.Histogram {
	o := opts
	o.NativeHistogramBucketFactor = 1.1
	return prometheus.NewHistogram(o)
}

func written(t *testing.T, m prometheus.Metric) *dto.Histogram {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Histogram
}

// Times of every length are in the buckets that Prometheus would have put them into, also those at their very ends.
func TestSameAsPrometheus(t *testing.T) {
	times := map[string][]time.Duration{"none": nil, "no time": {0, 0}, "a nanosecond": {1}, "the longest": {math.MaxInt64}, "limits": {time.Millisecond, 100 * time.Millisecond, time.Second}}
	for k := range 34 {
		times["powers of two"] = append(times["powers of two"], time.Second<<k/8)
	}
	for range 100 {
		times["close together"] = append(times["close together"], 3*time.Millisecond+rand.N(time.Millisecond))
	}
	for range 10_000 {
		times["all"] = append(times["all"], time.Duration(math.Pow(10, 5+4*rand.Float64())))
	}
	for name, list := range times {
		t.Run(name, func(t *testing.T) {
			got, want := New(opts), reference()
			for _, d := range list {
				got.Observe(d)
				want.Observe(d.Seconds())
			}
			if diff := cmp.Diff(written(t, want), written(t, got), protocmp.Transform(), protocmp.IgnoreFields(&dto.Histogram{}, "created_timestamp"),
				protocmp.FilterField(&dto.Histogram{}, "sample_sum", cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Abs(a) }))); diff != "" {
				t.Errorf("Prometheus' (-) and ours (+):\n%s", diff)
			}
		})
	}
}

// Sizes are in the buckets that Prometheus would have put them into, and their sum is in bytes.
func TestSizes(t *testing.T) {
	o := prometheus.HistogramOpts{Name: "a", Help: "b", Buckets: []float64{1000, 1e6, 1e9}}
	got := NewSizes(o, []string{"verb"}).WithLabelValues("LIST")
	o.NativeHistogramBucketFactor = 1.1
	want := prometheus.NewHistogram(o)
	for _, n := range []int64{0, 1, 999, 1000, 1001, 1 << 20, 13_500_000, 22_800_000, 5e9} {
		got.ObserveSize(n)
		want.Observe(float64(n))
	}
	if diff := cmp.Diff(written(t, want), written(t, got), protocmp.Transform(), protocmp.IgnoreFields(&dto.Histogram{}, "created_timestamp")); diff != "" {
		t.Errorf("Prometheus' (-) and ours (+):\n%s", diff)
	}
}

// A clock that jumps back counts, and takes nothing from the sum.
func TestLessThanNoTime(t *testing.T) {
	h := New(opts)
	h.Observe(-time.Hour)
	if got := written(t, h); got.GetSampleCount() != 1 || got.GetZeroCount() != 1 || got.GetSampleSum() != 0 || got.Bucket[0].GetCumulativeCount() != 1 {
		t.Errorf("%v", got)
	}
}

// Times from nanoseconds to centuries are shown in no more buckets than there may be, and none is lost.
func TestNoMoreThanMost(t *testing.T) {
	h, n := New(opts), 0
	for k := 1.0; k < math.MaxInt64/2; k *= 1.05 {
		h.Observe(time.Duration(k))
		n++
	}
	got, native := written(t, h), int64(0)
	sum, count := int64(0), int64(0)
	for _, s := range got.PositiveSpan {
		native += int64(s.GetLength())
	}
	for _, d := range got.PositiveDelta {
		sum += d
		count += sum
	}
	if native > most || native < most/4 || count != int64(n) || got.GetSchema() >= schema {
		t.Errorf("%d observations, %d of them in %d buckets of schema %d", n, count, native, got.GetSchema())
	}
}

func TestVec(t *testing.T) {
	v := NewVec(opts, []string{"verb", "code"})
	v.WithLabelValues("get", "200").Observe(time.Second)
	one := v.WithLabelValues("get", "200")
	if v.WithLabelValues("get", "200") != one || v.WithLabelValues("get", "404") == one {
		t.Error("a histogram is not the one of its labels' values")
	}
	r := prometheus.NewRegistry()
	r.MustRegister(v, New(prometheus.HistogramOpts{Name: "single", Help: "b"}))
	families, err := r.Gather()
	if err != nil || len(families) != 2 || len(families[0].Metric) != 2 {
		t.Fatalf("%v: %v", err, families)
	}
	for _, l := range families[0].Metric[0].Label {
		if value := map[string]string{"verb": "get", "code": "200"}[l.GetName()]; l.GetValue() != value {
			t.Errorf("the label %s is %q", l.GetName(), l.GetValue())
		}
	}
}

// What is written while others observe makes sense: no classic bucket has more than there are, and nothing shrinks.
func TestWrittenMeanwhile(t *testing.T) {
	h := New(opts)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 20_000 {
				h.Observe(rand.N(2 * time.Second))
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	before := uint64(0)
	for last := false; !last; {
		select {
		case <-done:
			last = true
		default:
		}
		got := written(t, h)
		if count := got.GetSampleCount(); got.Bucket[2].GetCumulativeCount() > count || got.Bucket[1].GetCumulativeCount() > got.Bucket[2].GetCumulativeCount() || count < before {
			t.Fatalf("%d before, now %v", before, got)
		}
		before = got.GetSampleCount()
	}
	if before != 80_000 {
		t.Errorf("%d observations are there", before)
	}
}

// BenchmarkObserve compares with Prometheus' own, and says what a histogram takes that has seen latencies of 20 µs to 2 ms and has been scraped.
func BenchmarkObserve(b *testing.B) {
	latencies := make([]time.Duration, 1024)
	for i := range latencies {
		latencies[i] = time.Duration(2e4 * math.Pow(10, 2*rand.Float64()))
	}
	type observed struct {
		prometheus.Metric
		observe func(time.Duration)
	}
	for name, newOne := range map[string]func() observed{
		"ours": func() observed { h := New(opts); return observed{h, h.Observe} },
		"prometheus": func() observed {
			h := reference()
			return observed{h, func(d time.Duration) { h.Observe(d.Seconds()) }}
		},
		"prometheus, classic": func() observed {
			h := prometheus.NewHistogram(opts)
			return observed{h, func(d time.Duration) { h.Observe(d.Seconds()) }}
		},
	} {
		b.Run(name, func(b *testing.B) {
			const many = 1000
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			all := make([]observed, many)
			for i := range all {
				all[i] = newOne()
				for range 2 {
					for _, l := range latencies {
						all[i].observe(l)
					}
					if err := all[i].Write(&dto.Metric{}); err != nil {
						b.Fatal(err)
					}
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			i := 0
			for b.Loop() {
				all[i%many].observe(latencies[i%len(latencies)])
				i++
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/histogram")
		})
	}
}
