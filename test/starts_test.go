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
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// TestBadStarts: what is wrong is said in one line that names it and what to do; the exit code is not 0; nothing is left half-started.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		args func(t *testing.T, c *cluster.Cluster) []string
		want string
	}{
		{"unknown flag", func(*testing.T, *cluster.Cluster) []string { return []string{"up", "--dta-dir=/x"} }, "unknown flag: --dta-dir; see 'skiff up --help'"},
		{"unknown command", func(*testing.T, *cluster.Cluster) []string { return []string{"upp"} }, `unknown command "upp"`},
		{"argument too many", func(*testing.T, *cluster.Cluster) []string { return []string{"up", "now"} }, `unknown command "now" for "skiff up"`},
		{"corrupt configuration", func(t *testing.T, _ *cluster.Cluster) []string {
			return []string{"up", "--config", write(t, "listen: [\n")}
		}, "is not valid YAML"},
		{"unknown key in the configuration", func(t *testing.T, _ *cluster.Cluster) []string {
			return []string{"up", "--config", write(t, "dta-dir: /x\n")}
		}, `there is no key "dta-dir"`},
		{"no such configuration", func(*testing.T, *cluster.Cluster) []string {
			return []string{"up", "--config", "/does/not/exist.yaml"}
		}, "/does/not/exist.yaml: no such file"},
		{"value that makes no sense", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--pod-cidr=10.42.0.0"}
		}, `pod-cidr: "10.42.0.0" is no address range such as 10.42.0.0/16`},
		{"pods' range holds the host's address", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--pod-cidr=172.31.0.0/16"}
		}, "pod-cidr: 172.31.0.0/16 holds this host's own address"},
		{"services' range overlaps the pods'", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--service-cidr=10.42.128.0/17"}
		}, "service-cidr: 10.42.128.0/17 overlaps pod-cidr 10.42.0.0/16"},
		{"unknown controller", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--controllers", "*,-nonesuch-controller"}
		}, "nonesuch-controller"},
		{"data dir below a file", func(t *testing.T, _ *cluster.Cluster) []string {
			return []string{"up", "--data-dir", filepath.Join(write(t, "x"), "below")}
		}, "data-dir: cannot create"},
		{"data dir is a file", func(t *testing.T, _ *cluster.Cluster) []string {
			return []string{"up", "--data-dir", write(t, "x")}
		}, "data-dir: cannot create"},
		{"data dir on a read-only file system", func(t *testing.T, _ *cluster.Cluster) []string {
			return []string{"up", "--data-dir", readOnly(t)}
		}, "read-only file system; give a folder that can be written to"},
		{"foreign address", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--listen", "192.0.2.1:6443"}
		}, "192.0.2.1:6443 is not an address of this host"},
		{"port taken", func(t *testing.T, c *cluster.Cluster) []string {
			listen(t, c, "127.0.0.1:6443")
			return []string{"up", "--data-dir", c.DataDir}
		}, "listen: 127.0.0.1:6443 is taken by another program; stop it, or give another --listen"},
		{"kubelet's port taken", func(t *testing.T, c *cluster.Cluster) []string {
			listen(t, c, "0.0.0.0:10250")
			return []string{"up", "--data-dir", c.DataDir}
		}, "kubelet-listen: 0.0.0.0:10250 is taken by another program; stop it, or give another --kubelet-listen"},
		{"clock before the certificates", func(t *testing.T, c *cluster.Cluster) []string {
			writeAuthority(t, filepath.Join(c.DataDir, "pki"), time.Now().AddDate(1, 0, 0))
			return []string{"up", "--data-dir", c.DataDir}
		}, "set the clock"},
		{"certificates expired", func(t *testing.T, c *cluster.Cluster) []string {
			writeAuthority(t, filepath.Join(c.DataDir, "pki"), time.Now().AddDate(-30, 0, 0))
			return []string{"up", "--data-dir", c.DataDir}
		}, "expired on"},
		{"key of the authority lost", func(t *testing.T, c *cluster.Cluster) []string {
			writeAuthority(t, filepath.Join(c.DataDir, "pki"), time.Now())
			if err := os.Remove(filepath.Join(c.DataDir, "pki", "ca.key")); err != nil {
				t.Fatal(err)
			}
			return []string{"up", "--data-dir", c.DataDir}
		}, "restore it from a backup"},
		{"etcd that does not answer", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--etcd-endpoints", "http://127.0.0.1:1"}
		}, "etcd-endpoints: none of [http://127.0.0.1:1] answers within 10s"},
		{"etcd's address makes no sense", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--etcd-endpoints", "nonsense"}
		}, `etcd-endpoints: "nonsense" is no address such as https://10.0.0.1:2379`},
		{"runtime that does not answer", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"up", "--data-dir", c.DataDir, "--cri-endpoint", "unix:///run/nonesuch.sock"}
		}, "/run/nonesuch.sock"},
		{"images of no cluster", func(_ *testing.T, c *cluster.Cluster) []string {
			return []string{"image", "ls", "--data-dir", c.DataDir}
		}, "no cluster is running on"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := cluster.New(t)
			args := tc.args(t, c)
			_, err := os.Stat(c.DataDir)
			fresh := err != nil
			oneLine(t, c, tc.want, args...)
			if _, err := os.Stat(c.DataDir); err == nil && fresh {
				t.Errorf("a data dir is left behind")
			}
			for _, left := range c.Leftovers() {
				t.Errorf("left behind: %s", left)
			}
			if err := os.RemoveAll(c.DataDir); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("not root", func(t *testing.T) {
		t.Parallel()
		c := cluster.New(t)
		own := c.Command("up", "--data-dir", "/tmp/x").Args // nsenter, for which one must be root, comes first
		out, err := c.Run("setpriv", append([]string{"--reuid=65534", "--clear-groups"}, own[2:]...)...)
		if err == nil || strings.Count(strings.TrimSpace(out), "\n") > 0 || !strings.Contains(out, "must be root; run it with sudo") {
			t.Errorf("got %v: %s", err, out)
		}
	})
	t.Run("missing shim", func(t *testing.T) {
		t.Parallel()
		c := cluster.New(t)
		copied := filepath.Join(t.TempDir(), "skiff")
		if out, err := c.Run("cp", cluster.Binary(t, "skiff"), copied); err != nil {
			t.Fatal(err, out)
		}
		out, err := c.Run(copied, "up", "--data-dir", c.DataDir)
		if err == nil || strings.Count(strings.TrimSpace(out), "\n") > 0 || !strings.Contains(out, "containerd-shim-runc-v2 is missing beside skiff") {
			t.Errorf("got %v: %s", err, out)
		}
	})
}

// oneLine runs skiff and checks that it fails in reasonable time with one line that holds want.
func oneLine(t *testing.T, c *cluster.Cluster, want string, args ...string) {
	t.Helper()
	began := time.Now()
	var stdout, stderr strings.Builder // what is ready so far may have been told on the first
	cmd := c.Command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err == nil {
		t.Fatalf("it did not fail: %s", &stdout)
	}
	if strings.Count(strings.TrimSpace(stderr.String()), "\n") > 0 || !strings.Contains(stderr.String(), want) {
		t.Errorf("want one line with %q, got:\n%s\nand on standard output:\n%s", want, &stderr, &stdout)
	}
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("it took %s", took)
	}
}

// write makes a file with that text.
func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "skiff.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// readOnly is a folder that even root cannot write to.
func readOnly(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("skiff-test", dir, "tmpfs", syscall.MS_RDONLY, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// listen takes a port on the cluster's host.
func listen(t *testing.T, c *cluster.Cluster, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	if err := c.Host().Do(func() (err error) { l, err = net.Listen("tcp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// writeAuthority makes an authority that is valid for ten years from then on.
func writeAuthority(t *testing.T, dir string, from time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "skiff"}, NotBefore: from, NotAfter: from.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"ca.crt": {Type: "CERTIFICATE", Bytes: cert}, "ca.key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCannotChange: what a cluster was made with cannot be changed by starting it with other flags, and saying so harms nothing.
func TestCannotChange(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("own-%d", os.Getpid()%1_000_000)
	c := cluster.Start(t, "--pod-cidr=10.44.0.0/16", "--cluster-name="+name)
	if out, err := c.Skiff("image", "ls", "--data-dir", c.DataDir); err != nil || !strings.Contains(out, "skiff.dev/web") {
		t.Errorf("images of a cluster with a name of its own, asked for by its data dir: %v\n%s", err, out)
	}
	c.Stop()
	oneLine(t, c, `pod-cidr: this cluster was made with "10.44.0.0/16" and cannot change to "10.42.0.0/16"`, "up", "--data-dir", c.DataDir, "--cluster-name", name)
	c.Up()
	if out := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].spec.podCIDR}"); out != "10.44.0.0/24" {
		t.Errorf("the node's range is %s", out)
	}
	t.Run("second skiff on the same data dir", func(t *testing.T) {
		c := c.For(t)
		oneLine(t, c, fmt.Sprintf("is in use by another skiff (pid %d); stop that one, or give another --data-dir", c.PID()),
			"up", "--data-dir", c.DataDir, "--cluster-name", name, "--pod-cidr=10.44.0.0/16", "--listen", "127.0.0.1:7443")
		c.Kubectl("get", "--raw=/readyz") // the first is none the worse for it
	})
}
