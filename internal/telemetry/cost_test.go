package telemetry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// crowd is a runtime with many pods of one container.
type crowd struct {
	fakeRuntime
	pods int
}

func (c *crowd) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	for i := range c.pods {
		switch r := reply.(type) {
		case *runtimeapi.ListPodSandboxResponse:
			r.Items = append(r.Items, &runtimeapi.PodSandbox{Id: "s", Metadata: &runtimeapi.PodSandboxMetadata{Uid: fmt.Sprint(i)}})
			r.Items[i].Id = fmt.Sprint("s", i)
		case *runtimeapi.ListContainersResponse:
			r.Containers = append(r.Containers, &runtimeapi.Container{Id: "c", PodSandboxId: fmt.Sprint("s", i)})
		}
	}
	return nil
}

// BenchmarkSample and BenchmarkGlance read real cgroups, a hundred pods' worth; a sample comes every Period, a glance every second.
func BenchmarkSample(b *testing.B) {
	s := crowded(b, 100)
	report := share(b)
	for range b.N {
		if _, err := s.measure(b.Context(), time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	report(Period)
}

func BenchmarkGlance(b *testing.B) {
	s := crowded(b, 100)
	report := share(b)
	for range b.N {
		s.glance(time.Now())
	}
	report(glancePeriod)
}

// share reports the CPU that was used since, as a share of a core when it is used once every period.
func share(b *testing.B) func(period time.Duration) {
	used := func() time.Duration {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	before := used()
	b.ResetTimer()
	return func(period time.Duration) {
		b.ReportMetric(100*float64(used()-before)/float64(b.N)/float64(period), "%core")
	}
}

func crowded(b *testing.B, pods int) *Sampler {
	root := fmt.Sprintf("/skiff-bench-%d", os.Getpid())
	s := New(Config{CgroupRoot: root, CRI: &crowd{pods: pods}})
	trees := []string{"memory", "cpuacct", "pids"}
	if s.host.groups.v2 {
		trees = []string{""}
	}
	b.Cleanup(s.host.groups.files.close)
	var made []string
	b.Cleanup(func() {
		for i := len(made) - 1; i >= 0; i-- {
			_ = os.Remove(made[i])
		}
	})
	for _, tree := range trees {
		for i := range pods {
			dir := filepath.Join(s.host.groups.mount, tree)
			for _, part := range []string{root, "kubepods", "burstable", fmt.Sprint("pod", i), "c"} {
				dir = filepath.Join(dir, part)
				if err := os.Mkdir(dir, 0o755); err == nil {
					made = append(made, dir)
				} else if !os.IsExist(err) {
					b.Skipf("this needs root: %v", err)
				}
			}
		}
	}
	if _, err := s.measure(b.Context(), time.Now()); err != nil || len(s.groups) != pods || len(s.groups[0].containers) != 1 {
		b.Fatalf("%d pods, %v", len(s.groups), err)
	}
	return s
}
