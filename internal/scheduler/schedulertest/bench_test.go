package schedulertest

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// BenchmarkAlone is the cost of one pod, without API server.
func BenchmarkAlone(b *testing.B) {
	for _, s := range Shapes {
		for _, nodes := range []int{1000, 5000, 50000} {
			b.Run(fmt.Sprintf("%s/%d", s.Name, nodes), func(b *testing.B) {
				a := NewAlone(nodes)
				a.Schedule(s, min(100, nodes/10)) // classes are made once
				b.ResetTimer()
				used := cpu()
				_, placed := a.Schedule(s, b.N)
				used = cpu() - used
				if placed < b.N {
					b.Logf("%d of %d placed", placed, b.N)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
				b.ReportMetric(used.Seconds()*1e6/float64(b.N), "cpu-µs/pod") // what the machine's other work leaves alone
			})
		}
	}
}

// BenchmarkWorkloads is the cost of one pod of upstream's workloads, at their sizes.
func BenchmarkWorkloads(b *testing.B) {
	for _, w := range Workloads(1) {
		if !w.Bare() {
			continue
		}
		b.Run(w.Name, func(b *testing.B) {
			pods, took := 0, time.Duration(0)
			for range b.N {
				t, placed := w.Run()
				took, pods = took+t, pods+placed
			}
			b.ReportMetric(float64(pods)/took.Seconds(), "pods/s")
		})
	}
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
