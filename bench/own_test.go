package main

import (
	"fmt"
	"testing"
)

func TestBenchmarkFigures(t *testing.T) {
	out := `goos: linux
BenchmarkChange/NodePort/5000-2   	     500	   2080560 ns/op	   2121862 cpu-ns/op	   1873694 median-ns
BenchmarkChange/NodePort/5000-2   	     500	   2080560 ns/op	   2121862 cpu-ns/op	   2000000 median-ns
BenchmarkSample   	     100	   1000 ns/op	   0.25 %core
PASS
`
	got := fmt.Sprint(benchmarkFigures(out, []quantity{{"median-ns", "median", "ms", 1e-6}, {"%core", "", "% of a core", 1}}))
	if want := "[{Change/NodePort/5000, median ms [1.873694 2]} {Sample % of a core [0.25]}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
