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
	"slices"
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
	{"scheduler", "pods a second, the algorithm alone and from create to bound, on hollow nodes", benchScheduler},
	{"idle", "memory and CPU of a cluster left alone", benchIdle},
}

func main() {
	rounds := flag.Int("rounds", 5, "how often to repeat what a median is taken of")
	objects := flag.Int("objects", 10000, "objects of the api benchmark")
	callers := flag.Int("callers", 64, "concurrent callers of the api benchmark, each with a connection of its own")
	idle := flag.Duration("idle", 5*time.Minute, "how long the idle benchmark waits after the start")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: bench [flags] [benchmark …]")
		for _, b := range benchmarks {
			fmt.Fprintf(os.Stderr, "  %-9s %s\n", b.name, b.about)
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
		b := &bench{rounds: *rounds, objects: *objects, callers: *callers, idle: *idle}
		failed = !b.guard(bm.run) || failed
	}
	if failed {
		os.Exit(1)
	}
}

func kernel() string {
	raw, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(raw))
}
