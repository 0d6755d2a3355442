package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// bench runs one benchmark and is its cluster.T: clean-up runs at its end, also after a failure.
type bench struct {
	rounds, objects, callers int
	idle                     time.Duration
	pids                     string // of another server to measure
	scheduling

	failed   bool
	cleanups []func()
}

// scheduling is what the scheduler's benchmarks are told.
type scheduling struct {
	nodes                      []int  // sizes of the clusters driven over HTTPS
	shape, kubeconfig, profile string // see the flags

	share  int     // of upstream's sizes, a workload's over HTTPS
	number int     // of the next pod
	rows   [][]any // of the table, the first its head
}

// table keeps a row for tell.
func (b *bench) table(cells ...any) { b.rows = append(b.rows, cells) }

// tell prints the rows as the table that docs/benchmarks.md has.
func (b *bench) tell() {
	fmt.Println()
	for k, row := range b.rows {
		line := "|"
		for _, cell := range row {
			line += fmt.Sprintf(" %v |", cell)
		}
		fmt.Println(line)
		if k == 0 {
			fmt.Println("|" + strings.Repeat(" --- |", len(row)))
		}
	}
}

// guard runs f and then its clean-ups, and says whether all went well.
func (b *bench) guard(f func(*bench)) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.cleanup()
		f(b)
	}()
	<-done
	return !b.failed
}

func (b *bench) cleanup() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
	b.cleanups = nil
}

func (b *bench) Helper()          {}
func (b *bench) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }
func (b *bench) Failed() bool     { return b.failed }
func (b *bench) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
func (b *bench) Errorf(format string, args ...any) {
	b.failed = true
	b.Logf(format, args...)
}
func (b *bench) Fatalf(format string, args ...any) {
	b.Errorf(format, args...)
	runtime.Goexit()
}
func (b *bench) Fatal(args ...any) { b.Fatalf("%s", fmt.Sprint(args...)) }

func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp("", "skiff-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// report prints one figure: the median of the values, and their range.
func report(name, unit string, values ...float64) {
	slices.Sort(values)
	if len(values) == 1 {
		fmt.Printf("  %-46s %10.3f %s\n", name, values[0], unit)
		return
	}
	fmt.Printf("  %-46s %10.3f %s   (%d values, %.3f … %.3f)\n", name, median(values), unit, len(values), values[0], values[len(values)-1])
}

// median of sorted values.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
