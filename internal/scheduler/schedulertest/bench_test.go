package schedulertest

import (
	"fmt"
	"testing"
)

// BenchmarkAlone is the cost of one pod, without API server.
func BenchmarkAlone(b *testing.B) {
	for _, s := range Shapes {
		for _, nodes := range []int{1000, 5000, 50000} {
			b.Run(fmt.Sprintf("%s/%d", s.Name, nodes), func(b *testing.B) {
				a := NewAlone(nodes)
				a.Schedule(s, min(100, nodes/10)) // classes are made once
				b.ResetTimer()
				_, placed := a.Schedule(s, b.N)
				if placed < b.N {
					b.Logf("%d of %d placed", placed, b.N)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
			})
		}
	}
}
