// Package cluster starts real Skiff clusters for tests: the real binary, real containers, on a host of its own.
//
// A host is a network namespace with an address, a data dir below the test's temporary folder and a cluster name made from it, so that
// any number of clusters run beside each other and beside the machine's own. Whatever a test starts here is gone when it ends, also when it
// fails, and the test fails if something is left: processes, mounts, cgroups, network namespaces.
package cluster

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// T is what a cluster needs of a test; *testing.T has it, and so has the benchmarks' runner.
type T interface {
	Helper()
	Cleanup(func())
	TempDir() string
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

// Cluster is one Skiff process on a host of its own.
type Cluster struct {
	t       T
	host    *Host
	DataDir string
	flags   []string
	bin     string
	tmpfs   bool

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone; then exit holds its error
	exit   error
	out    *output
}

// New prepares a cluster on a host of its own without starting it.
func New(t T, flags ...string) *Cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests run real containers: run them as root")
	}
	c := &Cluster{t: t, host: NewHost(t), DataDir: filepath.Join(t.TempDir(), "skiff"), flags: flags, bin: binary(t)}
	t.Cleanup(c.remove)
	return c
}

// Start starts a cluster and returns once it is Ready.
func Start(t T, flags ...string) *Cluster {
	t.Helper()
	c := New(t, flags...)
	c.Up()
	return c
}

// binary finds bin/skiff: in SKIFF_BIN_DIR, or in the module's bin.
func binary(t T) string {
	t.Helper()
	dir := os.Getenv("SKIFF_BIN_DIR")
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for root := wd; root != "/"; root = filepath.Dir(root) {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				dir = filepath.Join(root, "bin")
				break
			}
		}
	}
	bin := filepath.Join(dir, "skiff")
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%s is not there; run make first: %v", bin, err)
	}
	return bin
}

// Up starts the process and waits until it says Ready.
func (c *Cluster) Up() {
	c.t.Helper()
	c.spawn("up")
	c.WaitReady(time.Minute)
}

// Server starts the process as 'skiff server' and waits until its API server answers.
func (c *Cluster) Server() {
	c.t.Helper()
	c.spawn("server")
	Eventually(c.t, time.Minute, func() error {
		if !c.running() {
			c.t.Fatalf("skiff ended before it was ready: %v\n%s", c.exit, c.out)
		}
		_, err := c.Skiff("kubectl", "get", "--raw=/readyz")
		return err
	})
}

// spawn starts the process with a subcommand and flags and does not wait.
func (c *Cluster) spawn(subcommand string) {
	c.t.Helper()
	args := append([]string{subcommand, "--data-dir", c.DataDir}, c.flags...)
	c.out = &output{ready: make(chan struct{})}
	c.cmd = c.host.Command(c.bin, args...)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	exited := make(chan struct{})
	c.exited = exited
	go func(cmd *exec.Cmd) {
		c.exit = cmd.Wait()
		close(exited)
	}(c.cmd)
}

// WaitReady waits for the line that says Ready.
func (c *Cluster) WaitReady(patience time.Duration) {
	c.t.Helper()
	select {
	case <-c.out.ready:
	case <-c.exited:
		c.t.Fatalf("skiff ended before it was ready: %v\n%s", c.exit, c.out)
	case <-time.After(patience):
		c.t.Fatalf("skiff was not ready after %s:\n%s", patience, c.out)
	}
}

// Output is what the process has printed so far.
func (c *Cluster) Output() string { return c.out.String() }

// PID of the running process.
func (c *Cluster) PID() int { return c.cmd.Process.Pid }

// Stop asks the process to stop, as Ctrl-C does, and checks that it does so in order.
func (c *Cluster) Stop() {
	c.t.Helper()
	c.signal(syscall.SIGINT)
	select {
	case <-c.exited:
	case <-time.After(40 * time.Second):
		c.t.Fatalf("skiff did not stop on SIGINT:\n%s", c.out)
	}
	if c.exit != nil {
		c.t.Errorf("skiff stopped with %v:\n%s", c.exit, c.out)
	}
}

// Kill ends the process as a crash would.
func (c *Cluster) Kill() {
	c.t.Helper()
	c.signal(syscall.SIGKILL)
	<-c.exited
}

func (c *Cluster) signal(s syscall.Signal) {
	if err := c.cmd.Process.Signal(s); err != nil && c.running() {
		c.t.Fatal(err)
	}
}

func (c *Cluster) running() bool {
	if c.cmd == nil {
		return false
	}
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// Skiff runs a skiff command on the cluster's host.
func (c *Cluster) Skiff(args ...string) (string, error) {
	return combined(c.Command(args...))
}

// Binary is the program under test.
func (c *Cluster) Binary() string { return c.bin }

// MountTmpfs puts the data dir on a file system of its own of that size ("256m"). Before the start only.
func (c *Cluster) MountTmpfs(size string) {
	c.t.Helper()
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Mount("skiff-test", c.DataDir, "tmpfs", 0, "size="+size); err != nil {
		c.t.Fatal(err)
	}
	c.tmpfs = true
}

// Command prepares a skiff command on the cluster's host.
func (c *Cluster) Command(args ...string) *exec.Cmd { return c.Program(c.bin, args...) }

// Program prepares any program on the cluster's host, with the cluster's kubeconfig.
func (c *Cluster) Program(name string, args ...string) *exec.Cmd {
	cmd := c.host.Command(name, args...)
	cmd.Env = append(os.Environ(), "SKIFF_DATA_DIR="+c.DataDir, "KUBECONFIG="+c.Kubeconfig())
	return cmd
}

// Kubeconfig is the administrator's.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.DataDir, "admin.kubeconfig") }

// Kubectl runs the kubectl that is built in; it must succeed.
func (c *Cluster) Kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.Skiff(append([]string{"kubectl"}, args...)...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s\nskiff said:\n%s", strings.Join(args, " "), err, out, c.out)
	}
	return out
}

// Apply applies a manifest.
func (c *Cluster) Apply(manifest string) string {
	c.t.Helper()
	cmd := c.Command("kubectl", "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	out, err := combined(cmd)
	if err != nil {
		c.t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	return out
}

// Run runs any program on the cluster's host.
func (c *Cluster) Run(name string, args ...string) (string, error) {
	return combined(c.Program(name, args...))
}

func combined(cmd *exec.Cmd) (string, error) {
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	timer := time.AfterFunc(2*time.Minute, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})
	defer timer.Stop()
	err := cmd.Run()
	return buf.String(), err
}

// Client is client-go against the cluster, from its host.
func (c *Cluster) Client() *kubernetes.Clientset {
	c.t.Helper()
	cs, err := kubernetes.NewForConfig(c.RESTConfig())
	if err != nil {
		c.t.Fatal(err)
	}
	return cs
}

// RESTConfig is the administrator's, dialling from the cluster's host.
func (c *Cluster) RESTConfig() *rest.Config {
	c.t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		c.t.Fatal(err)
	}
	cfg.Dial = c.host.Dial
	cfg.QPS, cfg.Burst = 1000, 2000
	return cfg
}

// HTTP fetches a URL (with an IP address for its host) from the cluster's host, on a connection of its own.
func (c *Cluster) HTTP(url string) (string, error) {
	return c.host.HTTP(url)
}

// Host is the host the cluster runs on.
func (c *Cluster) Host() *Host { return c.host }

// remove ends the process and everything the cluster left, and checks that nothing remains.
func (c *Cluster) remove() {
	if c.t.Failed() && c.out != nil {
		c.t.Logf("skiff said:\n%s", c.out)
	}
	if c.running() {
		c.signal(syscall.SIGTERM)
		select {
		case <-c.exited:
		case <-time.After(40 * time.Second):
			c.t.Errorf("skiff did not stop on SIGTERM")
			_ = c.cmd.Process.Kill()
			<-c.exited
		}
	}
	name := c.name()
	if c.tmpfs {
		if out, err := c.Skiff("down"); err != nil {
			c.t.Errorf("skiff down: %v\n%s", err, out)
		}
		if err := syscall.Unmount(c.DataDir, syscall.MNT_DETACH); err != nil {
			c.t.Errorf("unmount the data dir: %v", err)
		}
	}
	if out, err := c.Skiff("down", "--purge"); err != nil {
		c.t.Errorf("skiff down --purge: %v\n%s", err, out)
	}
	for _, left := range leftovers(c.DataDir, name) {
		c.t.Errorf("left behind: %s", left)
	}
}

// name is what the cluster's things on the host carry; "" if it never got as far as having one.
func (c *Cluster) name() string {
	raw, err := os.ReadFile(filepath.Join(c.DataDir, "cluster.json"))
	if err != nil {
		return ""
	}
	var rec struct{ ClusterName string }
	if err := json.Unmarshal(raw, &rec); err != nil {
		c.t.Errorf("cluster.json: %v", err)
	}
	return rec.ClusterName
}

// Eventually repeats check until it returns nil; if it never does within the time, the test fails with its last error. It is for what no watch
// can tell (files, sockets, other programs).
func Eventually(t T, patience time.Duration, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(25 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("not within %s: %v", patience, err)
}

// output collects what a process prints and notices when it says Ready.
type output struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if bytes.Contains(o.buf.Bytes(), []byte("Ready in")) {
		o.once.Do(func() { close(o.ready) })
	}
	return len(p), nil
}

func (o *output) String() string {
	if o == nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
