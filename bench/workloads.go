package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
)

// benchWorkloads runs kube-scheduler's own benchmarks by name, the algorithm alone and then over HTTPS, and sums them up in a table. Alone they have
// upstream's sizes; over HTTPS only with --full, else a quarter of them.
func benchWorkloads(b *bench) {
	whole, driven := schedulertest.Workloads(1), schedulertest.Workloads(b.share)
	b.table("workload", "nodes", "pods", "alone /s", "upstream's floor /s", "nodes", "pods", "create to bound /s", "CPU ms", "resident MB")
	for i := range whole {
		w := &whole[i]
		if !strings.Contains(w.Name, b.shape) {
			continue
		}
		row := []any{w.Name, w.Nodes(), measured(w), b.workloadAlone(w), floor(w.Floor)}
		w = &driven[i]
		round := &bench{rounds: b.rounds, callers: b.callers}
		round.shape, round.kubeconfig, round.profile = b.shape, b.kubeconfig, b.profile
		var f figures
		if !round.guard(func(r *bench) { f = workload(r, w) }) {
			b.failed = true
		}
		b.table(append(row, w.Nodes(), measured(w), f.rate, f.cpu, f.resident)...)
	}
	b.tell()
}

func measured(w *schedulertest.Workload) string {
	if w.Steady() {
		return fmt.Sprintf("%d at a time", w.Measured())
	}
	return strconv.Itoa(w.Measured())
}

func (b *bench) workloadAlone(w *schedulertest.Workload) string {
	if !w.Bare() {
		return "–"
	}
	took, placed := w.Run()
	if placed < w.Measured() {
		b.Errorf("%s, alone: %d of %d pods found a place", w.Name, placed, w.Measured())
		return "failed"
	}
	report(w.Name+", alone", "pods/s", float64(placed)/took.Seconds())
	return fmt.Sprintf("%.0f", float64(placed)/took.Seconds())
}

func floor(perSecond int) string {
	if perSecond == 0 {
		return "–"
	}
	return strconv.Itoa(perSecond)
}

// workload runs one over HTTPS and measures how fast those of its pods that count are bound.
func workload(b *bench, w *schedulertest.Workload) figures {
	n := needs{controllers: w.Controllers, served: w.Served}
	if w.Config != "" {
		n.scheduler = filepath.Join(b.TempDir(), "scheduler.yaml")
		if err := os.WriteFile(n.scheduler, []byte(w.Config), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	c := newCourse(newTarget(b, n), w)
	f := c.run()
	if c.own == nil {
		c.unmake()
	}
	return f
}
