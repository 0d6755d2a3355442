package test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff.dev/skiff/test/cluster"
)

// TestVolumes: what is mounted, how, and that changes arrive in running containers.
func TestVolumes(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	subtests(t, c, map[string]func(*testing.T, *cluster.Cluster){
		"config map":   configMapVolume,
		"secret":       secretVolume,
		"projected":    projectedVolume,
		"downward API": downwardVolume,
		"empty dir":    emptyDirVolume,
		"host path":    hostPathVolume,
		"sub-path":     subPathVolume,
		"propagation":  mountPropagation,
	})
}

func configMapVolume(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("create", "configmap", "cm", "--from-literal=a=one", "--from-literal=b=two")
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes:
    - {name: all, configMap: {name: cm}}
    - {name: some, configMap: {name: cm, items: [{key: a, path: deep/er, mode: 0400}], defaultMode: 0444}}
    - {name: none, configMap: {name: missing, optional: true}}
  containers:
    - name: main
      image: skiff.dev/web:1
      volumeMounts: [{name: all, mountPath: /all}, {name: some, mountPath: /some}, {name: none, mountPath: /none}, {name: all, mountPath: /file, subPath: a}]
`)
	c.WaitPodReady("p")
	read := func() string {
		return squeeze(c.Kubectl("exec", "p", "--", "sh", "-c", "cd /all; for f in *; do echo $f=$(cat $f); done; cat /some/deep/er; ls /none"))
	}
	if out := read(); out != "a=one b=two one" {
		t.Errorf("in the container: %q", out)
	}
	if out := c.Kubectl("exec", "p", "--", "sh", "-c", "ls -l /some/deep/ | grep er"); !strings.Contains(out, "-r--------") {
		t.Errorf("the file's mode: %s", out)
	}
	if out, err := c.TryKubectl("exec", "p", "--", "sh", "-c", "echo x > /all/a"); err == nil || !strings.Contains(out, "read-only") {
		t.Errorf("the container can write into it: %s", out)
	}
	began := time.Now()
	c.Kubectl("patch", "configmap", "cm", "--type=json", "-p", `[{"op": "replace", "path": "/data/a", "value": "new"}, {"op": "remove", "path": "/data/b"}]`)
	cluster.Eventually(t, func() error {
		if out := read(); out != "a=new new" {
			return fmt.Errorf("after a change: %q", out)
		}
		return nil
	})
	t.Logf("a change arrived within %s", time.Since(began).Round(time.Millisecond))
	if out := c.Kubectl("exec", "p", "--", "cat", "/file"); out != "one" {
		t.Errorf("a sub-path never changes, yet it is %q", out)
	}
}

func secretVolume(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("create", "secret", "generic", "s", "--from-literal=k=hush")
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: s, secret: {secretName: s, defaultMode: 0440}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: s, mountPath: /s, readOnly: true}]}]
`)
	p := c.WaitPodReady("p")
	if out := c.Kubectl("exec", "p", "--", "sh", "-c", "cat /s/k; grep ' /s ' /proc/mounts"); !strings.HasPrefix(out, "hush") || !strings.Contains(out, "tmpfs") {
		t.Errorf("in the container: %q; want it in memory only", out)
	}
	c.Kubectl("patch", "secret", "s", "-p", `{"stringData": {"k": "changed"}}`)
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("exec", "p", "--", "cat", "/s/k"); out != "changed" {
			return fmt.Errorf("after a change: %q", out)
		}
		return nil
	})
	c.Kubectl("delete", "pod", "p", "--now")
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(raw), string(p.UID)) {
		t.Errorf("the pod is gone, its mounts are not (%v)", err)
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, "kubelet", "pods", string(p.UID))); err == nil {
		t.Error("the pod is gone, its folder is not")
	}
}

func projectedVolume(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("create", "secret", "generic", "s", "--from-literal=k=hush")
	c.Kubectl("create", "configmap", "cm", "--from-literal=a=one")
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: x}}
spec:
  volumes:
    - name: v
      projected:
        sources:
          - {secret: {name: s, items: [{key: k, path: secret/k}]}}
          - {configMap: {name: cm}}
          - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
          - {serviceAccountToken: {path: token, audience: somebody, expirationSeconds: 600}}
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`)
	c.WaitPodReady("p")
	out := c.Kubectl("exec", "p", "--", "sh", "-c", "cat /v/secret/k /v/a /v/labels; echo; grep -c '[.].*[.]' /v/token")
	if squeeze(out) != `hushoneapp="x" 1` {
		t.Errorf("in the container: %q", out)
	}
	c.Kubectl("patch", "secret", "s", "-p", `{"stringData": {"k": "new-"}}`)
	c.Kubectl("patch", "configmap", "cm", "-p", `{"data": {"a": "two", "b": "more"}}`)
	c.Kubectl("label", "pod", "p", "app=y", "--overwrite")
	cluster.Eventually(t, func() error {
		if out := squeeze(c.Kubectl("exec", "p", "--", "sh", "-c", "cat /v/secret/k /v/a /v/labels /v/b")); out != `new-twoapp="y"more` {
			return fmt.Errorf("after changes of all its sources: %q", out)
		}
		return nil
	})
}

func downwardVolume(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: x}, annotations: {note: hi}}
spec:
  volumes:
    - name: v
      downwardAPI:
        items:
          - {path: labels, fieldRef: {fieldPath: metadata.labels}}
          - {path: name, fieldRef: {fieldPath: metadata.name}}
          - {path: memory, resourceFieldRef: {containerName: main, resource: limits.memory, divisor: 1Mi}}
  containers: [{name: main, image: "skiff.dev/web:1", resources: {limits: {memory: 48Mi}}, volumeMounts: [{name: v, mountPath: /v}]}]
`)
	c.WaitPodReady("p")
	read := func() string {
		return squeeze(c.Kubectl("exec", "p", "--", "sh", "-c", "cat /v/name; echo; cat /v/memory; echo; cat /v/labels"))
	}
	if out := read(); out != `p 48 app="x"` {
		t.Errorf("in the container: %q", out)
	}
	c.Kubectl("label", "pod", "p", "more=y")
	cluster.Eventually(t, func() error {
		if out := read(); out != `p 48 app="x" more="y"` {
			return fmt.Errorf("after a label was added: %q", out)
		}
		return nil
	})
}

func emptyDirVolume(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
  containers:
    - {name: one, image: "skiff.dev/web:1", volumeMounts: [{name: disk, mountPath: /d}, {name: memory, mountPath: /m}]}
    - {name: two, image: "skiff.dev/web:1", command: [sleep, "1000"], volumeMounts: [{name: disk, mountPath: /other}]}
`)
	c.WaitPodReady("p")
	c.Kubectl("exec", "p", "-c", "one", "--", "sh", "-c", "echo shared > /d/f")
	if out := c.Kubectl("exec", "p", "-c", "two", "--", "cat", "/other/f"); out != "shared\n" {
		t.Errorf("in the other container: %q", out)
	}
	if out, err := c.TryKubectl("exec", "p", "-c", "one", "--", "sh", "-c", "head -c 3000000 /dev/zero > /m/f"); err == nil {
		t.Errorf("3 MB fit into 1 MiB: %s", out)
	}
	// What is in it outlives a container.
	c.TryKubectl("exec", "p", "-c", "two", "--", "kill", "1")
	cluster.Eventually(t, func() error {
		out, err := c.TryKubectl("exec", "p", "-c", "two", "--", "cat", "/other/f")
		if err != nil || out != "shared\n" {
			return fmt.Errorf("after a restart: %q, %v", out, err)
		}
		return nil
	})
}

func hostPathVolume(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  volumes:
    - {name: made, hostPath: {path: "` + dir + `/made", type: DirectoryOrCreate}}
    - {name: file, hostPath: {path: "` + dir + `/file", type: FileOrCreate}}
  containers:
    - {name: main, image: "skiff.dev/web:1", command: [sh, -c, "echo a > /made/f; echo b > /file"], volumeMounts: [{name: made, mountPath: /made}, {name: file, mountPath: /file}]}
---
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  volumes: [{name: v, hostPath: {path: "` + dir + `/none", type: Directory}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`)
	c.WaitPodDone("p")
	for name, want := range map[string]string{"made/f": "a\n", "file": "b\n"} {
		if raw, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(raw) != want {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
	}
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("describe", "pod", "missing"); !strings.Contains(out, "hostPath type check failed") {
			return fmt.Errorf("describe does not say what is missing:\n%s", out)
		}
		return nil
	})
}

// mountPropagation: what host and pods mount in one folder is seen by those that asked for it, though the folder's mount was private.
func mountPropagation(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	if err := syscall.Mount("skiff-test", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := syscall.Mount("", dir, "", syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	modes := map[string]string{"both": "Bidirectional", "inward": "HostToContainer", "none": "None", "default": ""}
	for name, mode := range modes {
		if mode != "" {
			mode = ", mountPropagation: " + mode
		}
		c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, hostPath: {path: "` + dir + `"}}]
  containers:
    - name: main
      image: skiff.dev/web:1
      command: [sh, -c, "mkdir /v/` + name + ` && echo > /made && sleep inf"]
      readinessProbe: {exec: {command: [ls, /made]}, periodSeconds: 1}
      securityContext: {privileged: true}
      volumeMounts: [{name: v, mountPath: /v` + mode + `}]
`)
	}
	for name := range modes {
		c.WaitPodReady(name)
	}
	if err := os.Mkdir(filepath.Join(dir, "host"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("skiff-test", filepath.Join(dir, "host"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(dir, "host"), syscall.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "host", "seen"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name := range modes {
		inContainer(t, c.WaitPodReady(name).Status.ContainerStatuses[0].ContainerID, func() error {
			at := "/v/" + name
			if err := syscall.Mount("skiff-test", at, "tmpfs", 0, ""); err != nil {
				return err
			}
			return os.WriteFile(at+"/seen", nil, 0o644)
		})
	}
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(dir, "both"), syscall.MNT_DETACH) })
	for name, want := range map[string][]string{"both": {"both", "host"}, "inward": {"both", "host", "inward"}, "none": {"none"}, "default": {"default"}} {
		out := c.Kubectl("exec", name, "--", "sh", "-c", "cd /v; for d in both inward none default host; do [ ! -e $d/seen ] || echo $d; done")
		got := strings.Fields(out)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s sees what is mounted in %v, want %v", name, got, want)
		}
	}
	seen, _ := filepath.Glob(filepath.Join(dir, "*", "seen"))
	if want := []string{filepath.Join(dir, "both", "seen"), filepath.Join(dir, "host", "seen")}; !slices.Equal(seen, want) {
		t.Errorf("the host sees %v, want %v", seen, want)
	}
}

// inContainer does something in a container's mount namespace.
func inContainer(t *testing.T, id string, do func() error) {
	t.Helper()
	_, id, _ = strings.Cut(id, "://")
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range groups {
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), id) {
			continue
		}
		err := onThreadThatEnds(func() error {
			own, err := os.Open(filepath.Join(filepath.Dir(path), "ns/mnt"))
			if err != nil {
				return err
			}
			defer own.Close()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNS); err != nil {
				return err
			}
			return do()
		})
		if err != nil {
			t.Fatalf("in container %s: %v", id, err)
		}
		return
	}
	t.Fatalf("no process of container %s", id)
}

// onThreadThatEnds does what spoils a thread. The main thread never ends, and what it sees is what /proc/self shows: it only waits for another.
func onThreadThatEnds(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onThreadThatEnds(do)
			return
		}
		done <- do() // never unlocked, the thread ends with the goroutine
	}()
	return <-done
}

func subPathVolume(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers: [{name: make, image: "skiff.dev/web:1", command: [sh, -c, "mkdir -p /v/a/b; echo deep > /v/a/b/f"], volumeMounts: [{name: v, mountPath: /v}]}]
  containers:
    - name: main
      image: skiff.dev/web:1
      env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
      command: [sh, -c, "cat /b/f; echo new > /own/f; ls /v"]
      volumeMounts: [{name: v, mountPath: /b, subPath: a/b}, {name: v, mountPath: /own, subPathExpr: $(POD)}, {name: v, mountPath: /v}]
`)
	c.WaitPodDone("p")
	if out := squeeze(c.Kubectl("logs", "p")); out != "deep a p" {
		t.Errorf("in the container: %q", out)
	}
}
