// Package histogram makes Prometheus' histograms as Kubernetes has them since 1.37 (KEP-5808): with the classic buckets that their options name, and native ones
// beside them, which whoever scrapes protobuf gets too. It imports nothing of ours, so that every part that measures may import it.
package histogram

import "github.com/prometheus/client_golang/prometheus"

const (
	// growth is how much wider each native bucket may be than the one before it.
	growth = 1.1
	// most is how many native buckets one histogram may have; if it needs more, they get wider.
	most = 160
)

// New makes a histogram.
func New(o prometheus.HistogramOpts) prometheus.Histogram {
	return prometheus.NewHistogram(native(o))
}

// NewVec makes a histogram for each set of the labels' values.
func NewVec(o prometheus.HistogramOpts, labels []string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(native(o), labels)
}

func native(o prometheus.HistogramOpts) prometheus.HistogramOpts {
	o.NativeHistogramBucketFactor, o.NativeHistogramMaxBucketNumber = growth, most
	return o
}
