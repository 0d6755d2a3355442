package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"time"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
)

// benchPlot draws what a pod costs the scheduler's algorithm against the number of nodes and against the pods that are placed already. CPU
// time is drawn, which other work on the machine disturbs least.
func benchPlot(b *bench) {
	byNodes := chart{title: "CPU time a pod against nodes", x: "nodes"}
	byPods := chart{title: "CPU time a pod on 5,000 nodes against pods placed", x: "pods placed"}
	for _, s := range b.shapes() {
		line := curve{name: s.Name}
		for _, nodes := range []int{100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000} {
			a := schedulertest.NewAlone(nodes)
			a.Schedule(s, min(200, nodes))
			line.add(nodes, perPod(a, s, min(5000, nodes*20)))
		}
		byNodes.curves = append(byNodes.curves, line)
		line = curve{name: s.Name}
		a := schedulertest.NewAlone(5000)
		a.Schedule(s, 200)
		const step = 5000
		for placed := step; placed <= 100000; placed += step {
			cost := perPod(a, s, step)
			if placed == step || placed%(2*step) == 0 {
				line.add(placed, cost)
			}
		}
		byPods.curves = append(byPods.curves, line)
	}
	for name, c := range map[string]chart{"docs/scheduler-nodes.svg": byNodes, "docs/scheduler-pods.svg": byPods} {
		if err := os.WriteFile(name, []byte(c.svg()), 0o644); err != nil {
			b.Fatal(err)
		}
		fmt.Printf("  drew %s\n", name)
	}
}

// perPod is the CPU time of placing a pod, in microseconds.
func perPod(a *schedulertest.Alone, s schedulertest.Shape, pods int) float64 {
	began := ownCPU()
	if _, placed := a.Schedule(s, pods); placed > 0 {
		pods = placed
	}
	return float64((ownCPU() - began).Microseconds()) / float64(pods)
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// chart has logarithmic axes: nodes or pods, and microseconds.
type chart struct {
	title, x string
	curves   []curve
}

type curve struct {
	name   string
	points [][2]float64
}

func (c *curve) add(x int, y float64) { c.points = append(c.points, [2]float64{float64(x), max(y, 1)}) }

// The drawing's size and margins.
const (
	width, height            = 760, 420
	left, right, top, bottom = 60, 200, 40, 50
)

var colours = []string{"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"}

// svg draws the chart; its axes span whole powers of ten.
func (c *chart) svg() string {
	x0, x1, y0, y1 := c.bounds()
	px := func(v float64) float64 { return left + (math.Log10(v)-x0)/(x1-x0)*(width-left-right) }
	py := func(v float64) float64 { return height - bottom - (math.Log10(v)-y0)/(y1-y0)*(height-top-bottom) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="20" font-size="14">%s</text>`+"\n", width, height, left, c.title)
	for e := x0; e <= x1; e++ {
		v := math.Pow10(int(e))
		fmt.Fprintf(&b, `<path d="M%.1f %d V%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", px(v), top, height-bottom, px(v), height-bottom+18, figure(v))
	}
	for e := y0; e <= y1; e++ {
		v := math.Pow10(int(e))
		fmt.Fprintf(&b, `<path d="M%d %.1f H%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s µs</text>`+"\n", left, py(v), width-right, left-6, py(v)+4, figure(v))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+width-right)/2, height-12, c.x)
	for k, line := range c.curves {
		var path strings.Builder
		for i, p := range line.points {
			fmt.Fprintf(&path, "%s%.1f %.1f ", map[bool]string{true: "M", false: "L"}[i == 0], px(p[0]), py(p[1]))
		}
		colour := colours[k%len(colours)]
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.TrimSpace(path.String()), colour)
		fmt.Fprintf(&b, `<path d="M%d %d h20" stroke="%s" stroke-width="2"/><text x="%d" y="%d">%s</text>`+"\n",
			width-right+12, top+12+k*20, colour, width-right+38, top+16+k*20, line.name)
	}
	return b.String() + "</svg>\n"
}

func (c *chart) bounds() (x0, x1, y0, y1 float64) {
	x0, y0, x1, y1 = math.Inf(1), 0, math.Inf(-1), 2
	for _, line := range c.curves {
		for _, p := range line.points {
			x0, x1, y1 = min(x0, math.Log10(p[0])), max(x1, math.Log10(p[0])), max(y1, math.Log10(p[1]))
		}
	}
	return math.Floor(x0), math.Ceil(x1), y0, math.Ceil(y1)
}

// figure writes a power of ten with thousands apart.
func figure(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f,000", v/1000)
	}
	return fmt.Sprintf("%.0f", v)
}
