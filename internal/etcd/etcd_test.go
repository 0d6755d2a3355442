package etcd

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"skiff.dev/skiff/internal/pki"
)

// run starts a member and returns it once ready; stop ends it and returns Run's error.
func run(t testing.TB, cfg Config) (m *Member, stop func() error) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(&bytes.Buffer{}, &slog.HandlerOptions{Level: slog.LevelError}))
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	select {
	case <-m.Ready():
	case err := <-done:
		cancel()
		t.Fatalf("ended before it was ready: %v", err)
	}
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return m, stop
}

func TestEmbeddedKeepsItsData(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "etcd"), Name: "one"}
	began := time.Now()
	m, stop := run(t, cfg)
	t.Logf("ready after %s", time.Since(began))
	ctx := context.Background()
	if _, err := m.Client().Put(ctx, "/registry/a", "1"); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	cfg.Name = "renamed" // a host may get another name; its data is still its data
	m, stop = run(t, cfg)
	got, err := m.Client().Get(ctx, "/registry/a")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "1" {
		t.Fatalf("after a restart: %v, %v", got, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestTwoMembersSideBySide(t *testing.T) {
	a, _ := run(t, Config{Dir: filepath.Join(t.TempDir(), "etcd"), Name: "same"})
	b, _ := run(t, Config{Dir: filepath.Join(t.TempDir(), "etcd"), Name: "same"})
	if _, err := a.Client().Put(context.Background(), "k", "a"); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Client().Get(context.Background(), "k"); err != nil || len(got.Kvs) != 0 {
		t.Fatalf("one member sees the other's data: %v, %v", got, err)
	}
}

func TestDamagedDataIsAnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	if err := os.WriteFile(dir, []byte("not a folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Dir: dir, Name: "x", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(context.Background()); err == nil {
		t.Fatal("no error")
	}
}

func TestExternal(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "etcd")
	if out, err := exec.Command("go", "build", "-o", bin, "go.etcd.io/etcd/server/v3").CombinedOutput(); err != nil {
		t.Fatalf("build etcd: %v\n%s", err, out)
	}
	client, peer := freePort(t), freePort(t)
	cmd := exec.Command(bin, "--data-dir", filepath.Join(t.TempDir(), "data"), "--name", "ext",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "ext="+peer, "--log-level", "error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	m, _ := run(t, Config{Endpoints: []string{client}})
	if _, err := m.Client().Put(context.Background(), "k", "v"); err != nil {
		t.Fatal(err)
	}
}

// A client certificate whose files are broken stays what it was, is complained of once, and one that is good again counts.
func TestClientCertificateOutlivesBrokenFiles(t *testing.T) {
	ca, err := pki.OpenAuthority(t.TempDir(), "ca", "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	type pair struct {
		name      string
		cert, key []byte
	}
	issue := func(name string) pair {
		c, err := ca.Issue(pki.Leaf{CommonName: name, Life: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := pki.EncodePair(c)
		if err != nil {
			t.Fatal(err)
		}
		return pair{name, cert, key}
	}
	first, second := issue("first"), issue("second")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func(cert, key []byte) {
		t.Helper()
		for file, content := range map[string][]byte{certFile: cert, keyFile: key} {
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if content == nil {
				continue
			}
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	var log bytes.Buffer
	write(first.cert, first.key)
	m, err := New(Config{Endpoints: []string{"https://127.0.0.1:1"}, CertFile: certFile, KeyFile: keyFile, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	secure, err := m.tls()
	if err != nil {
		t.Fatal(err)
	}
	shows := func(what string, want pair) {
		t.Helper()
		got, err := secure.GetClientCertificate(nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		leaf, err := x509.ParseCertificate(got.Certificate[0])
		if err != nil || leaf.Subject.CommonName != want.name {
			t.Errorf("%s: shown is %v, %v, want %s", what, leaf.Subject, err, want.name)
		}
	}
	shows("at first", first)
	for what, broken := range map[string]pair{
		"both gone": {}, "the key gone": {cert: second.cert}, "both empty": {cert: []byte{}, key: []byte{}}, "the certificate cut off": {cert: second.cert[:len(second.cert)/2], key: second.key},
		"the key cut off": {cert: second.cert, key: second.key[:len(second.key)/2]}, "only one replaced": {cert: second.cert, key: first.key}, "noise": {cert: []byte("\x00\xff"), key: second.key},
	} {
		log.Reset()
		write(broken.cert, broken.key)
		shows(what, first)
		shows(what, first)
		if n := strings.Count(log.String(), "the one that was read before is used"); n != 1 || !strings.Contains(log.String(), certFile) {
			t.Errorf("%s: told %d times: %s", what, n, &log)
		}
		write(second.cert, second.key)
		shows("after "+what, second)
		write(first.cert, first.key)
		shows("after "+what, first)
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprintf("http://%s", l.Addr())
}

func TestWrongEndpoints(t *testing.T) {
	if _, err := New(Config{Endpoints: []string{"::"}}); err == nil {
		t.Error("no error for an endpoint that is no address")
	}
}

// TestCalm fails when etcd keeps its ticker elsewhere than package etcd looks for it: then an idle cluster costs several times as much.
func TestCalm(t *testing.T) {
	m, err := New(Config{Dir: t.TempDir(), Name: "n", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	e, err := embed.StartEtcd(m.embedConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	if !calm(e.Server) {
		t.Error("raft's ticker was not found")
	}
}
