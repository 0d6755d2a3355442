package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"skiff.dev/skiff/test/cluster"
)

// TestEviction: pods that take more of the disk than they may are ended, and so is the one that fills it, before its node is of no use; the one
// beside it runs on.
func TestEviction(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--eviction-hard", "nodefs.available<150Mi,pid.available<1%")
	c.MountTmpfs("1200m")
	c.Up()
	c.WaitReady()
	c.Apply(writer("innocent", "", "sleep inf"))
	before := c.WaitPodReady("innocent")

	c.Apply(writer("limited", "limits: {ephemeral-storage: 8Mi}", "head -c 20000000 /dev/zero > /tmp/f; sleep inf"))
	c.Apply(writer("volume", "", "head -c 20000000 /dev/zero > /data/f; sleep inf", "{sizeLimit: 8Mi}"))
	wantEvicted(t, c, "limited", "Pod ephemeral local storage usage exceeds the total limit of containers 8Mi.")
	wantEvicted(t, c, "volume", `Usage of EmptyDir volume "data" exceeds the limit "8Mi".`)
	c.Apply(writer("greedy", "", "head -c 2000000000 /dev/zero > /data/f; sleep inf"))
	wantEvicted(t, c, "greedy", "The node was low on resource: ephemeral-storage. Threshold quantity: 150Mi, available: ")
	cluster.Eventually(t, func() error {
		const about = `{.items[0].status.conditions[?(@.type=="DiskPressure")].status} {.items[0].spec.taints[*].key}`
		if out := c.Kubectl("get", "nodes", "-o", "jsonpath="+about); out != "True node.kubernetes.io/disk-pressure" {
			return fmt.Errorf("the node says %s", out)
		}
		return nil
	})
	if now := c.WaitPodReady("innocent"); now.UID != before.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("the innocent pod was ended")
	}
}

// TestSoftEviction: when less is left than there should be, but not too little, a pod goes after the grace period, with time to end; the node tells of it
// until it is over.
func TestSoftEviction(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--eviction-hard=nodefs.available<50Mi,pid.available<1%", "--eviction-soft=nodefs.available<300Mi", "--eviction-soft-grace-period=nodefs.available=3s",
		"--eviction-max-pod-grace-period=30", "--eviction-minimum-reclaim=nodefs.available=10Mi", "--eviction-pressure-transition-period=2s")
	c.MountTmpfs("1200m")
	c.Up()
	c.WaitReady()
	pressure := func(want string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if out := c.Kubectl("get", "nodes", "-o", `jsonpath={.items[0].status.conditions[?(@.type=="DiskPressure")].status}`); out != want {
				return fmt.Errorf("DiskPressure is %s", out)
			}
			return nil
		})
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(c.DataDir, &fs); err != nil {
		t.Fatal(err)
	}
	size := int64(fs.Bavail)*fs.Bsize - 200<<20
	if size < 0 {
		t.Fatalf("%d bytes are free at the start; the disk is too small for this test", int64(fs.Bavail)*fs.Bsize)
	}
	host := t.TempDir()
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: large}
spec:
  terminationGracePeriodSeconds: 60
  volumes: [{name: data, emptyDir: {}}, {name: host, hostPath: {path: %q}}]
  containers:
  - name: main
    image: skiff.dev/web:1
    command: [sh, -c, "head -c %d /dev/zero > /data/f; sleep inf"]
    lifecycle: {preStop: {exec: {command: [sh, -c, "sleep 2; echo bye > /host/said"]}}}
    volumeMounts: [{name: data, mountPath: /data}, {name: host, mountPath: /host}]
`, host, size))
	pressure("True")
	wantEvicted(t, c, "large", "The node was low on resource: ephemeral-storage. Threshold quantity: 300Mi, available: ")
	if said, err := os.ReadFile(filepath.Join(host, "said")); string(said) != "bye\n" {
		t.Errorf("the pod had no time to end: %q, %v", said, err)
	}
	pressure("False")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("events", "--for", "node/"+c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")); !strings.Contains(out, "Attempting to reclaim ephemeral-storage") {
			return fmt.Errorf("the node has no such event:\n%s", out)
		}
		return nil
	})
}

// TestEvictionOfOthers: the pod goes that uses up a node's inodes; and pods go, one after another, from a node that has too little memory or too few process numbers.
func TestEvictionOfOthers(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	c.MountTmpfs("1200m,nr_inodes=60000")
	shortOf := func(threshold string) {
		c.Flags("--node-name=n1", "--eviction-pressure-transition-period=1s", "--eviction-hard="+threshold)
		c.Up()
		c.WaitReady()
	}
	evicted := func(name, resource, condition, taint string) {
		t.Helper()
		wantEvicted(t, c, name, "The node was low on resource: "+resource+". Threshold quantity: ")
		cluster.Eventually(t, func() error {
			out := c.Kubectl("get", "nodes", "-o", `jsonpath={.items[0].status.conditions[?(@.type=="`+condition+`")].status} {.items[0].spec.taints[*].key}`)
			if out != "True node.kubernetes.io/"+taint {
				return fmt.Errorf("the node says %s", out)
			}
			return nil
		})
	}
	shortOf("nodefs.inodesFree<20000")
	c.Apply(writer("innocent", "", "sleep inf"))
	before := c.WaitPodReady("innocent")
	c.Apply(writer("files", "", "i=0; while [ $i -lt 45000 ]; do echo > /data/$i; i=$((i+1)); done; sleep inf"))
	wantEvicted(t, c, "files", "The node was low on resource: inodes. Threshold quantity: 20k, available: ")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "nodes", "-o", `jsonpath={.items[0].status.conditions[?(@.type=="DiskPressure")].status}`); out != "False" {
			return fmt.Errorf("DiskPressure is %s", out)
		}
		return nil
	})
	if now := c.WaitPodReady("innocent"); now.UID != before.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("the innocent pod was ended")
	}
	c.Stop()
	shortOf("memory.available<99.99%")
	evicted("innocent", "memory", "MemoryPressure", "memory-pressure")
	c.Stop()
	shortOf("pid.available<1%")
	c.Apply(writer("next", "", "sleep inf"))
	c.WaitPodReady("next")
	c.Stop()
	shortOf("pid.available<99.99%")
	evicted("next", "pids", "PIDPressure", "pid-pressure")
}

// TestUnusedImagesGo: when the disk is filling up, the image goes that nobody uses and that can be pulled again; those in use, built in or imported stay, and so do pods.
func TestUnusedImagesGo(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	c.MountTmpfs("1200m")
	c.Up()
	c.WaitReady()
	importPeer(t, c)
	address := serveRegistry(t, c)
	for _, name := range []string{"used", "unused"} {
		image, err := mutate.Config(peerImage(t), v1.Config{Cmd: []string{"udp"}, Entrypoint: []string{"/bin/peer"}, Labels: map[string]string{"name": name}})
		if err != nil {
			t.Fatal(err)
		}
		pushImage(t, c, address+"/"+name+":1", image)
		c.Kubectl("run", name, "--image="+address+"/"+name+":1")
		c.WaitPodReady(name)
	}
	c.Kubectl("delete", "pod", "unused")

	var fs syscall.Statfs_t
	if err := syscall.Statfs(c.DataDir, &fs); err != nil {
		t.Fatal(err)
	}
	// Less than 15 % is left, more than the tenth from which on pods go.
	if err := os.WriteFile(filepath.Join(c.DataDir, "filling"), make([]byte, int64(fs.Bavail)*fs.Bsize-150<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		out, err := c.Skiff("image", "ls", "-o", "name")
		for name, want := range map[string]bool{address + "/used:1": true, address + "/unused:1": false, peerName: true, "skiff.dev/web:1": true} {
			if err == nil && strings.Contains(out, name+"\n") != want {
				err = fmt.Errorf("%s is there: %t", name, !want)
			}
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	if now := c.WaitPodReady("used"); now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("the pod that uses its image was ended")
	}
}

func wantEvicted(t *testing.T, c *cluster.Cluster, name, why string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if out := howEnded(c, name); !strings.HasPrefix(out, "Failed Evicted TerminationByKubelet: "+why) {
			return fmt.Errorf("%s: %s", name, out)
		}
		return nil
	})
}

// writer is a pod with an emptyDir that runs a command.
func writer(name, resources, command string, volume ...string) string {
	return `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: ` + strings.Join(append(volume, "{}")[:1], "") + `}]
  containers:
  - name: main
    image: skiff.dev/web:1
    command: [sh, -c, "` + command + `"]
    resources: {` + resources + `}
    volumeMounts: [{name: data, mountPath: /data}]
`
}
