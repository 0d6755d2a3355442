package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

// ownUsers is a pod with users of its own and volumes of all kinds, seen by its root and by a user without rights.
const ownUsers = `
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: own}}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  volumes:
    - {name: config, configMap: {name: c}}
    - {name: secret, secret: {secretName: s, defaultMode: 0440}}
    - {name: disk, emptyDir: {}}
    - {name: memory, emptyDir: {medium: Memory}}
    - {name: labels, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
    - {name: image, image: {reference: "skiff.dev/web:1"}}
    - {name: host, hostPath: {path: %q}}
  initContainers:
    - name: first
      image: skiff.dev/web:1
      command: [sh, -c, "echo first > /disk/first; mkdir /disk/sub; echo below > /disk/sub/f"]
      volumeMounts: [{name: disk, mountPath: /disk}]
  containers:
    - name: main
      image: skiff.dev/web:1
      volumeMounts: &mounts
        - {name: config, mountPath: /config}
        - {name: secret, mountPath: /secret}
        - {name: disk, mountPath: /disk}
        - {name: disk, mountPath: /sub, subPath: sub}
        - {name: memory, mountPath: /memory}
        - {name: labels, mountPath: /labels}
        - {name: image, mountPath: /image}
        - {name: host, mountPath: /host}
    - name: user
      image: skiff.dev/web:1
      env: [{name: PORT, value: "8081"}]
      securityContext: {runAsUser: 1000, runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, procMount: Unmasked}
      volumeMounts: *mounts
`

// TestUserNamespaces: the root of a pod with users of its own is nobody outside, no two pods have equal ids, and what is mounted for them is
// theirs to read and write.
func TestUserNamespaces(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	host := t.TempDir()
	c.Kubectl("create", "configmap", "c", "--from-literal=key=from-config")
	c.Kubectl("create", "secret", "generic", "s", "--from-literal=key=from-secret")
	node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.runtimeHandlers[?(@.name=='')].features.userNamespaces}")
	if node != "true" {
		t.Errorf("the node says of user namespaces: %q", node)
	}
	pods := map[string]string{}
	ranges := map[string]int{}
	for _, name := range []string{"one", "two"} {
		c.Apply(fmt.Sprintf(ownUsers, name, host))
	}
	for _, name := range []string{"one", "two"} {
		pods[name] = string(c.WaitPodReady(name).UID)
		ranges[name] = rangeOf(t, c, name, "main")
		if user := rangeOf(t, c, name, "user"); user != ranges[name] {
			t.Errorf("the containers of pod %s have ids from %d and from %d on", name, ranges[name], user)
		}
		seenFromOutside(t, c, pods[name], ranges[name])
	}
	if ranges["one"] == ranges["two"] {
		t.Errorf("both pods have ids from %d on", ranges["one"])
	}
	for _, container := range []string{"main", "user"} {
		readsAndWrites(t, c, container)
	}
	for file, owner := range map[string]uint32{"disk/first": 0, "disk/main": 0, "disk/user": 1000, "memory/user": 1000} {
		if uid, gid := ownerOf(t, filepath.Join(c.DataDir, "kubelet/pods", pods["one"], "volumes/kubernetes.io~empty-dir", file)); uid != owner || gid != 2000 {
			t.Errorf("%s belongs to %d:%d on the host, not to %d and the pod's group", file, uid, gid, owner)
		}
	}
	if uid, _ := ownerOf(t, filepath.Join(host, "main")); uid != 0 {
		t.Errorf("what the pod's root wrote into a folder of the host belongs to %d", uid)
	}
	if out := c.Kubectl("exec", "two", "-c", "main", "--", "wget", "-q", "-O", "-", "http://"+c.Kubectl("get", "pod", "one", "-o", "jsonpath={.status.podIP}")+":8080/hello"); !strings.Contains(out, "/hello") {
		t.Errorf("from one pod to the other: %q", out)
	}
	if out := c.Kubectl("exec", "one", "-c", "main", "--", "nslookup", "kubernetes.default"); !strings.Contains(out, "10.43.0.1") {
		t.Errorf("DNS from inside: %q", out)
	}
	c.Kubectl("debug", "one", "--image=skiff.dev/web:1", "--target=main", "-c", "look", "--", "cat", "/proc/1/uid_map", "/proc/self/uid_map")
	c.WaitPod("one", "looked at", func(p *corev1.Pod) bool {
		return len(p.Status.EphemeralContainerStatuses) == 1 && p.Status.EphemeralContainerStatuses[0].State.Terminated != nil
	})
	if out := c.Kubectl("logs", "one", "-c", "look"); strings.Count(out, strconv.Itoa(ranges["one"])) != 2 {
		t.Errorf("a container put into the pod sees %q, not its ids", out)
	}
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: last-words}
spec:
  hostUsers: false
  restartPolicy: Never
  initContainers: [{name: privileged, image: "skiff.dev/web:1", command: [cat, /proc/self/uid_map], securityContext: {privileged: true}}]
  containers: [{name: main, image: "skiff.dev/web:1", command: [sh, -c, "echo said > /dev/termination-log"], securityContext: {runAsUser: 1000}}]
`)
	if p := c.WaitPodDone("last-words"); p.Status.ContainerStatuses[0].State.Terminated.Message != "said\n" {
		t.Errorf("the termination message is %+v", p.Status.ContainerStatuses[0].State.Terminated)
	}
	if out := strings.Fields(c.Kubectl("logs", "last-words", "-c", "privileged")); len(out) != 3 || out[1] == "0" {
		t.Errorf("a privileged container has the host's users: %v", out)
	}
	refusesUsers(t, c)

	c.Kill()
	for _, dir := range []string{filepath.Join("/run/skiff", c.Name()), filepath.Join("/run/skiff", c.Name(), "containerd")} {
		if err := os.Chmod(dir, 0o700); err != nil { // as some earlier versions made them
			t.Fatal(err)
		}
	}
	c.Up()
	c.Apply(fmt.Sprintf(ownUsers, "three", host))
	three := c.WaitPodReady("three").UID
	pods["three"], ranges["three"] = string(three), rangeOf(t, c, "three", "main")
	for _, name := range []string{"one", "two"} {
		p := c.WaitPodReady(name)
		if now := rangeOf(t, c, name, "main"); now != ranges[name] || now == ranges["three"] {
			t.Errorf("after a crash of skiff pod %s has ids from %d on, before from %d; a new one from %d", name, now, ranges[name], ranges["three"])
		}
		for _, s := range p.Status.ContainerStatuses {
			if s.RestartCount != 0 {
				t.Errorf("the crash of skiff restarted container %s of pod %s", s.Name, name)
			}
		}
	}
	_, _ = c.TryKubectl("exec", "one", "-c", "main", "--", "kill", "1") // it may go with the container
	c.WaitPod("one", "restarted", func(p *corev1.Pod) bool {
		return cluster.Ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if now := rangeOf(t, c, "one", "main"); now != ranges["one"] {
		t.Errorf("a restarted container has ids from %d on, before from %d", now, ranges["one"])
	}
	c.Kubectl("delete", "pod", "one", "two", "three")
	for name, uid := range pods {
		if _, err := os.Stat(filepath.Join(c.DataDir, "kubelet/pods", uid, "userns")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("pod %s is gone, and still has its ids: %v", name, err)
		}
	}
}

// TestNoUserNamespaces: a node that cannot give pods users of their own says so, and why, and runs such pods not at all.
func TestNoUserNamespaces(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	c.MountOverlay()
	c.Up()
	if out := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.runtimeHandlers[*].features.userNamespaces}"); !strings.Contains(out, "false") || strings.Contains(out, "true") {
		t.Errorf("the node says of user namespaces: %q", out)
	}
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: own}
spec: {hostUsers: false, containers: [{name: main, image: "skiff.dev/web:1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: usual}
spec: {containers: [{name: main, image: "skiff.dev/web:1"}]}
`)
	withoutUsers(t, c, "own", "can't set `spec.hostUsers: false`: the filesystem of "+filepath.Join(c.DataDir, "kubelet")+" cannot be mounted with ids mapped")
	c.WaitPodReady("usual")
}

// rangeOf is the first id on the host of a container's, as its kernel tells it.
func rangeOf(t *testing.T, c *cluster.Cluster, pod, container string) int {
	t.Helper()
	first := 0
	for _, file := range []string{"uid_map", "gid_map"} {
		fields := strings.Fields(c.Kubectl("exec", pod, "-c", container, "--", "cat", "/proc/self/"+file))
		if len(fields) != 3 || fields[0] != "0" || fields[2] != "65536" {
			t.Fatalf("%s of container %s is %v", file, container, fields)
		}
		n, err := strconv.Atoi(fields[1])
		if err != nil || n < 65536 || n%65536 != 0 || first != 0 && n != first {
			t.Fatalf("%s of container %s begins at %v", file, container, fields[1])
		}
		first = n
	}
	return first
}

// seenFromOutside: the pod's processes, its sandbox's included, run as ids of its range.
func seenFromOutside(t *testing.T, c *cluster.Cluster, uid string, first int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		groups, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if err != nil || !strings.Contains(string(groups), "pod"+uid) {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		for line := range strings.Lines(string(raw)) {
			if fields := strings.Fields(line); fields[0] == "Uid:" || fields[0] == "Gid:" {
				found++
				for _, id := range fields[1:] {
					if n, err := strconv.Atoi(id); err != nil || n < first || n >= first+65536 {
						t.Errorf("a process of the pod, which has ids from %d on, runs as %s", first, strings.TrimSpace(line))
					}
				}
			}
		}
	}
	if found < 6 { // sandbox and two containers, users and groups
		t.Errorf("only %d lines tell as whom the pod's processes run", found)
	}
}

func readsAndWrites(t *testing.T, c *cluster.Cluster, container string) {
	t.Helper()
	sh := func(script string) string {
		out, err := c.TryKubectl("exec", "one", "-c", container, "--", "sh", "-c", script)
		if err != nil {
			t.Errorf("%s: %s: %v\n%s", container, script, err, out)
		}
		return out
	}
	for script, want := range map[string]string{
		"cat /config/key":         "from-config",
		"cat /secret/key":         "from-secret",
		"cat /labels/labels":      `app="own"`,
		"cat /disk/first":         "first",
		"cat /sub/f":              "below",
		"cat /etc/hosts":          "one",
		"cat /etc/resolv.conf":    "10.43.0.10",
		"cat /image/etc/passwd":   "nobody",
		"ls -l /image/etc/passwd": " 0     0 ",
		"cat /var/run/secrets/kubernetes.io/serviceaccount/token":        "eyJ",
		"cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt":       "BEGIN CERTIFICATE",
		"echo x > /disk/" + container + "; ls -l /disk/" + container:     "2000",
		"echo x > /memory/" + container + "; ls -l /memory/" + container: "2000",
		"echo x > /dev/shm/" + container + "; cat /dev/shm/" + container: "x",
	} {
		if out := sh(script); !strings.Contains(out, want) {
			t.Errorf("%s: no %q in what %s says: %q", container, want, script, out)
		}
	}
	mounts, masked := sh("cat /proc/self/mountinfo"), container == "main"
	if strings.Contains(mounts, " /proc/interrupts ") != masked {
		t.Errorf("%s: masked should be %t:\n%s", container, masked, mounts)
	}
	if container == "main" {
		sh("echo x > /host/main && echo x > /sub/main && echo x > /of-root")
		return
	}
	for _, file := range []string{"/host/user", "/of-user", "/config/user"} {
		if out, err := c.TryKubectl("exec", "one", "-c", container, "--", "sh", "-c", "echo x > "+file); err == nil {
			t.Errorf("a user without rights wrote %s, which is for root to write: %s", file, out)
		}
	}
}

func ownerOf(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return sys.Uid, sys.Gid
}

// refusesUsers: what cannot be had with users of one's own is said, in the pod's status too, and nothing of the pod runs without.
func refusesUsers(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	count := func(name string) int {
		node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
		found := regexp.MustCompile("(?m)^kubelet_started_user_namespaced_pods_" + name + " ([0-9]+)$").FindStringSubmatch(c.Kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/metrics"))
		if found == nil {
			t.Fatalf("there is no count of %s", name)
		}
		n, _ := strconv.Atoi(found[1]) // digits
		return n
	}
	failed := count("errors_total")
	if n := count("total"); n < failed+3 {
		t.Errorf("%d starts are counted, %d of them failed; three pods run", n, failed)
	}
	defer func() {
		if n := count("errors_total"); n == failed {
			t.Error("a pod that is refused is not counted")
		}
	}()
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: no-such-id}
spec:
  hostUsers: false
  securityContext: {fsGroup: 70000}
  containers: [{name: main, image: "skiff.dev/web:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: unmappable}
spec:
  hostUsers: false
  volumes: [{name: v, hostPath: {path: /sys/kernel}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`)
	for pod, want := range map[string]string{
		"no-such-id": "can't set `spec.hostUsers: false`: spec.securityContext.fsGroup: 70000 is not among the ids of the pod",
		"unmappable": "failed to set MOUNT_ATTR_IDMAP on /sys/kernel",
	} {
		withoutUsers(t, c, pod, want)
		c.Kubectl("delete", "pod", pod, "--now")
	}
}

// withoutUsers: nothing of the pod runs, and its status and an event say why.
func withoutUsers(t *testing.T, c *cluster.Cluster, pod, want string) {
	t.Helper()
	p := c.WaitPod(pod, "refused", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && strings.Contains(s[0].State.Waiting.Message, want)
	})
	if s := p.Status.ContainerStatuses[0]; s.Ready || s.State.Running != nil {
		t.Errorf("pod %s: %+v", pod, s)
	}
	cluster.Eventually(t, func() error { // events are written a moment later
		events, err := c.Client().CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod + ",type=Warning"})
		if err == nil && !slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return strings.Contains(e.Message, want) }) {
			err = fmt.Errorf("no event of pod %s says %q", pod, want)
		}
		return err
	})
}
