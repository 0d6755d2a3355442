package histogram

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

var opts = prometheus.HistogramOpts{Name: "a", Help: "b", Buckets: []float64{0.001, 0.1, 1}}

// Latencies over six powers of ten are in both kinds of buckets, and the native ones are no more than there may be.
func TestBothKindsOfBuckets(t *testing.T) {
	vec := NewVec(opts, []string{"l"})
	for name, h := range map[string]prometheus.Histogram{"New": New(opts), "NewVec": vec.WithLabelValues("v").(prometheus.Histogram)} {
		const n = 10_000
		for i := range n {
			h.Observe(math.Pow(10, float64(i)/n*6-5))
		}
		var m dto.Metric
		if err := h.Write(&m); err != nil {
			t.Fatal(err)
		}
		got, native := m.Histogram, 0
		for _, s := range got.PositiveSpan {
			native += int(s.GetLength())
		}
		if got.GetSampleCount() != n || len(got.Bucket) != len(opts.Buckets) || got.Bucket[1].GetCumulativeCount() == 0 || native < 50 || native > most {
			t.Errorf("%s: %d observations, %d classic buckets, %d native ones", name, got.GetSampleCount(), len(got.Bucket), native)
		}
	}
}

// BenchmarkObserve compares the two kinds, and says what a histogram takes that has seen latencies of 20 µs to 2 ms and has been scraped.
func BenchmarkObserve(b *testing.B) {
	latencies := make([]float64, 1024)
	for i := range latencies {
		latencies[i] = 2e-5 * math.Pow(10, 2*rand.Float64())
	}
	for name, newOne := range map[string]func(prometheus.HistogramOpts) prometheus.Histogram{"classic": prometheus.NewHistogram, "both": New} {
		b.Run(name, func(b *testing.B) {
			const many = 1000
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			all := make([]prometheus.Histogram, many)
			for i := range all {
				all[i] = newOne(opts)
				for range 2 {
					for _, l := range latencies {
						all[i].Observe(l)
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
				all[i%many].Observe(latencies[i%len(latencies)])
				i++
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/histogram")
		})
	}
}
