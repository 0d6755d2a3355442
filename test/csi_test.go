package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
	"skiff.dev/skiff/test/csidriver"
)

const csiName = "csi.test.skiff.dev"

const csiPod = `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {fsGroup: 4321}
  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`

// TestCSI: a driver registers, volumes are attached, staged, published, grown and taken back, and Skiff's crash in between loses none of it.
func TestCSI(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	d := &csidriver.Driver{Name: csiName, Node: "one", Volume: t.TempDir(), Limit: 1}
	socket, err := os.MkdirTemp("", "csi") // a socket's path may not be long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(socket) })
	stop, err := d.Serve(socket, filepath.Join(c.DataDir, "kubelet", "plugins_registry"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	cluster.Eventually(t, func() error {
		out, _ := c.TryKubectl("get", "csinode", node, "-o", "jsonpath={.spec.drivers[0].name} {.spec.drivers[0].nodeID} {.spec.drivers[0].allocatable.count}")
		if out != csiName+" one 1" {
			return fmt.Errorf("the CSINode says %q", out)
		}
		return nil
	})
	c.Apply(`
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: ` + csiName + `}
spec: {attachRequired: true, podInfoOnMount: true, fsGroupPolicy: File, volumeLifecycleModes: [Persistent, Ephemeral]}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: by-hand}
provisioner: ` + csiName + `
allowVolumeExpansion: true
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: vol, annotations: {pv.kubernetes.io/provisioned-by: ` + csiName + `}}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: by-hand
  csi: {driver: ` + csiName + `, volumeHandle: handle-1, volumeAttributes: {color: red}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {accessModes: [ReadWriteOnce], storageClassName: by-hand, resources: {requests: {storage: 1Gi}}}
---` + csiPod)
	attachVolume(t, c)
	c.WaitPodReady("p")
	c.Kubectl("exec", "p", "--", "sh", "-c", "echo kept > /v/f")
	wantGroup(t, filepath.Join(d.Volume, "handle-1"), 4321)
	if got := d.Context("handle-1"); got["color"] != "red" || got["csi.storage.k8s.io/pod.name"] != "p" || got["csi.storage.k8s.io/ephemeral"] != "false" {
		t.Errorf("the driver was told %v", got)
	}
	claimsOfOwnUsers(t, c, d)
	inlineCSI(t, c, d)
	limitedCSI(t, c)
	expandCSI(t, c, d)

	c.Kill()
	c.Up()
	c.WaitPodReady("p")
	detach := func() {
		c.Kubectl("delete", "pod", "p")
		cluster.Eventually(t, func() error {
			if out := c.Kubectl("get", "volumeattachments", "--no-headers"); strings.Contains(out, "vol") {
				return fmt.Errorf("still attached: %s", out)
			}
			return nil
		})
	}
	detach()
	expandUnused(t, c, d)
	detach()
	calls := d.Calls()
	unpublished, unstaged := slices.Index(calls, "NodeUnpublishVolume handle-1"), slices.Index(calls, "NodeUnstageVolume handle-1")
	if unpublished < 0 || unstaged < unpublished {
		t.Errorf("the driver was called %v", calls)
	}
	if data, err := os.ReadFile(filepath.Join(d.Volume, "handle-1", "f")); err != nil || string(data) != "kept\n" {
		t.Errorf("the data: %q, %v", data, err)
	}
	stop()
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "csinode", node, "-o", "jsonpath={.spec.drivers}"); out != "" && out != "[]" {
			return fmt.Errorf("the driver is gone, the CSINode says %s", out)
		}
		return nil
	})
}

// attachVolume plays the driver's attacher: it says of the attachment that it is done.
func attachVolume(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	cluster.Eventually(t, func() error {
		api := c.Client().StorageV1().VolumeAttachments()
		list, err := api.List(context.Background(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			return fmt.Errorf("%d attachments, %v", len(list.Items), err)
		}
		a := &list.Items[0]
		if a.Spec.Attacher != csiName || *a.Spec.Source.PersistentVolumeName != "vol" {
			return fmt.Errorf("the attachment is %+v", a.Spec)
		}
		a.Status.Attached = true
		_, err = api.UpdateStatus(context.Background(), a, metav1.UpdateOptions{})
		return err
	})
}

// claimsOfOwnUsers: in a pod with users of its own what belongs to root in a claim's volume belongs to the pod's root, who is nobody outside, and to its group.
func claimsOfOwnUsers(t *testing.T, c *cluster.Cluster, d *csidriver.Driver) {
	t.Helper()
	c.Apply(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: local}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: own}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 0
  securityContext: {fsGroup: 4321}
  volumes:
    - {name: csi, persistentVolumeClaim: {claimName: c}}
    - {name: local, persistentVolumeClaim: {claimName: local}}
  containers:
    - {name: main, image: "skiff.dev/web:1", volumeMounts: &mounts [{name: csi, mountPath: /csi}, {name: local, mountPath: /local}, {name: local, mountPath: /below, subPath: sub}]}
    - {name: user, image: "skiff.dev/web:1", env: [{name: PORT, value: "8081"}], securityContext: {runAsUser: 1000}, volumeMounts: *mounts}
`)
	c.WaitPodReady("own")
	rangeOf(t, c, "own", "main")
	if out := c.Kubectl("exec", "own", "-c", "main", "--", "sh", "-c", "cat /csi/f; for d in csi local below; do echo x > /$d/root; done; ls -l /csi/f"); !strings.HasPrefix(out, "kept\n") || !strings.Contains(out, " 0 ") || !strings.Contains(out, " 4321 ") {
		t.Errorf("of what another pod wrote it sees %q", out)
	}
	c.Kubectl("exec", "own", "-c", "user", "--", "sh", "-c", "for d in csi local; do echo x > /$d/user; done; cat /below/root")
	local := filepath.Join(c.DataDir, "volumes")
	for _, where := range []struct {
		folder, file string
		owner        uint32
	}{
		{filepath.Join(d.Volume, "handle-1"), "root", 0}, {filepath.Join(d.Volume, "handle-1"), "user", 1000}, {local, "user", 1000}, {local, "sub/root", 0},
	} {
		found := 0
		err := filepath.WalkDir(where.folder, func(path string, _ os.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, "/"+where.file) {
				found++
				if uid, gid := ownerOf(t, path); uid != where.owner || gid != 4321 {
					t.Errorf("on the host %s belongs to %d:%d, not to %d:4321", path, uid, gid, where.owner)
				}
			}
			return err
		})
		if err != nil || found != 1 {
			t.Errorf("%d files %s below %s, %v", found, where.file, where.folder, err)
		}
	}
	c.Kubectl("delete", "pod/own", "pvc/local")
}

func inlineCSI(t *testing.T, c *cluster.Cluster, d *csidriver.Driver) {
	t.Helper()
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: inline}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, csi: {driver: ` + csiName + `, volumeAttributes: {a: b}}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`)
	c.WaitPodReady("inline")
	c.Kubectl("exec", "inline", "--", "sh", "-c", "echo x > /v/f")
	c.Kubectl("delete", "pod", "inline")
	cluster.Eventually(t, func() error { // a pod without grace is gone from the API at once
		calls := strings.Join(d.Calls(), "\n")
		if !strings.Contains(calls, "NodePublishVolume csi-") || !strings.Contains(calls, "NodeUnpublishVolume csi-") || strings.Contains(calls, "StageVolume csi-") {
			return fmt.Errorf("the driver was called\n%s", calls)
		}
		return nil
	})
}

// limitedCSI: the node takes one volume of the driver, and has it. What the driver makes for one pod alone, as before, does not count.
func limitedCSI(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	c.Apply(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: vol-2, annotations: {pv.kubernetes.io/provisioned-by: ` + csiName + `}}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: by-hand
  csi: {driver: ` + csiName + `, volumeHandle: handle-2}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c2}
spec: {accessModes: [ReadWriteOnce], storageClassName: by-hand, volumeName: vol-2, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: second}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, persistentVolumeClaim: {claimName: c2}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`)
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "pod", "second", "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}`)
		if !strings.Contains(out, "1 node(s) exceed max volume count") {
			return fmt.Errorf("it waits for %q", out)
		}
		return nil
	})
	c.Kubectl("delete", "pod/second", "pvc/c2", "pv/vol-2")
}

// resize plays the driver's resizer, step by step as kubernetes-csi's external-resizer 2.3 goes (KEP-1790): it notes what it is about, makes the volume larger, and
// leaves the rest to the node.
func resize(c *cluster.Cluster, size string) {
	c.Kubectl("patch", "pvc", "c", "-p", `{"spec": {"resources": {"requests": {"storage": "`+size+`"}}}}`)
	stage := func(is, conditions string) {
		c.Kubectl("patch", "pvc", "c", "--subresource=status", "-p",
			`{"status": {"allocatedResources": {"storage": "`+size+`"}, "allocatedResourceStatuses": {"storage": "`+is+`"}, "conditions": [`+conditions+`]}}`)
	}
	stage("ControllerResizeInProgress", `{"type": "Resizing", "status": "True"}`)
	c.Kubectl("patch", "pv", "vol", "-p", `{"spec": {"capacity": {"storage": "`+size+`"}}}`)
	stage("NodeResizePending", `{"type": "FileSystemResizePending", "status": "True"}`)
}

// grown waits until a claim has a size, and nothing of its growth is left to be done or told.
func grown(t *testing.T, c *cluster.Cluster, d *csidriver.Driver, size string, bytes int64) {
	t.Helper()
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "pvc", "c", "-o", "jsonpath={.status.capacity.storage}/{.status.allocatedResourceStatuses}/{.status.conditions}")
		if has := d.Size("handle-1"); out != size+"//" || has != bytes {
			return fmt.Errorf("the claim has %s, the volume on the node %d bytes", out, has)
		}
		return nil
	})
}

// expandCSI: a claim in use grows, once and again; the node tells of a size that its driver can never have, and waits for the resizer to ask anew.
func expandCSI(t *testing.T, c *cluster.Cluster, d *csidriver.Driver) {
	t.Helper()
	resize(c, "2Gi")
	grown(t, c, d, "2Gi", 2<<30)
	resize(c, "3Gi")
	grown(t, c, d, "3Gi", 3<<30)
	d.Limited(3 << 30)
	resize(c, "4Gi")
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "pvc", "c", "-o", "jsonpath={.status.capacity.storage} {.status.allocatedResourceStatuses.storage} {.status.conditions[*].type}: {.status.conditions[*].message}")
		if !strings.HasPrefix(out, "3Gi NodeResizeInfeasible NodeResizeError: failed to expand pvc with ") || !strings.Contains(out, "a volume has 3221225472 bytes at most") {
			return fmt.Errorf("the claim says %s", out)
		}
		return nil
	})
	d.Limited(0)
	resize(c, "4Gi")
	grown(t, c, d, "4Gi", 4<<30)
	// A resizer of before KEP-1790 says no more than that the node's turn has come.
	c.Kubectl("patch", "pvc", "c", "-p", `{"spec": {"resources": {"requests": {"storage": "5Gi"}}}}`)
	c.Kubectl("patch", "pv", "vol", "-p", `{"spec": {"capacity": {"storage": "5Gi"}}}`)
	c.Kubectl("patch", "pvc", "c", "--subresource=status", "-p", `{"status": {"conditions": [{"type": "FileSystemResizePending", "status": "True"}]}}`)
	grown(t, c, d, "5Gi", 5<<30)
}

// expandUnused: the volume of a claim that nobody uses grows at once, its filesystem when somebody does.
func expandUnused(t *testing.T, c *cluster.Cluster, d *csidriver.Driver) {
	t.Helper()
	resize(c, "6Gi")
	if out := c.Kubectl("get", "pvc", "c", "-o", "jsonpath={.status.capacity.storage}"); out != "5Gi" || d.Size("handle-1") != 5<<30 {
		t.Errorf("the claim has %s before anybody uses it", out)
	}
	c.Apply(csiPod)
	attachVolume(t, c)
	c.WaitPodReady("p")
	grown(t, c, d, "6Gi", 6<<30)
}
