package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"skiff.dev/skiff/test/cluster"
)

// server is the API server that is measured: one that the benchmark starts, or whatever --kubeconfig names.
type server struct {
	b    *bench
	c    *cluster.Cluster // nil: somebody else's
	cfg  *rest.Config
	pids []int // the processes whose CPU and memory count
}

// newServer takes the server that the flags name, or starts one without a node or a scheduler.
func newServer(b *bench) *server {
	if b.kubeconfig == "" {
		return startServer(b, "--no-agent", "--no-scheduler", "--controllers=serviceaccount-controller")
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", b.kubeconfig)
	if err != nil {
		b.Fatal(err)
	}
	t := &server{b: b, cfg: quick(cfg)}
	for _, text := range strings.FieldsFunc(b.pids, func(r rune) bool { return r == ',' }) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			b.Fatalf("-pids: %q is no process; name those of the server on this machine: -pids 123,456", text)
		}
		t.pids = append(t.pids, pid)
	}
	return t
}

func startServer(b *bench, flags ...string) *server {
	c := cluster.New(b, flags...)
	c.Server()
	return serverOf(b, c)
}

// serverOf is the API server of a cluster of our own, which runs.
func serverOf(b *bench, c *cluster.Cluster) *server {
	return &server{b: b, c: c, cfg: quick(c.RESTConfig()), pids: []int{c.PID()}}
}

// quick speaks protobuf and knows no limits.
func quick(cfg *rest.Config) *rest.Config {
	cfg.ContentType, cfg.QPS = protobufMedia, -1
	return cfg
}

// clients are n of them, each with a connection of its own, as n programs would have.
func (t *server) clients(n int) []*kubernetes.Clientset {
	out := make([]*kubernetes.Clientset, n)
	for i := range out {
		cfg := rest.CopyConfig(t.cfg)
		if cfg.Dial == nil {
			cfg.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext // a dialer of one's own keeps client-go from sharing connections
		}
		var err error
		if out[i], err = kubernetes.NewForConfig(cfg); err != nil {
			t.b.Fatal(err)
		}
	}
	return out
}

// settled waits until pods may be made in the default namespace.
func (t *server) settled(ctx context.Context, cs *kubernetes.Clientset) {
	cluster.Eventually(t.b, func() error {
		_, err := cs.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// cpu is what the server's processes have spent.
func (t *server) cpu() (sum time.Duration) {
	for _, pid := range t.pids {
		spent, err := cluster.CPUOf(pid)
		if err != nil {
			t.b.Fatal(err)
		}
		sum += spent
	}
	return sum
}

func (t *server) memory() (sum cluster.Memory) {
	for _, pid := range t.pids {
		m, err := cluster.MemoryOf(pid)
		if err != nil {
			t.b.Fatal(err)
		}
		sum.Resident, sum.Anonymous, sum.File = sum.Resident+m.Resident, sum.Anonymous+m.Anonymous, sum.File+m.File
	}
	return sum
}

// reportMemory prints what is resident and where it comes from.
func (t *server) reportMemory(when string) cluster.Memory {
	m := t.memory()
	if m.Resident == 0 { // not known
		return m
	}
	report(when+": resident", "MB", m.Resident)
	report(when+": of it anonymous", "MB", m.Anonymous)
	report(when+": of it files (program, database)", "MB", m.File)
	t.heapProfile(when)
	return m
}

// heapProfile fetches what the server holds, where --profile names a folder for it. It comes after the figures, for it begins with a collection.
func (t *server) heapProfile(when string) {
	if t.b.profile == "" {
		return
	}
	raw, err := t.clients(1)[0].CoreV1().RESTClient().Get().AbsPath("/debug/pprof/heap").Param("gc", "1").DoRaw(context.Background())
	if err == nil {
		err = os.WriteFile(t.profileFile("heap, "+when), raw, 0o644)
	}
	if err != nil {
		t.b.Errorf("profile: %v", err)
	}
}

// profileFile is where a profile of something is kept.
func (t *server) profileFile(name string) string {
	return filepath.Join(t.b.profile, strings.Map(func(r rune) rune {
		if strings.ContainsRune(" ,/;=", r) {
			return '-'
		}
		return r
	}, name)+".pprof")
}

// measure has callers make n calls between them and reports what that takes; see meter.
func (t *server) measure(name string, n, callers int, call func(caller, i int) error) {
	defer t.profileOf(name)()
	meter{t.b, t.cpu}.measure(name, n, callers, call)
}

// meter measures calls: their rate, the server's CPU for each, and the quantiles of their latency.
type meter struct {
	b   *bench
	cpu func() time.Duration // the server's
}

func (m meter) measure(name string, n, callers int, call func(caller, i int) error) {
	took := make([]float64, n)
	var next atomic.Int64
	var group sync.WaitGroup
	cpu, began := m.cpu(), time.Now()
	for caller := range callers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				at := time.Now()
				if err := call(caller, i); err != nil {
					m.b.Errorf("%s: %v", name, err)
					return
				}
				took[i] = float64(time.Since(at).Microseconds()) / 1000
			}
		})
	}
	group.Wait()
	wall, spent := time.Since(began).Seconds(), m.cpu()-cpu
	report(name+": rate", "/s", float64(n)/wall)
	if spent > 0 { // else it is not known
		report(name+": server CPU each", "ms", spent.Seconds()*1000/float64(n))
	}
	reportQuantiles(fmt.Sprintf("%s: latency with %d callers", name, callers), "ms", took)
}

// reportQuantiles prints the middle, the late and the latest of many values.
func reportQuantiles(name, unit string, values []float64) {
	slices.Sort(values)
	at := func(q float64) float64 { return values[int(math.Min(q*float64(len(values)), float64(len(values)-1)))] }
	fmt.Printf("  %-46s %10.3f %s   (p90 %.3f, p99 %.3f, max %.3f)\n", name, at(0.5), unit, at(0.9), at(0.99), at(1))
}

// profileSeconds is how much of a measurement is profiled.
const profileSeconds = 4

// profileOf fetches the server's CPU profile while something is measured, where --profile names a folder for it.
func (t *server) profileOf(name string) (stop func()) {
	if t.b.profile == "" {
		return func() {}
	}
	file := t.profileFile(name)
	done := make(chan struct{})
	rc := t.clients(1)[0].CoreV1().RESTClient()
	go func() {
		defer close(done)
		raw, err := rc.Get().AbsPath("/debug/pprof/profile").Param("seconds", strconv.Itoa(profileSeconds)).DoRaw(context.Background())
		if err == nil {
			err = os.WriteFile(file, raw, 0o644)
		}
		if err != nil {
			t.b.Errorf("profile: %v", err)
		}
	}()
	return func() { <-done }
}
