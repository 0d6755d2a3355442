package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// serveVariable makes the test program a runtime of its own: what outlives a process must be tried with processes.
const serveVariable = "SKIFF_TEST_SERVE"

func TestMain(m *testing.M) {
	if base := os.Getenv(serveVariable); base != "" {
		os.Exit(serveForTest(base))
	}
	os.Exit(m.Run())
}

func serveForTest(base string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	r, err := New(testConfig(base))
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	go func() {
		<-r.Ready()
		fmt.Println("ready")
	}()
	if err := r.Run(ctx); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

func testConfig(base string) Config {
	return Config{
		Root: filepath.Join(base, "data", "containerd"), State: filepath.Join(base, "c"), BinDir: os.Getenv("SKIFF_BIN_DIR"),
		CNIConfDir: filepath.Join(base, "cni", "net.d"), CNIBinDir: filepath.Join(base, "cni", "bin"), CgroupRoot: "/" + filepath.Base(base),
		ImagesDir: filepath.Join(base, "images"),
		Log:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// newHost is a folder for one runtime, and a network plug-in that gives every pod the same address. All of it is gone after the test.
func newHost(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("containers need root; run the tests as root")
	}
	dir := os.Getenv("SKIFF_BIN_DIR")
	for _, name := range []string{"containerd-shim-runc-v2", "runc", "pause", "skiff-web"} {
		if _, err := os.Stat(filepath.Join(dir, name)); dir == "" || err != nil {
			t.Fatalf("SKIFF_BIN_DIR=%q has no %s; build the programs with make and name their folder", dir, name)
		}
	}
	base, err := os.MkdirTemp("/tmp", "skr")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, body string, mode os.FileMode) {
		file := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(body), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("cni/net.d/10-test.conflist", `{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"same"}]}`, 0o600)
	write("cni/bin/same", `#!/bin/sh
case "$CNI_COMMAND" in
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.1.2.3/24","interface":0}]}';;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}';;
esac
`, 0o755)
	t.Cleanup(func() {
		if err := Remove(context.Background(), testConfig(base), func(s string) { t.Log(s) }); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if err := os.RemoveAll(base); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return base
}

// process is a runtime in a process of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	conn *grpc.ClientConn
}

func startProcess(t *testing.T, base string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVariable+"="+base)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd}
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	line := make([]byte, 500)
	n, _ := out.Read(line)
	if got := strings.TrimSpace(string(line[:n])); got != "ready" {
		t.Fatalf("the runtime said %q", got)
	}
	t.Logf("ready after %s", time.Since(began).Round(time.Millisecond))
	if p.conn, err = dialCRI("unix://" + Socket(testConfig(base).State)); err != nil {
		t.Fatal(err)
	}
	return p
}

// end stops the process and says how long that took.
func (p *process) end(sig syscall.Signal) time.Duration {
	if p.cmd.ProcessState != nil {
		return 0
	}
	if p.conn != nil {
		_ = p.conn.Close()
	}
	began := time.Now()
	_ = p.cmd.Process.Signal(sig)
	err := p.cmd.Wait()
	if sig == syscall.SIGTERM && err != nil {
		p.t.Errorf("the runtime ended with %v", err)
	}
	return time.Since(began)
}

// pod makes a sandbox and a container of the built-in web image in it.
func makePod(t *testing.T, conn grpc.ClientConnInterface, base, name string, mode runtimeapi.NamespaceMode) (sandbox, container string) {
	t.Helper()
	cri := runtimeapi.NewRuntimeServiceClient(conn)
	options := &runtimeapi.NamespaceOption{Network: mode}
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "u-" + name}, Hostname: name,
		LogDirectory: filepath.Join(base, "logs"),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    "/" + filepath.Base(base) + "/kubepods/besteffort/podu-" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options},
		},
	}
	if mode == runtimeapi.NamespaceMode_NODE {
		config.Hostname = ""
	}
	began := time.Now()
	got, err := cri.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cri.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: got.PodSandboxId, SandboxConfig: config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "web"}, Image: &runtimeapi.ImageSpec{Image: WebImage}, LogPath: name + ".log",
			Command: []string{"/bin/sleep"}, Args: []string{"infinity"},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: options}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cri.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		t.Fatal(err)
	}
	t.Logf("pod %s runs after %s", name, time.Since(began).Round(time.Millisecond))
	return got.PodSandboxId, c.ContainerId
}

func run(t *testing.T, conn grpc.ClientConnInterface, container string, command ...string) string {
	t.Helper()
	got, err := runtimeapi.NewRuntimeServiceClient(conn).ExecSync(t.Context(),
		&runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: 10})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s%s%d", got.Stdout, got.Stderr, got.ExitCode)
}

func startedAt(t *testing.T, conn grpc.ClientConnInterface, container string) int64 {
	t.Helper()
	got, err := runtimeapi.NewRuntimeServiceClient(conn).ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: container})
	if err != nil {
		t.Fatal(err)
	}
	if got.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("the container is %s", got.Status.State)
	}
	return got.Status.StartedAt
}

// lose leaves what a runtime leaves that is killed between making a network namespace and noting whose it is.
func lose(t *testing.T, file string) {
	t.Helper()
	put(t, file, "")
	if err := syscall.Mount("/proc/self/ns/net", file, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}

// TestContainersOutliveTheRuntime: neither a kill nor an orderly stop touches them, and the next start takes them over; Remove ends it all.
func TestContainersOutliveTheRuntime(t *testing.T) {
	base := newHost(t)
	p := startProcess(t, base)
	_, onHost := makePod(t, p.conn, base, "host", runtimeapi.NamespaceMode_NODE)
	_, own := makePod(t, p.conn, base, "own", runtimeapi.NamespaceMode_POD)
	if got := run(t, p.conn, own, "sh", "-c", "hostname; exit 3"); got != "own\n3" {
		t.Errorf("exec printed %q", got)
	}
	before := map[string]int64{onHost: startedAt(t, p.conn, onHost), own: startedAt(t, p.conn, own)}

	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		took := p.end(sig)
		t.Logf("%s took %s", sig, took.Round(time.Millisecond))
		if took > 20*time.Second { // of the 30 that an orderly stop may take: it hangs
			t.Errorf("%s: stopping took %s", sig, took)
		}
		networks := filepath.Join(testConfig(base).State, uriCRI, "netns")
		mounted, _ := filepath.Glob(filepath.Join(networks, "*"))
		lose(t, filepath.Join(networks, "cni-lost"))
		p = startProcess(t, base)
		if now, _ := filepath.Glob(filepath.Join(networks, "*")); len(mounted) != 1 || !slices.Equal(now, mounted) {
			t.Errorf("%s: network namespaces after the next start: %v, before: %v and a lost one", sig, now, mounted)
		}
		for id, at := range before {
			if now := startedAt(t, p.conn, id); now != at {
				t.Errorf("%s: the container started at %d, before at %d", sig, now, at)
			}
			if got := run(t, p.conn, id, "sh", "-c", "echo $((6*7))"); got != "42\n0" {
				t.Errorf("%s: exec printed %q", sig, got)
			}
		}
	}

	p.end(syscall.SIGTERM)
	cfg := testConfig(base)
	groups := cgroupDirs("/sys/fs/cgroup", cfg.CgroupRoot)
	if pids, err := pidsIn(groups); err != nil || len(pids) != 4 {
		t.Errorf("processes in the cluster's cgroups: %v, %v; want two of containers and two pauses", pids, err)
	}
	for range 2 { // the second finds nothing to do
		if err := Remove(t.Context(), cfg, func(s string) { t.Log(s) }); err != nil {
			t.Fatal(err)
		}
	}
	left, _ := pidsIn(groups)
	running, _ := shims("/proc", cfg.State)
	mounts, _ := mountsBelow(base)
	if len(left)+len(running) > 0 {
		t.Errorf("processes are left: %v, shims: %v", left, running)
	}
	if len(mounts) > 0 {
		t.Errorf("mounts are left: %v", mounts)
	}
	if dirs := cgroupDirs("/sys/fs/cgroup", cfg.CgroupRoot); len(dirs) > 0 {
		t.Errorf("cgroups are left: %v", dirs)
	}
	if _, err := os.Stat(cfg.State); !os.IsNotExist(err) {
		t.Errorf("state is left: %v", err)
	}

	// What was removed is known as ended, and can be tidied up by whoever cares for pods.
	p = startProcess(t, base)
	cri := runtimeapi.NewRuntimeServiceClient(p.conn)
	list, err := cri.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Errorf("sandbox %s is ready after Remove", s.Metadata.Name)
		}
		if _, err := cri.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			t.Error(err)
		}
		if _, err := cri.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			t.Error(err)
		}
	}
}
