package telemetry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, body := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadingsAreTheSameOnBothVersions(t *testing.T) {
	want := usage{cpu: 5_000_000, memory: 1000, workingSet: 700, anonymous: 400, faults: 7, majorFaults: 2, limit: 4096, swap: 11, swaps: true}
	v1, v2 := t.TempDir(), t.TempDir()
	write(t, v1, map[string]string{
		"cpuacct/a/b/cpuacct.usage":        "5000000\n",
		"memory/a/b/memory.usage_in_bytes": "1000\n",
		"memory/a/b/memory.stat": "rss 1\ntotal_inactive_file 300\ntotal_rss 400\ntotal_pgfault 7\ntotal_pgmajfault 2\ntotal_swap 11\n" +
			"hierarchical_memory_limit 4096\n",
		"memory/a/b/cgroup.procs": "42\n43\n",
		"pids/a/b/pids.current":   "3\n",
	})
	write(t, v2, map[string]string{
		"a/b/cpu.stat":            "usage_usec 5000\nuser_usec 1\n",
		"a/b/memory.current":      "1000\n",
		"a/b/memory.stat":         "anon 400\ninactive_file 300\npgfault 7\npgmajfault 2\n",
		"a/b/memory.max":          "4096\n",
		"a/b/memory.swap.current": "11\n",
		"a/b/cgroup.procs":        "42\n43\n",
		"a/b/pids.current":        "3\n",
	})
	for name, c := range map[string]cgroups{"v1": {mount: v1}, "v2": {mount: v2, v2: true}} {
		got, err := c.read("/a/b")
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if c.processes("/a/b") != 3 || c.process("/a/b") != 42 || !c.exists("/a/b") || c.exists("/a/c") {
			t.Errorf("%s: processes are not found", name)
		}
	}
	write(t, v1, map[string]string{"memory/a/b/memory.stat": "hierarchical_memory_limit 9223372036854771712\n"})
	write(t, v2, map[string]string{"a/b/memory.max": "max\n"})
	for name, c := range map[string]cgroups{"v1": {mount: v1}, "v2": {mount: v2, v2: true}} {
		if got, err := c.read("/a/b"); err != nil || got.limit != 0 {
			t.Errorf("%s: unlimited memory reads as %d, %v", name, got.limit, err)
		}
	}
}

// TestDiskBytes: where the kernel doesn't count for a group, its processes' accounts are summed up; a pod's are those of its containers.
func TestDiskBytes(t *testing.T) {
	groups, proc := t.TempDir(), t.TempDir()
	write(t, groups, map[string]string{"memory/pod/cgroup.procs": "", "memory/pod/a/cgroup.procs": "42\n43\n", "memory/pod/b/cgroup.procs": "44\n45\n"})
	for pid, n := range map[string]string{"42": "1", "43": "20", "44": "300"} { // 45 has just ended
		write(t, proc, map[string]string{pid + "/io": "rchar: 9\nread_bytes: " + n + "\nwrite_bytes: " + n + "000\ncancelled_write_bytes: 7\n"})
	}
	h := host{proc: proc, groups: cgroups{mount: groups}}
	for group, want := range map[string]uint64{"/pod": 321, "/pod/a": 21, "/pod/b": 300, "/none": 0} {
		if d := h.detail(group); d.readBytes != want || d.wroteByte != 1000*want {
			t.Errorf("%s: %d and %d bytes, want %d", group, d.readBytes, d.wroteByte, want)
		}
	}
	write(t, groups, map[string]string{"blkio/pod/a/blkio.throttle.io_serviced": "8:0 Read 1\n8:0 Write 2\n", "blkio/pod/a/blkio.throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 8192\n"})
	if d := h.detail("/pod/a"); d.readBytes != 4096 || d.wroteByte != 8192 || d.reads != 1 || d.writes != 2 {
		t.Errorf("where the kernel counts: %+v", d)
	}
}

func TestClock(t *testing.T) {
	began := time.Unix(1000, 0)
	type step struct {
		after time.Duration
		nanos uint64
		rate  int64 // -1: none
	}
	cases := map[string]struct {
		began time.Time
		steps []step
	}{
		"of what began at an unknown time": {time.Time{}, []step{
			{0, 1e9, -1},
			{500 * time.Millisecond, 11e8, -1}, // too near
			{2 * time.Second, 3e9, 1e9},        // (3-1)/2: no whole window yet, so as much of one as there is
			{5 * time.Second, 56e8, 1e9},       // since the second
			{10 * time.Second, 56e8, 0},
			{15 * time.Second, 1e9, -1}, // another's clock
			{20 * time.Second, 6e9, 1e9},
		}},
		"of a container": {began, []step{
			{200 * time.Millisecond, 1e8, -1},
			{1 * time.Second, 5e8, 5e8}, // since it began
			{5 * time.Second, 25e8, 5e8},
			{10 * time.Second, 75e8, 1e9},
			{11 * time.Second, 85e8, 1e9}, // asked in between: since 5 s
		}},
	}
	for name, tc := range cases {
		c := &clock{}
		for i, s := range tc.steps {
			got := c.add(began.Add(s.after), s.nanos, tc.began)
			if (got == nil) != (s.rate < 0) || got != nil && int64(*got) != s.rate {
				if got == nil {
					got = new(uint64)
				}
				t.Errorf("%s, step %d: rate %d, want %d", name, i, *got, s.rate)
			}
		}
		for i := range 100 {
			c.add(began.Add(time.Duration(40+i)*time.Second), uint64(9e9), tc.began)
		}
		if c.n != history {
			t.Errorf("%d samples are kept", c.n)
		}
	}
}

// fakeRuntime answers the calls that a sampler makes.
type fakeRuntime struct{ sandboxes, containers int }

func (f *fakeRuntime) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	switch r := reply.(type) {
	case *runtimeapi.ListPodSandboxResponse:
		for range f.sandboxes {
			r.Items = append(r.Items, &runtimeapi.PodSandbox{
				Id: "s1", Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: "u1"}, CreatedAt: 5e9,
			})
		}
	case *runtimeapi.ListContainersResponse:
		for range f.containers {
			r.Containers = append(r.Containers, &runtimeapi.Container{
				Id: "c1", PodSandboxId: "s1", Labels: map[string]string{containerName: "main"}, CreatedAt: 6e9,
				Image: &runtimeapi.ImageSpec{UserSpecifiedImage: "web:1"},
			})
		}
	case *runtimeapi.ListContainerStatsResponse:
		r.Stats = []*runtimeapi.ContainerStats{{
			Attributes:    &runtimeapi.ContainerAttributes{Id: "c1"},
			WritableLayer: &runtimeapi.FilesystemUsage{UsedBytes: &runtimeapi.UInt64Value{Value: 77}, InodesUsed: &runtimeapi.UInt64Value{Value: 4}},
		}}
	case *runtimeapi.ImageFsInfoResponse:
		r.ImageFilesystems = []*runtimeapi.FilesystemUsage{{
			FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/"}, UsedBytes: &runtimeapi.UInt64Value{Value: 99},
		}}
	}
	return nil
}

func (f *fakeRuntime) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	panic("a sampler streams nothing")
}

func TestSummary(t *testing.T) {
	groups := t.TempDir()
	reading := func(cpu string) map[string]string {
		files := map[string]string{}
		for _, dir := range []string{"sk/kubepods/burstable/podu1", "sk/kubepods/burstable/podu1/c1"} {
			files[dir+"/cpu.stat"] = "usage_usec " + cpu + "\n"
			files[dir+"/memory.current"] = "1000\n"
			files[dir+"/memory.stat"] = "inactive_file 300\n"
			files[dir+"/cgroup.procs"] = ""
			files[dir+"/pids.current"] = "3\n"
			files[dir+"/cpu.pressure"] = "some avg10=1.50 avg60=0.25 avg300=0.00 total=2000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n"
			files[dir+"/io.pressure"] = "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
		}
		return files
	}
	write(t, groups, reading("1000000"))
	now := time.Unix(1000, 0)
	fake := &fakeRuntime{1, 1}
	s := New(Config{NodeName: "n1", CgroupRoot: "/sk", CRI: fake})
	s.host.groups, s.now = cgroups{mount: groups, v2: true, files: &files{open: map[string]*kept{}}}, func() time.Time { return now }
	ask := func() *stats.Summary {
		t.Helper()
		got, err := s.Summary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got.(*stats.Summary)
	}
	first := ask()
	if first.Node.NodeName != "n1" || *first.Node.CPU.UsageCoreNanoSeconds == 0 || *first.Node.Memory.WorkingSetBytes == 0 ||
		*first.Node.Runtime.ImageFs.UsedBytes != 99 {
		t.Errorf("node: %+v", first.Node)
	}
	now = now.Add(500 * time.Millisecond)
	if ask() != first {
		t.Error("a fresh sample is taken again")
	}
	write(t, groups, reading("2000000"))
	now = now.Add(1500 * time.Millisecond)
	got := ask()
	if len(got.Pods) != 1 || len(got.Pods[0].Containers) != 1 {
		t.Fatalf("pods: %+v", got.Pods)
	}
	pod, c := got.Pods[0], got.Pods[0].Containers[0]
	if pod.PodRef != (stats.PodReference{Name: "web", Namespace: "default", UID: "u1"}) || *pod.CPU.UsageNanoCores != 5e8 ||
		*pod.EphemeralStorage.UsedBytes != 77 {
		t.Errorf("pod: %+v", pod)
	}
	if c.Name != "main" || *c.CPU.UsageNanoCores != 5e8 || *c.Memory.WorkingSetBytes != 700 || *c.Rootfs.UsedBytes != 77 || c.StartTime.Unix() != 6 {
		t.Errorf("container: %+v", c)
	}
	for what, psi := range map[string]*stats.PSIStats{"pod": pod.CPU.PSI, "container": c.CPU.PSI} {
		if want := (stats.PSIStats{Some: stats.PSIData{Total: 2e9, Avg10: 1.5, Avg60: 0.25}, Full: stats.PSIData{Total: 5e8}}); psi == nil || *psi != want {
			t.Errorf("the %s waited for the CPU: %+v, want %+v", what, psi, want)
		}
	}
	if c.Memory.PSI != nil || c.IO == nil || c.IO.PSI.Some.Total != 7000 {
		t.Errorf("pressure that the kernel doesn't tell is there, or what it tells isn't: %+v, %+v", c.Memory.PSI, c.IO)
	}
	// Load that rises shows at a glance, once a second has passed; load that stays does not.
	for i, c := range []struct {
		cpu   string
		risen bool
	}{{"2500000", false}, {"3500000", true}, {"3600000", false}} {
		write(t, groups, reading(c.cpu))
		now = now.Add(time.Second)
		if s.glance(now) != c.risen {
			t.Errorf("glance %d: %v", i, !c.risen)
		}
	}
	w := httptest.NewRecorder()
	s.Containers().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics/cadvisor", nil))
	for _, want := range []string{
		`container_cpu_usage_seconds_total{container="main",cpu="total",id="/sk/kubepods/burstable/podu1/c1",image="web:1",name="c1",namespace="default",pod="web"} 3.6`,
		`container_memory_working_set_bytes{container="main",`, `container_fs_usage_bytes{container="main",device=""`,
		`container_cpu_cfs_throttled_periods_total{container="",id="/sk/kubepods/burstable/podu1"`, `container_memory_usage_bytes{container="",id="/",image=""`,
		`container_pressure_cpu_waiting_seconds_total{container="main",id="/sk/kubepods/burstable/podu1/c1",image="web:1",name="c1",namespace="default",pod="web"} 2`,
		`container_pressure_cpu_stalled_seconds_total{container="main",id="/sk/kubepods/burstable/podu1/c1",image="web:1",name="c1",namespace="default",pod="web"} 0.5`,
		`container_processes{container="main",id="/sk/kubepods/burstable/podu1/c1",image="web:1",name="c1",namespace="default",pod="web"} 3`,
		"machine_cpu_cores ", "container_scrape_error 0",
	} {
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics/cadvisor (%d) lacks %s:\n%.2000s", w.Code, want, w.Body)
		}
	}
	fake.sandboxes, fake.containers = 0, 0
	if err := os.RemoveAll(filepath.Join(groups, "sk/kubepods/burstable/podu1")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Second)
	if got := ask(); len(got.Pods) != 0 || len(s.clocks) != 1 {
		t.Errorf("what is gone is remembered: %v, %d clocks", got.Pods, len(s.clocks))
	}
}

func TestNodeAlone(t *testing.T) {
	got, err := New(Config{}).Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s := got.(*stats.Summary); s.Node.Fs == nil || s.Node.StartTime.IsZero() || s.Pods == nil {
		t.Errorf("%+v", s.Node)
	}
}
