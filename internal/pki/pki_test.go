package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAuthorityOutlivesTheProcess(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	first, err := OpenAuthority(dir, "ca", "skiff", now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenAuthority(dir, "ca", "skiff", now)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Cert.Equal(again.Cert) {
		t.Fatal("opening the authority a second time gave another one")
	}
	leaf, err := again.Issue(Leaf{CommonName: "admin", Organizations: []string{"system:masters"}, Life: time.Hour}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: first.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Fatal(err)
	}
	for file, mode := range map[string]os.FileMode{"ca.key": 0o600, "ca.crt": 0o644} {
		if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, error %v, want %v", file, st.Mode(), err, mode)
		}
	}
}

func TestDamagedFilesSayWhatToDo(t *testing.T) {
	cases := []struct {
		name   string
		damage func(t *testing.T, dir string)
		now    time.Time
		want   string // "" = heals by itself
	}{
		{"clock before the certificate", func(*testing.T, string) {}, time.Now().AddDate(-2, 0, 0), "set the clock"},
		{"clock after the certificate", func(*testing.T, string) {}, time.Now().AddDate(20, 0, 0), "expired"},
		{"key lost", remove("ca.key"), time.Now(), "restore it from a backup"},
		{"crash before the certificate was written", remove("ca.crt"), time.Now(), ""},
		{"key truncated", overwrite("ca.key", "-----BEGIN PRI"), time.Now(), "holds no PEM block"},
		{"certificate is noise", overwrite("ca.crt", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"), time.Now(), "parse"},
		{"another cluster's key", func(t *testing.T, dir string) {
			other := t.TempDir()
			if _, err := OpenAuthority(other, "ca", "other", time.Now()); err != nil {
				t.Fatal(err)
			}
			raw, _ := os.ReadFile(filepath.Join(other, "ca.key"))
			overwrite("ca.key", string(raw))(t, dir)
		}, time.Now(), "do not belong together"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := OpenAuthority(dir, "ca", "skiff", time.Now()); err != nil {
				t.Fatal(err)
			}
			c.damage(t, dir)
			_, err := OpenAuthority(dir, "ca", "skiff", c.now)
			if c.want == "" && err != nil {
				t.Fatal(err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func remove(file string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
}

func overwrite(file, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServingCertificate(t *testing.T) {
	a, err := OpenAuthority(t.TempDir(), "ca", "skiff", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Issue(Leaf{CommonName: "api", DNSNames: []string{"kubernetes"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"kubernetes", "127.0.0.1"} {
		if err := c.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	cert, key, err := EncodePair(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
}

func TestRenewalHappensWhileRunning(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, err := OpenAuthority(dir, "ca", "skiff", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r, err := a.Renew(Leaf{CommonName: "x", Life: 90 * time.Hour}, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()

		first := r.Current()
		time.Sleep(59 * time.Hour)
		synctest.Wait()
		if r.Current() != first {
			t.Fatal("renewed before two thirds of its life")
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if r.Current() == first {
			t.Fatal("not renewed after two thirds of its life")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestTokenKey(t *testing.T) {
	dir := t.TempDir()
	private, public, err := OpenTokenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	private2, public2, err := OpenTokenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if string(private) != string(private2) || string(public) != string(public2) {
		t.Fatal("the key changed between two starts")
	}
}
