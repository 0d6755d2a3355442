package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// hostNames: what a pod calls itself, and that it may see the host's processes.
func hostNames(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  restartPolicy: Never
  subdomain: sub
  setHostnameAsFQDN: true
  containers: [{name: main, image: "skiff.dev/web:1", command: [hostname]}]
---
apiVersion: v1
kind: Pod
metadata: {name: called}
spec:
  restartPolicy: Never
  hostnameOverride: something.else
  containers: [{name: main, image: "skiff.dev/web:1", command: [hostname]}]
---
apiVersion: v1
kind: Pod
metadata: {name: seeing}
spec:
  restartPolicy: Never
  hostPID: true
  hostIPC: true
  containers: [{name: main, image: "skiff.dev/web:1", command: [cat, /proc/1/comm]}]
`)
	first, err := os.ReadFile("/proc/1/comm")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"full": "full.sub.host-names.svc.cluster.local\n", "called": "something.else\n", "seeing": string(first)} {
		c.WaitPodDone(name)
		if out := c.Kubectl("logs", name); out != want {
			t.Errorf("%s says %q, want %q", name, out, want)
		}
	}
}

// readinessGates: a pod is ready when its containers are and whoever else has a say agrees.
func readinessGates(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  terminationGracePeriodSeconds: 1
  readinessGates: [{conditionType: example.com/warm}]
  containers: [{name: main, image: "skiff.dev/web:1"}]
---
apiVersion: v1
kind: Service
metadata: {name: p}
spec: {selector: {app: p}, ports: [{port: 80, targetPort: 8080}]}
`)
	c.WaitPod("p", "with its containers ready, and not ready", func(p *corev1.Pod) bool {
		return condition(p, corev1.ContainersReady) == corev1.ConditionTrue && condition(p, corev1.PodReady) == corev1.ConditionFalse
	})
	if out := c.Kubectl("get", "pod", "p", "-o", "wide"); !strings.Contains(out, "0/1\n") {
		t.Errorf("get does not count the gate:\n%s", out)
	}
	warm := func(status string) {
		c.Kubectl("patch", "pod", "p", "--subresource=status", "--type=strategic", "-p", fmt.Sprintf(`{"status":{"conditions":[{"type":"example.com/warm","status":%q}]}}`, status))
	}
	warm("True")
	c.WaitPodReady("p")
	wantField(t, c, "endpointslices", ".items[0].endpoints[0].conditions.ready", "true")
	warm("False")
	c.WaitPod("p", "no longer ready", func(p *corev1.Pod) bool { return condition(p, corev1.PodReady) == corev1.ConditionFalse })
	wantField(t, c, "endpointslices", ".items[0].endpoints[0].conditions.ready", "false")
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

// trustBundles are projected into volumes, by name and by signer, and renewed there.
func trustBundles(t *testing.T, c *cluster.Cluster) {
	bundle := func(name, spec string, authority []byte) string {
		return fmt.Sprintf("apiVersion: certificates.k8s.io/v1\nkind: ClusterTrustBundle\nmetadata: {name: %q, labels: {of: tests}}\nspec:\n  %s\n  trustBundle: |\n    %s\n",
			name, spec, strings.ReplaceAll(strings.TrimSpace(string(authority)), "\n", "\n    "))
	}
	one, two := authority(t, "one"), authority(t, "two")
	c.Apply(bundle("plain", "", one))
	c.Apply(bundle("example.com:signer:v1", "signerName: example.com/signer", one))
	t.Cleanup(func() { _, _ = c.TryKubectl("delete", "clustertrustbundle", "plain", "example.com:signer:v1") })
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: trust, mountPath: /trust}]}]
  volumes:
  - name: trust
    projected:
      sources:
      - clusterTrustBundle: {name: plain, path: named.pem}
      - clusterTrustBundle: {signerName: example.com/signer, labelSelector: {matchLabels: {of: tests}}, path: signed.pem}
      - clusterTrustBundle: {name: nowhere, optional: true, path: none.pem}
`)
	c.WaitPodReady("p")
	read := func(file string) string { return c.Kubectl("exec", "p", "--", "cat", "/trust/"+file) }
	for _, file := range []string{"named.pem", "signed.pem"} {
		if got := read(file); got != string(one) {
			t.Errorf("%s is\n%swant\n%s", file, got, one)
		}
	}
	if got := read("none.pem"); got != "" {
		t.Errorf("none.pem is\n%s", got)
	}
	c.Apply(bundle("plain", "", two))
	cluster.Eventually(t, func() error {
		if got := read("named.pem"); got != string(two) {
			return fmt.Errorf("named.pem is still\n%s", got)
		}
		return nil
	})
	if got := read("signed.pem"); got != string(one) {
		t.Errorf("signed.pem is\n%swant\n%s", got, one)
	}
}

// authority is the certificate of one, in PEM.
func authority(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// blockVolume: a container has a volume as a device, without a file system.
func blockVolume(t *testing.T, c *cluster.Cluster) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", disk).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v\n%s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		c.Kubectl("delete", "pod", "p", "--ignore-not-found", "--timeout=3m")
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v\n%s", err, out)
		}
	})
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: raw}
spec:
  capacity: {storage: 1Mi}
  volumeMode: Block
  accessModes: [ReadWriteOnce]
  storageClassName: raw
  persistentVolumeReclaimPolicy: Retain
  local: {path: %s}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/os, operator: Exists}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: raw}
spec: {volumeMode: Block, storageClassName: raw, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers: [{name: main, image: "skiff.dev/web:1", command: [sh, -c, "echo words for the disk > /dev/raw"], volumeDevices: [{name: raw, devicePath: /dev/raw}]}]
  volumes: [{name: raw, persistentVolumeClaim: {claimName: raw}}]
`, device))
	if p := c.WaitPodDone("p"); p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the pod ended as %s: %s", p.Status.Phase, c.Kubectl("logs", "p"))
	}
	if out, err := exec.Command("blockdev", "--flushbufs", device).CombinedOutput(); err != nil {
		t.Fatalf("blockdev: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(raw), "words for the disk\n") {
		t.Errorf("the disk begins with %q", raw[:32])
	}
}
