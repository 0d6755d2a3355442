package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// TestClaims: storage that outlives pods and Skiff, and goes when it is told to.
func TestClaims(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	t.Run("stateful set", func(t *testing.T) { statefulClaims(t, c.For(t)) })
	subtests(t, c, map[string]func(*testing.T, *cluster.Cluster){
		"ephemeral": ephemeralClaim,
		"sub-path":  claimSubPath,
		"expansion": claimExpansion,
		"retain":    retainedVolume,
		"waiting":   unboundClaims,
		"binding":   volumeBindings,
		"links":     linkedVolume,
	})
}

// directories are the local volumes on the cluster's host.
func directories(t *testing.T, c *cluster.Cluster) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.DataDir, "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func volumeGone(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if _, err := os.Stat(filepath.Join(c.DataDir, "volumes", name)); err == nil {
			return fmt.Errorf("the directory of %s is still there; %v", name, directories(t, c))
		}
		if out := c.Kubectl("get", "pv", name, "--ignore-not-found", "-o", "jsonpath={.status.phase} {.metadata}"); out != "" {
			return fmt.Errorf("the volume is still there: %s", out)
		}
		return nil
	})
}

func volumeName(c *cluster.Cluster, claim string) string {
	return c.Kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
}

// A StatefulSet's data survive its pod, Skiff's crash, and the set; they go with the claim.
func statefulClaims(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: data, mountPath: /data}]}]
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}}]
`)
	c.Kubectl("rollout", "status", "statefulset/db", "--timeout=3m")
	c.Kubectl("exec", "db-0", "--", "sh", "-c", "echo zero > /data/who")
	c.Kubectl("exec", "db-1", "--", "sh", "-c", "echo one > /data/who")
	check := func(when string) {
		t.Helper()
		for pod, want := range map[string]string{"db-0": "zero", "db-1": "one"} {
			if out := c.Kubectl("exec", pod, "--", "cat", "/data/who"); squeeze(out) != want {
				t.Errorf("%s, %s has %q", when, pod, out)
			}
		}
	}
	if out := squeeze(c.Kubectl("get", "sc", "--no-headers")); !strings.HasPrefix(out, "local (default) skiff.dev/local Delete WaitForFirstConsumer true") {
		t.Errorf("storage classes: %s", out)
	}
	c.Kubectl("delete", "pod", "db-0")
	c.Kubectl("rollout", "status", "statefulset/db", "--timeout=3m")
	c.WaitPodReady("db-0")
	check("after a pod's end")
	c.Kill()
	c.Up()
	c.WaitPodReady("db-0")
	c.WaitPodReady("db-1")
	check("after Skiff's crash")
	c.Kubectl("delete", "pod", "db-1")
	c.Kubectl("rollout", "status", "statefulset/db", "--timeout=3m")
	c.WaitPodReady("db-1")
	check("after a crash and a pod's end")

	volume := volumeName(c, "data-db-0")
	c.Kubectl("delete", "pvc", "data-db-0", "--wait=false")
	if out := c.Kubectl("get", "pvc", "data-db-0", "-o", "jsonpath={.metadata.deletionTimestamp} {.status.phase}"); !strings.HasSuffix(out, " Bound") || strings.HasPrefix(out, " ") {
		t.Errorf("a claim in use, deleted: %q", out)
	}
	check("while a claim waits for its pod")
	c.Kubectl("delete", "statefulset", "db", "--wait")
	volumeGone(t, c, volume)
	if out := squeeze(c.Kubectl("get", "pvc", "data-db-1", "-o", "jsonpath={.status.phase}")); out != "Bound" {
		t.Errorf("the other claim is %q", out)
	}
	other := volumeName(c, "data-db-1")
	c.Kubectl("delete", "pvc", "data-db-1")
	volumeGone(t, c, other)
}

func wantGroup(t *testing.T, path string, group uint32) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t).Gid; got != group || info.Mode()&os.ModeSetgid == 0 {
		t.Errorf("%s is of group %d with mode %s, want %d", path, got, info.Mode(), group)
	}
}

const claimManifest = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
`

const claimPod = `---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`

func ephemeralClaim(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {fsGroup: 4321}
  volumes: [{name: scratch, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}}}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: scratch, mountPath: /scratch}]}]
`)
	c.WaitPodReady("p")
	c.Kubectl("exec", "p", "--", "sh", "-c", "echo x > /scratch/f")
	volume := volumeName(c, "p-scratch")
	wantGroup(t, filepath.Join(c.DataDir, "volumes", volume), 4321)
	c.Kubectl("delete", "pod", "p")
	volumeGone(t, c, volume)
}

// A link in the volume that leads out of it is not followed.
func claimSubPath(t *testing.T, c *cluster.Cluster) {
	c.Apply(claimManifest + `---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]
  initContainers: [{name: first, image: "skiff.dev/web:1", command: [sh, -c, "mkdir -p /v/a; echo inside > /v/a/f"], volumeMounts: [{name: v, mountPath: /v}]}]
  containers:
  - name: main
    image: skiff.dev/web:1
    env: [{name: NAME, value: made}]
    volumeMounts: [{name: v, mountPath: /a, subPath: a}, {name: v, mountPath: /made, subPathExpr: "of/$(NAME)"}]
`)
	c.WaitPodReady("p")
	// What a container could do to its volume: a link that leads to the host's root.
	if err := os.Symlink("/", filepath.Join(c.DataDir, "volumes", volumeName(c, "c"), "out")); err != nil {
		t.Fatal(err)
	}
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /host, subPath: out/etc}]}]
`)
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "pod", "bad", "-o", `jsonpath={.status.containerStatuses[0].state.waiting.message}`)
		if !strings.Contains(out, "failed to prepare subPath") {
			return fmt.Errorf("the container: %s", out)
		}
		return nil
	})
	if out := squeeze(c.Kubectl("exec", "p", "-c", "main", "--", "sh", "-c", "cat /a/f; echo y > /made/g; ls /made")); out != "inside g" {
		t.Errorf("in the container: %q", out)
	}
}

func claimExpansion(t *testing.T, c *cluster.Cluster) {
	c.Apply(claimManifest + claimPod)
	c.WaitPodReady("p")
	c.Kubectl("patch", "pvc", "c", "-p", `{"spec": {"resources": {"requests": {"storage": "20Mi"}}}}`)
	c.Kubectl("wait", "pvc/c", "--for=jsonpath={.status.capacity.storage}=20Mi", "--timeout=3m")
	if out, err := c.TryKubectl("patch", "pvc", "c", "-p", `{"spec": {"resources": {"requests": {"storage": "5Mi"}}}}`); err == nil || !strings.Contains(out, "field can not be less than status.capacity") {
		t.Errorf("it shrank: %s", out)
	}
	if limit := c.Kubectl("get", "pv", volumeName(c, "c"), "-o", `jsonpath={.metadata.annotations.skiff\.dev/size-limit}`); limit != "none" && limit != "project-quota" {
		t.Errorf("how its size is limited: %q", limit)
	}
	cluster.Eventually(t, func() error {
		node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
		if out := squeeze(c.Kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/stats/summary")); !strings.Contains(out, `"pvcRef"`) {
			return fmt.Errorf("the node's summary has no volume")
		}
		if out := c.Kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/metrics"); !strings.Contains(out, `kubelet_volume_stats_capacity_bytes{namespace="expansion",persistentvolumeclaim="c"}`) {
			return fmt.Errorf("the kubelet's figures have no volume")
		}
		return nil
	})
}

// A volume that is to be retained outlives its claim, and its object.
func retainedVolume(t *testing.T, c *cluster.Cluster) {
	c.Apply(claimManifest + claimPod)
	c.WaitPodReady("p")
	c.Kubectl("exec", "p", "--", "sh", "-c", "echo kept > /v/f")
	volume := volumeName(c, "c")
	c.Kubectl("patch", "pv", volume, "-p", `{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}`)
	c.Kubectl("delete", "pod", "p")
	c.Kubectl("delete", "pvc", "c")
	c.Kubectl("wait", "pv/"+volume, "--for=jsonpath={.status.phase}=Released", "--timeout=3m")
	c.Kubectl("delete", "pv", volume, "--timeout=3m")
	if data, err := os.ReadFile(filepath.Join(c.DataDir, "volumes", volume, "f")); err != nil || string(data) != "kept\n" {
		t.Errorf("the data: %q, %v", data, err)
	}
}

// A link in the place of a volume's directory is refused, until the directory is back; links in a volume lead out of it neither for its pod nor when it is deleted.
func linkedVolume(t *testing.T, c *cluster.Cluster) {
	c.Apply(claimManifest + claimPod)
	c.WaitPodReady("p")
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Kubectl("exec", "p", "--", "sh", "-c", "echo kept > /v/f")
	inside := filepath.Join(c.DataDir, "volumes", volumeName(c, "c"))
	if err := errors.Join(os.Symlink(outside, filepath.Join(inside, "out")), os.Symlink(filepath.Join(outside, "f"), filepath.Join(inside, "file"))); err != nil {
		t.Fatal(err)
	}
	if out, err := c.TryKubectl("exec", "p", "--", "cat", "/v/file"); err == nil {
		t.Errorf("in the container: %q", out)
	}
	c.Kubectl("delete", "pod", "p")
	volume := volumeName(c, "c")
	dir, moved := filepath.Join(c.DataDir, "volumes", volume), filepath.Join(t.TempDir(), "moved")
	if err := errors.Join(os.Rename(dir, moved), os.Symlink(moved, dir)); err != nil {
		t.Fatal(err)
	}
	c.Apply(claimPod)
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("describe", "pod", "p"); !strings.Contains(out, "the directory of volume "+volume+" is a symbolic link; move the data there") {
			return fmt.Errorf("describe does not say what is wrong:\n%s", out)
		}
		return nil
	})
	if err := errors.Join(os.Remove(dir), os.Rename(moved, dir)); err != nil {
		t.Fatal(err)
	}
	c.WaitPodReady("p")
	if out := squeeze(c.Kubectl("exec", "p", "--", "cat", "/v/f")); out != "kept" {
		t.Errorf("the data: %q", out)
	}
	c.Kubectl("delete", "pod", "p")
	c.Kubectl("delete", "pvc", "c")
	volumeGone(t, c, volume)
	if raw, err := os.ReadFile(filepath.Join(outside, "f")); err != nil || string(raw) != "mine\n" {
		t.Errorf("what a link led to: %q, %v", raw, err)
	}
}

// Pods wait for claims and say so; a volume made by hand is found.
func unboundClaims(t *testing.T, c *cluster.Cluster) {
	c.Apply(strings.ReplaceAll(claimManifest, "accessModes", `storageClassName: "", selector: {matchLabels: {for: unbound}}, accessModes`) + claimPod + `---
apiVersion: v1
kind: Pod
metadata: {name: q}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, persistentVolumeClaim: {claimName: missing}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`)
	for pod, want := range map[string]string{"p": "pod has unbound immediate PersistentVolumeClaims", "q": `persistentvolumeclaim "missing" not found`} {
		cluster.Eventually(t, func() error {
			out := c.Kubectl("get", "pod", pod, "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}`)
			if !strings.HasPrefix(out, "0/1 nodes are available: "+want+".") {
				return fmt.Errorf("%s waits for %q", pod, out)
			}
			return nil
		})
	}
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: by-hand, labels: {for: unbound}}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, hostPath: {path: %s}}
`, t.TempDir()))
	c.WaitPodReady("p")
	c.Kubectl("delete", "pod", "p", "q")
	c.Kubectl("delete", "pvc", "c")
	c.Kubectl("wait", "pv/by-hand", "--for=jsonpath={.status.phase}=Released", "--timeout=3m")
	c.Kubectl("delete", "pv", "by-hand", "--timeout=3m")
}

// volumeBindings: of the volumes made by hand a claim gets the smallest that has its class, modes and size, or the one that either names; what is asked for wrongly is said.
func volumeBindings(t *testing.T, c *cluster.Cluster) {
	volume := func(name, size, mode, more string) {
		t.Helper()
		c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %s}
spec: {capacity: {storage: %s}, accessModes: [%s], storageClassName: by-size, hostPath: {path: %s}%s}
`, name, size, mode, t.TempDir(), more))
		t.Cleanup(func() { c.Kubectl("delete", "pv", name, "--ignore-not-found", "--timeout=3m") })
	}
	claim := func(name, size, mode, more string) {
		t.Helper()
		c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s}
spec: {storageClassName: by-size, accessModes: [%s], resources: {requests: {storage: %s}}%s}
`, name, mode, size, more))
	}
	const retain = ", persistentVolumeReclaimPolicy: Retain"
	volume("large", "8Gi", "ReadWriteOnce", retain)
	volume("middle", "4Gi", "ReadWriteOnce", retain)
	volume("shared", "4Gi", "ReadWriteMany", retain)
	volume("block", "1Gi", "ReadWriteOnce", retain+", volumeMode: Block")
	volume("kept-for-late", "2Gi", "ReadWriteOnce", retain+", claimRef: {namespace: binding, name: late}")
	volume("old-fashioned", "1Mi", "ReadOnlyMany", ", persistentVolumeReclaimPolicy: Recycle")
	claim("small", "1Gi", "ReadWriteOnce", "")
	claim("many", "1Gi", "ReadWriteMany", "")
	claim("raw", "1Gi", "ReadWriteOnce", ", volumeMode: Block")
	claim("named", "1Gi", "ReadWriteOnce", ", volumeName: large")
	claim("too-large", "80Gi", "ReadWriteOnce", "")
	claim("impossible", "1Gi", "ReadWriteOncePod", "")
	claim("archive", "1Mi", "ReadOnlyMany", "")
	for name, volume := range map[string]string{"small": "middle", "many": "shared", "raw": "block", "named": "large", "archive": "old-fashioned"} {
		c.Kubectl("wait", "pvc/"+name, "--for=jsonpath={.status.phase}=Bound", "--timeout=3m")
		if got := volumeName(c, name); got != volume {
			t.Errorf("%s has the volume %s, not %s", name, got, volume)
		}
	}
	claim("late", "1Gi", "ReadWriteOnce", "")
	c.Kubectl("wait", "pvc/late", "--for=jsonpath={.status.phase}=Bound", "--timeout=3m")
	if got := volumeName(c, "late"); got != "kept-for-late" {
		t.Errorf("late has the volume %s", got)
	}
	for _, name := range []string{"too-large", "impossible"} {
		cluster.Eventually(t, func() error {
			if out := c.Kubectl("describe", "pvc", name); !strings.Contains(out, "Status:        Pending") || !strings.Contains(out, `storageclass.storage.k8s.io "by-size" not found`) {
				return fmt.Errorf("describe does not say why it waits:\n%s", out)
			}
			return nil
		})
	}
	// A volume in use is not taken away under its claim, and a claim whose volume is gone says so.
	c.Kubectl("delete", "pv", "middle", "--wait=false")
	if out := c.Kubectl("get", "pv", "middle", "-o", "jsonpath={.metadata.finalizers} {.status.phase}"); out != `["kubernetes.io/pv-protection"] Bound` {
		t.Errorf("a volume in use, deleted: %s", out)
	}
	c.Kubectl("patch", "pv", "middle", "--type=json", "-p", `[{"op": "remove", "path": "/metadata/finalizers"}]`)
	c.Kubectl("wait", "pvc/small", "--for=jsonpath={.status.phase}=Lost", "--timeout=3m")
	c.Kubectl("delete", "pvc", "archive")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("describe", "pv", "old-fashioned"); !strings.Contains(out, "Failed") {
			return fmt.Errorf("a volume to be recycled:\n%s", out)
		}
		return nil
	})
	if out, err := c.TryKubectl("patch", "pvc", "named", "-p", `{"spec": {"volumeName": "shared"}}`); err == nil || !strings.Contains(out, "spec is immutable after creation") {
		t.Errorf("a bound claim takes another volume: %s", out)
	}
	c.Kubectl("delete", "pvc", "--all")
}

// agentVolume: an agent keeps volumes as the server's own node does.
func agentVolume(t *testing.T, whole *cluster.Nodes) {
	c, agent := whole.Space(t, "agent-volume"), whole.Agents[0]
	c.Apply(claimManifest + strings.Replace(claimPod, "spec:", "spec:\n  nodeSelector: {kubernetes.io/hostname: node-2}", 1))
	c.WaitPodReady("p")
	c.Kubectl("exec", "p", "--", "sh", "-c", "echo there > /v/f")
	volume := volumeName(c, "c")
	if data, err := os.ReadFile(filepath.Join(agent.DataDir, "volumes", volume, "f")); err != nil || string(data) != "there\n" {
		t.Errorf("on the agent: %q, %v", data, err)
	}
	c.Kubectl("patch", "pvc", "c", "-p", `{"spec": {"resources": {"requests": {"storage": "20Mi"}}}}`)
	c.Kubectl("wait", "pvc/c", "--for=jsonpath={.status.capacity.storage}=20Mi", "--timeout=3m")
	c.Kubectl("delete", "pod", "p")
	c.Kubectl("delete", "pvc", "c")
	cluster.Eventually(t, func() error {
		if _, err := os.Stat(filepath.Join(agent.DataDir, "volumes", volume)); err == nil {
			return fmt.Errorf("the directory of %s is still there", volume)
		}
		if out := c.Kubectl("get", "pv", volume, "--ignore-not-found"); out != "" {
			return fmt.Errorf("the volume is still there: %s", out)
		}
		return nil
	})
}
