// Package cluster starts real Skiff clusters for tests: the real binary, real containers, on a host of its own.
//
// A host is a network namespace with an address, a data dir below the test's temporary folder and a cluster name made from it, so that
// any number of clusters run beside each other and beside the machine's own. Whatever a test starts here is gone when it ends, also when it
// fails, and the test fails if something is left: processes, mounts, cgroups, network namespaces.
package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
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

// Cluster is one Skiff process on a host, as one test sees it. For gives other tests their view of the same process.
type Cluster struct {
	t         T
	namespace string // where Kubectl looks; "" for the default
	kubectl   []string
	*process
}

// process is what all views of a cluster share.
type process struct {
	host    *Host
	DataDir string
	bin     string
	mounted bool // DataDir is a file system of its own

	spaces chan struct{} // holds one for every namespace a test works in

	mu     sync.Mutex
	flags  []string
	env    []string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone; then exit holds its error
	exit   error
	out    *output
}

// New prepares a cluster on a host of its own without starting it.
func New(t T, flags ...string) *Cluster {
	t.Helper()
	return NewHost(t).New(t, flags...)
}

// New prepares a cluster on this host without starting it.
func (h *Host) New(t T, flags ...string) *Cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests run real containers: run them as root")
	}
	p := &process{host: h, DataDir: filepath.Join(t.TempDir(), "skiff"), flags: flags, bin: Binary(t, "skiff"), spaces: make(chan struct{}, maxSpaces)}
	c := &Cluster{t: t, kubectl: []string{p.bin, "kubectl"}, process: p}
	release := hold(c.abandon)
	t.Cleanup(func() {
		c.Remove()
		release()
	})
	return c
}

// For is the same cluster for a sub-test.
func (c *Cluster) For(t T) *Cluster {
	view := *c
	view.t = t
	return &view
}

// maxSpaces is how many sub-tests work on one cluster at a time. Two dozen at once start so many containers that each waits for half a minute, and
// the deadlines that the tests give to jobs and roll-outs pass.
const maxSpaces = 8

// Space is the same cluster for a sub-test that works in a namespace of its own, which is made here and goes with the cluster. It waits until
// fewer than maxSpaces do.
func (c *Cluster) Space(t T, namespace string) *Cluster {
	t.Helper()
	c.spaces <- struct{}{}
	t.Cleanup(func() { <-c.spaces })
	view := c.For(t)
	view.Kubectl("create", "namespace", namespace)
	view.namespace = namespace
	t.Cleanup(view.explainFailure)
	view.Kubectl("wait", "serviceaccount/default", "--for=create", "--timeout=3m") // no pod is let in before
	return view
}

// explainFailure prints what stands in the namespace, and what happened there last, if the test failed: the next moment it is gone.
func (c *Cluster) explainFailure() {
	if !c.t.Failed() || !c.running() {
		return
	}
	for _, look := range [][]string{
		{"get", "all", "--output=wide", "--request-timeout=10s"},
		{"get", "pods", "--output=jsonpath={range .items[*]}{.metadata.name}{\"\\t\"}{.status}{\"\\n\"}{end}", "--request-timeout=10s"},
		{"events", "--request-timeout=10s"},
	} {
		out, _ := c.TryKubectl(look...) // it is part of the answer why it failed
		c.t.Logf("kubectl %s:\n%s", strings.Join(look[:2], " "), tail(out, 60))
	}
}

// With is the same cluster seen through another kubectl.
func (c *Cluster) With(kubectl ...string) *Cluster {
	view := *c
	view.kubectl = kubectl
	return &view
}

// Start starts a cluster and returns once it is Ready.
func Start(t T, flags ...string) *Cluster {
	t.Helper()
	c := New(t, flags...)
	c.Up()
	return c
}

// Binary finds one of the programs that make builds: in SKIFF_BIN_DIR, or in the module's bin.
func Binary(t T, name string) string {
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
	bin := filepath.Join(dir, name)
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%s is not there; run make first: %v", bin, err)
	}
	return bin
}

// Up starts the process and waits until it says Ready.
func (c *Cluster) Up() {
	c.t.Helper()
	c.spawn("up")
	c.WaitReady()
}

// BeginServer starts the process as 'skiff server' and does not wait.
func (c *Cluster) BeginServer() {
	c.t.Helper()
	c.spawn("server")
}

// Server starts the process as 'skiff server' and waits until its API server answers.
func (c *Cluster) Server() {
	c.t.Helper()
	c.BeginServer()
	Eventually(c.t, func() error {
		if !c.running() {
			c.t.Fatalf("skiff ended before it was ready: %v\n%s", c.exit, c.out)
		}
		_, err := c.Skiff("kubectl", "get", "--raw=/readyz")
		return err
	})
}

// Flags replaces the flags of the next start.
func (c *Cluster) Flags(flags ...string) { c.flags = flags }

// Use has the next start, and every command that follows, run another skiff.
func (c *Cluster) Use(bin string) { c.bin, c.kubectl = bin, []string{bin, "kubectl"} }

// Env sets the environment of the next start and of every command that follows, besides this process's own.
func (c *Cluster) Env(variables ...string) { c.env = variables }

// spawn starts the process with a subcommand and flags and does not wait.
func (c *Cluster) spawn(subcommand string) {
	c.t.Helper()
	args := append([]string{subcommand, "--data-dir", c.DataDir}, c.flags...)
	out := &output{ready: make(chan struct{})}
	cmd := c.host.Command(c.bin, args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	exited := make(chan struct{})
	c.mu.Lock()
	c.cmd, c.out, c.exited = cmd, out, exited
	c.mu.Unlock()
	go func() {
		c.exit = cmd.Wait()
		close(exited)
	}()
}

// WaitReady waits for the line that says Ready.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	select {
	case <-c.out.ready:
	case <-c.exited:
		c.t.Fatalf("skiff ended before it was ready: %v\n%s", c.exit, c.out)
	case <-time.After(Patience):
		c.t.Fatalf("skiff was not ready after %s:\n%s", Patience, c.out)
	}
}

// Output is what the process has printed so far.
func (c *Cluster) Output() string { return c.out.String() }

// PID of the running process.
func (c *Cluster) PID() int { return c.cmd.Process.Pid }

// Stop asks the process to stop, as Ctrl-C does, and checks that it does so in order.
func (c *Cluster) Stop() {
	c.t.Helper()
	c.stop(syscall.SIGINT)
}

// Terminate asks the process to stop, as a service manager does, and checks that it does so in order.
func (c *Cluster) Terminate() {
	c.t.Helper()
	c.stop(syscall.SIGTERM)
}

func (c *Cluster) stop(how syscall.Signal) {
	c.t.Helper()
	c.signal(how)
	if err := c.Ended(); err != nil {
		c.t.Errorf("skiff stopped with %v:\n%s", err, c.out)
	}
}

// Ended waits for the end of the process and returns how it ended.
func (c *Cluster) Ended() error {
	c.t.Helper()
	select {
	case <-c.exited:
	case <-time.After(Patience):
		c.t.Fatalf("skiff has not ended after %s:\n%s", Patience, c.out)
	}
	return c.exit
}

// Kill ends the process, which must not have ended by itself, as a crash would.
func (c *Cluster) Kill() {
	c.t.Helper()
	if !c.running() {
		c.t.Fatalf("skiff ended by itself: %v\n%s", c.exit, c.out)
	}
	c.signal(syscall.SIGKILL)
	<-c.exited
}

// Crash starts the process and kills it after a while, however far it has got by then.
func (c *Cluster) Crash(after time.Duration) {
	c.t.Helper()
	c.spawn("up")
	select {
	case <-c.exited:
		c.t.Fatalf("skiff ended by itself: %v\n%s", c.exit, c.out)
	case <-time.After(after):
		c.Kill()
	}
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

// MountTmpfs puts the data dir on a file system of its own of that size ("256m"). Before the start only.
func (c *Cluster) MountTmpfs(size string) {
	c.t.Helper()
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Mount("skiff-test", c.DataDir, "tmpfs", 0, "size="+size); err != nil {
		c.t.Fatal(err)
	}
	c.mounted = true
}

// MountOverlay is MountTmpfs with a file system that has no mapped ids, as a container's is.
func (c *Cluster) MountOverlay() {
	c.t.Helper()
	lower, upper, work := c.t.TempDir(), c.t.TempDir(), c.t.TempDir()
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Mount("skiff-test", c.DataDir, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work); err != nil {
		c.t.Fatal(err)
	}
	c.mounted = true
}

// MountExt4 is MountTmpfs with a file system as disks have it. It needs loop devices.
func (c *Cluster) MountExt4(size string) {
	c.t.Helper()
	image := filepath.Join(c.t.TempDir(), "disk")
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	for _, args := range [][]string{
		{"truncate", "--size=" + size, image},
		{"mkfs.ext4", "-q", "-m", "0", image},
		{"mount", "-o", "loop", image, c.DataDir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			c.t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	c.mounted = true
}

// Command prepares a skiff command on the cluster's host.
func (c *Cluster) Command(args ...string) *exec.Cmd { return c.Program(c.bin, args...) }

// Program prepares any program on the cluster's host, with the cluster's kubeconfig.
func (c *Cluster) Program(name string, args ...string) *exec.Cmd {
	cmd := c.host.Command(name, args...)
	cmd.Env = append(os.Environ(), append(c.env, "SKIFF_DATA_DIR="+c.DataDir, "KUBECONFIG="+c.Kubeconfig())...)
	return cmd
}

// Kubeconfig is the administrator's.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.DataDir, "admin.kubeconfig") }

// Kubectl runs kubectl, which must succeed, and returns its standard output.
func (c *Cluster) Kubectl(args ...string) string {
	c.t.Helper()
	cmd := c.KubectlCommand(args...)
	var notes bytes.Buffer
	cmd.Stderr = &notes
	out, err := within(cmd, cmd.Output)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, &notes)
	}
	return string(out)
}

// TryKubectl runs kubectl, which may fail, and returns all it said.
func (c *Cluster) TryKubectl(args ...string) (string, error) {
	return combined(c.KubectlCommand(args...))
}

// KubectlCommand prepares a kubectl.
func (c *Cluster) KubectlCommand(args ...string) *exec.Cmd {
	all := c.kubectl[1:len(c.kubectl):len(c.kubectl)]
	if c.namespace != "" {
		all = append(all, "--namespace", c.namespace)
	}
	return c.Program(c.kubectl[0], append(all, args...)...)
}

// Apply applies a manifest.
func (c *Cluster) Apply(manifest string) string {
	c.t.Helper()
	cmd := c.KubectlCommand("apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	out, err := combined(cmd)
	if err != nil {
		c.t.Fatalf("kubectl apply: %v\n%s\n%s", err, out, manifest)
	}
	return out
}

// Run runs any program on the cluster's host.
func (c *Cluster) Run(name string, args ...string) (string, error) {
	return combined(c.Program(name, args...))
}

func combined(cmd *exec.Cmd) (string, error) {
	out, err := within(cmd, cmd.CombinedOutput)
	return string(out), err
}

// within bounds how long a command may take.
func within(cmd *exec.Cmd, run func() ([]byte, error)) ([]byte, error) {
	timer := time.AfterFunc(Patience+time.Minute, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})
	defer timer.Stop()
	return run()
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

// Host the cluster runs on.
func (c *Cluster) Host() *Host { return c.host }

// Remove ends the process and everything the cluster left, and checks that nothing remains. It is done at the test's end; a test that runs something
// the cluster leans on does it before it ends that.
func (c *Cluster) Remove() {
	c.explainFailure()
	if c.t.Failed() && c.out != nil {
		c.t.Logf("skiff said:\n%s", tail(c.out.String(), 200))
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
	name := c.Name()
	for _, err := range c.takeAway() {
		c.t.Errorf("%v", err)
	}
	if _, err := os.Stat(c.DataDir); err == nil {
		c.t.Errorf("left behind: the data dir")
	}
	for _, left := range leftovers(c.DataDir, name) {
		c.t.Errorf("left behind: %s", left)
	}
}

// takeAway removes what a cluster whose process has ended has on the machine, and its data.
func (c *Cluster) takeAway() (errs []error) {
	down := func(args ...string) {
		args = append([]string{"down"}, args...)
		if out, err := c.Skiff(args...); err != nil {
			errs = append(errs, fmt.Errorf("skiff %s: %w\n%s", strings.Join(args, " "), err, out))
		}
	}
	if c.mounted {
		down()
		if err := syscall.Unmount(c.DataDir, syscall.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount the data dir: %w", err))
		}
		if err := os.Remove(c.DataDir); err != nil {
			errs = append(errs, fmt.Errorf("remove the folder where the data dir was mounted: %w", err))
		}
	}
	down("--purge")
	return errs
}

// Leftovers lists what the cluster has on the machine besides its data, which should be nothing after 'skiff down'.
func (c *Cluster) Leftovers() []string {
	return append(c.host.leftovers(), leftovers(c.DataDir, c.Name())...)
}

// Name is what the cluster's things on the host carry; "" if it never got as far as having one.
func (c *Cluster) Name() string {
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

// tail of a text: its last n lines.
func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// Patience is how long tests wait for what should happen. It bounds a test that fails and says nothing of speed: a machine that is busy with ten
// clusters may take minutes for what takes it a second alone.
const Patience = 3 * time.Minute

// Eventually repeats check until it returns nil; if it never does, the test fails with its last error. It is for what no watch can tell (files,
// sockets, other programs).
func Eventually(t T, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(25 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("not within %s: %v", Patience, err)
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
