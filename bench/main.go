// Command bench measures Skiff on this machine and prints medians, one line a figure.
//
//	go run ./bench              every benchmark
//	go run ./bench start pods   some of them
//
// It starts real clusters the way the whole-cluster tests do, and leaves nothing behind.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// benchmark is one group of figures.
type benchmark struct {
	name, about string
	run         func(b *bench)
}

var benchmarks = []benchmark{
	{"start", "empty data dir to Ready, to the first pods Running; restart", benchStart},
	{"pods", "create to Running, thirty at once, delete to gone", benchPods},
	{"api", "create, get, list and watch of many pods over HTTPS", benchAPI},
	{"watch", "many watchers of one pod: cost and lag of a delivery", benchWatch},
	{"large", "five times the objects of api and as many nodes as a tenth: memory, lists, idle watchers, a start with that data", benchLarge},
	{"namespaces", "as many namespaces as the api benchmark has objects, made and deleted with every controller at work", benchNamespaces},
	{"algorithm", "the scheduler's algorithm alone, pods a second", benchAlgorithm},
	{"scheduler", "pods a second from create to bound over HTTPS, on hollow nodes", benchScheduler},
	{"scheduler_perf", "kube-scheduler's own benchmarks by name and size, the algorithm alone and over HTTPS", benchWorkloads},
	{"scheduler_plot", "time a pod against nodes and against pods placed, drawn into docs/", benchPlot},
	{"rollout", "twenty rolling updates under 500 requests a second: how many are lost", benchRollout},
	{"autoscale", "from the start to figures, from load to more pods", benchAutoscale},
	{"services", "rules of many services: first writing, a change, a new connection", benchServices},
	{"telemetry", "what it costs to measure a hundred pods, and to keep an hour of that", benchTelemetry},
	{"idle", "memory and CPU of a cluster left alone", benchIdle},
}

func main() {
	rounds := flag.Int("rounds", 5, "how often to repeat what a median is taken of")
	objects := flag.Int("objects", 10000, "objects of the api benchmark")
	callers := flag.Int("callers", 64, "concurrent callers of the api benchmark, each with a connection of its own")
	idle := flag.Duration("idle", 5*time.Minute, "how long the idle benchmark waits after the start")
	nodes := flag.String("nodes", "1000,5000", "sizes of the clusters that the scheduler benchmark drives over HTTPS")
	shape := flag.String("shape", "", "part of the names of the shapes or workloads to which the scheduler's benchmarks are limited")
	full := flag.Bool("full", false, "run scheduler_perf's workloads over HTTPS at upstream's sizes; without, at a quarter of them")
	kubeconfig := flag.String("kubeconfig", "", "drive the API server of this kubeconfig (api, watch, scheduler, scheduler_perf) instead of a cluster of our own")
	pids := flag.String("pids", "", "the processes of that API server on this machine, whose CPU and memory count: 123,456")
	profile := flag.String("profile", "", "folder for profiles of the server in the pods, api, watch, scheduler and scheduler_perf benchmarks")
	debug.SetGCPercent(400) // the load generator shares the processors with what it measures
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: bench [flags] [benchmark …]")
		for _, b := range benchmarks {
			fmt.Fprintf(os.Stderr, "  %-14s %s\n", b.name, b.about)
		}
		flag.PrintDefaults()
	}
	flag.Parse()
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(benchmarks, func(b benchmark) bool { return b.name == name }) {
			fmt.Fprintf(os.Stderr, "bench: there is no benchmark %q\n", name)
			flag.Usage()
			os.Exit(2)
		}
	}
	fmt.Printf("%s, %d cores, %s, %s\n", kernel(), runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly))
	failed := false
	for _, bm := range benchmarks {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), bm.name) {
			continue
		}
		fmt.Printf("\n%s: %s\n", bm.name, bm.about)
		b := &bench{rounds: *rounds, objects: *objects, callers: *callers, idle: *idle, pids: *pids}
		b.nodes, b.shape, b.kubeconfig, b.profile = numbers(*nodes), *shape, *kubeconfig, *profile
		if b.share = 4; *full {
			b.share = 1
		}
		failed = !b.guard(bm.run) || failed
	}
	if failed {
		os.Exit(1)
	}
}

// numbers reads a list such as 1000,5000.
func numbers(list string) (out []int) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n <= 0 {
			fmt.Fprintf(os.Stderr, "bench: --nodes: %q is no number of nodes\n", text)
			os.Exit(2)
		}
		out = append(out, n)
	}
	return out
}

func kernel() string {
	raw, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(raw))
}
