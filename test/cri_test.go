package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// TestExternalRuntime: with --cri-endpoint pods run in a containerd that was started separately: Debian's, in a process of its own.
func TestExternalRuntime(t *testing.T) {
	t.Parallel()
	programs := debianContainerd(t)
	whole := cluster.New(t)
	socket := startContainerd(t, whole, programs)
	whole.Flags("--cri-endpoint=unix://" + socket)
	whole.Up()
	applyWeb(t, whole)
	t.Run("node", func(t *testing.T) {
		if out := whole.For(t).Kubectl("get", "nodes", "-o", "wide"); !strings.Contains(out, "containerd://1.") {
			t.Errorf("the node names another runtime:\n%s", out)
		}
	})
	t.Run("services", func(t *testing.T) { servicesAnswer(t, whole.For(t)) })
	t.Run("logs", func(t *testing.T) { logsFollow(t, whole.For(t)) })
	t.Run("exec", func(t *testing.T) { execStreams(t, whole.For(t)) })
	t.Run("exec -it", func(t *testing.T) { execTerminal(t, whole.For(t)) })
	t.Run("port-forward", func(t *testing.T) { portForward(t, whole.For(t)) })
	t.Run("a killed container is restarted", func(t *testing.T) { killContainer(t, whole.For(t)) })
	t.Run("skiff restarts", func(t *testing.T) {
		c := whole.For(t)
		before := lives(t, c)
		c.Kill()
		c.Up()
		if after := lives(t, c); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("containers changed:\nbefore %v\nafter  %v", before, after)
		}
	})
	t.Run("images", func(t *testing.T) {
		if out, err := whole.Skiff("image", "ls", "--cri-endpoint=unix://"+socket); err != nil || !strings.Contains(out, "skiff.dev/web") {
			t.Errorf("ls: %v\n%s", err, out)
		}
	})
	t.Run("down", func(t *testing.T) {
		c := whole.For(t)
		if out, err := c.Skiff("down", "--data-dir", c.DataDir); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, left := range c.Leftovers() {
			t.Errorf("left behind: %s", left)
		}
	})
}

// debianContainerd fetches Debian's packages of containerd, runc and the loopback plug-in into the user's cache and unpacks them there; nothing is installed.
func debianContainerd(t *testing.T) (dir string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), "cache")
	}
	dir = filepath.Join(cache, "skiff-test", "containerd")
	if _, err := os.Stat(filepath.Join(dir, "usr", "lib", "cni", "loopback")); err == nil {
		return dir
	}
	packages := t.TempDir()
	fetch := exec.Command("apt-get", "download", "containerd", "runc", "containernetworking-plugins")
	fetch.Dir = packages
	if err := fetch.Run(); err != nil {
		if out, err := exec.Command("apt-get", "update").CombinedOutput(); err != nil {
			t.Fatalf("this test needs Debian's packages containerd, runc and containernetworking-plugins, and apt-get update failed: %v\n%s", err, out)
		}
		fetch = exec.Command("apt-get", "download", "containerd", "runc", "containernetworking-plugins")
		fetch.Dir = packages
		if out, err := fetch.CombinedOutput(); err != nil {
			t.Fatalf("this test needs Debian's packages containerd, runc and containernetworking-plugins, which cannot be downloaded: %v\n%s", err, out)
		}
	}
	files, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil || len(files) != 3 {
		t.Fatalf("apt-get download left %v, %v", files, err)
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(fresh, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if out, err := exec.Command("dpkg", "-x", file, fresh).CombinedOutput(); err != nil {
			t.Fatalf("dpkg -x %s: %v\n%s", file, err, out)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startContainerd runs it on the cluster's host, with all it keeps in a folder of the test's, and loads the images that Skiff has built in.
func startContainerd(t *testing.T, c *cluster.Cluster, programs string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "skifftest-") // sockets want short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "c.sock")
	config := filepath.Join(dir, "config.toml")
	plugins := filepath.Join(dir, "cni")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{cluster.Binary(t, "skiff-cni"), filepath.Join(programs, "usr", "lib", "cni", "loopback")} {
		if err := os.Symlink(file, filepath.Join(plugins, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(config, []byte(`
version = 2
root = "`+filepath.Join(t.TempDir(), "root")+`"
state = "`+dir+`/state"
[grpc]
  address = "`+socket+`"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "skiff.dev/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "`+plugins+`"
    conf_dir = "`+c.DataDir+`/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "`+programs+`/usr/sbin/runc"
      SystemdCgroup = false
`), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon := c.Program(filepath.Join(programs, "usr", "bin", "containerd"), "--config", config)
	daemon.Env = append(daemon.Env, "PATH="+filepath.Join(programs, "usr", "bin")+":"+os.Getenv("PATH"))
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Remove() // which needs it
		_ = daemon.Process.Signal(os.Interrupt)
		_ = daemon.Wait()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("containerd said:\n%s", said[max(0, len(said)-20_000):])
		}
	})
	web := cluster.Binary(t, "skiff-web")
	links := map[string]string{"skiff-web": web}
	for _, name := range regexp.MustCompile(`\w+`).FindAllString("sh cat kill wget hostname", -1) {
		links["bin/"+name] = web
	}
	for ref, archive := range map[string]string{
		"skiff.dev/pause:1": cluster.SaveImage(t, cluster.BuildImage(t, map[string]string{"pause": cluster.Binary(t, "pause")}, "/pause"), "skiff.dev/pause:1"),
		"skiff.dev/web:1":   cluster.SaveImage(t, cluster.BuildImage(t, links, "/skiff-web"), "skiff.dev/web:1"),
	} {
		cluster.Eventually(t, func() error {
			out, err := c.Run(filepath.Join(programs, "usr", "bin", "ctr"), "--address", socket, "--namespace", "k8s.io", "images", "import", archive)
			if err != nil {
				return fmt.Errorf("import %s: %w\n%s", ref, err, out)
			}
			return nil
		})
	}
	return socket
}
