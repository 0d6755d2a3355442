package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/pki"
)

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.OpenAuthority(t.TempDir(), "ca", "skiff", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTokens(t *testing.T) {
	made := NewToken(authority(t).Cert)
	again, err := ParseToken(" " + made.String() + "\n")
	if err != nil || again != made {
		t.Errorf("%v is read as %v, %v", made, again, err)
	}
	secret := made.Secretly("rack 7", time.Now().Add(time.Hour))
	if l := List(secret); l.ID != made.ID || l.Description != "rack 7" || len(l.Usages) != 1 || time.Until(l.Until) > time.Hour {
		t.Errorf("listed as %+v", l)
	}
	for _, text := range []string{made.String(), made.ID, made.Bearer(), secret.Name} {
		if name, err := SecretName(text); err != nil || name != secret.Name {
			t.Errorf("%s is of secret %q, %v", text, name, err)
		}
	}
	for text, want := range map[string]string{
		made.Bearer():                     "does not say which cluster",
		made.String()[:80]:                "not of the form",
		"":                                "not of the form",
		strings.ToUpper(made.String()):    "not of the form",
		made.String() + "\nand something": "not of the form",
	} {
		_, err := ParseToken(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), made.Secret) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestServerURL(t *testing.T) {
	for text, want := range map[string]string{
		"https://10.0.0.1": "https://10.0.0.1:6443", "https://10.0.0.1:7443/": "https://10.0.0.1:7443", "https://api.example.com": "https://api.example.com:6443",
		"http://10.0.0.1": "", "10.0.0.1": "", "": "", "https://10.0.0.1/path": "", "https://[fd00::1]": "https://[fd00::1]:6443",
	} {
		if got, err := ServerURL(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
	}
}

// A server is believed only if its certificate is from the pinned authority, in force and for the name by which it was called. Nothing is sent to
// any other.
func TestAuthorityIsPinned(t *testing.T) {
	mine, other := authority(t), authority(t)
	leaf := func(a *pki.Authority, host string, behind ...[]byte) tls.Certificate {
		l := pki.Leaf{CommonName: "api", DNSNames: []string{"x"}, Life: time.Hour}
		if ip := net.ParseIP(host); ip != nil {
			l.IPs = []net.IP{ip}
		}
		c, err := a.Issue(l, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c.Certificate = append(c.Certificate, behind...)
		return *c
	}
	cases := map[string]struct {
		shows tls.Certificate
		want  string // "" = believed
	}{
		"ours":                          {leaf(mine, "127.0.0.1", mine.Cert.Raw), ""},
		"another cluster's":             {leaf(other, "127.0.0.1", other.Cert.Raw), "CA hash mismatch"},
		"another's, with our authority": {leaf(other, "127.0.0.1", mine.Cert.Raw), "its certificate is not good"},
		"ours, for another host":        {leaf(mine, "10.0.0.1", mine.Cert.Raw), "--tls-san"},
		"ours, without its authority":   {leaf(mine, "127.0.0.1"), "CA hash mismatch"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
			s.TLS = &tls.Config{Certificates: []tls.Certificate{c.shows}}
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
			s.StartTLS()
			defer s.Close()
			raw, err := FetchAuthority(t.Context(), "https://"+s.Listener.Addr().String(), Pin(mine.Cert))
			switch {
			case c.want == "" && (err != nil || string(raw) != string(mine.PEM)):
				t.Errorf("got %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
			if asked.Load() > 0 {
				t.Error("something was asked before the server was known")
			}
		})
	}
}

// cluster answers requests for certificates as its controllers would, with certificates of a given life.
func cluster(t *testing.T, life time.Duration, deny string) crclient.WithWatch {
	ca := authority(t)
	return fake.NewClientBuilder().WithScheme(api.Scheme()).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c crclient.WithWatch, obj crclient.Object, opts ...crclient.CreateOption) error {
			r := obj.(*certificatesv1.CertificateSigningRequest)
			if deny != "" {
				r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue, Message: deny}}
			} else {
				parsed, err := api.CertificateRequest(r.Spec.Request)
				if err != nil {
					return err
				}
				if r.Status.Certificate, err = ca.Sign(parsed, x509.KeyUsageDigitalSignature, nil, life, time.Now()); err != nil {
					return err
				}
			}
			if err := c.Create(ctx, obj, opts...); err != nil {
				return err
			}
			// The fake's watches tell of changes alone: make one when somebody looks.
			time.AfterFunc(50*time.Millisecond, func() {
				next := r.DeepCopy()
				next.Labels = map[string]string{"changed": "true"}
				_ = c.Update(ctx, next)
			})
			return nil
		},
	}).Build()
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func TestCertificateIsKeptAndRenewed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent", "client.pem")
	c, err := Open(file, NodeClient("a"), quiet)
	if err != nil || c.Good(time.Now()) {
		t.Fatalf("a certificate out of nothing: %v", err)
	}
	// Certificates are dated back by five minutes: this one is good for a second, and two thirds of its life are over at once.
	api := cluster(t, time.Second, "")
	renewed := make(chan struct{}, 100)
	c.Renewed = func() { renewed <- struct{}{} }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx, api) }()
	for range 2 {
		select {
		case <-renewed:
		case <-time.After(time.Minute):
			t.Fatal("no certificate within a minute")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", st, err)
	}
	again, err := Open(file, NodeClient("a"), quiet)
	if err != nil || again.Current() == nil || again.Current().Leaf.SerialNumber.Cmp(c.Current().Leaf.SerialNumber) != 0 {
		t.Errorf("read again: %v", err)
	}
	if other, _ := Open(file, NodeClient("b"), quiet); other.Good(time.Now()) {
		t.Error("a certificate for a counts for b")
	}
	if err := os.WriteFile(file, []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	if damaged, err := Open(file, NodeClient("a"), quiet); err != nil || damaged.Current() != nil {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestDenied(t *testing.T) {
	c, err := Open(filepath.Join(t.TempDir(), "client.pem"), NodeClient("a"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Request(t.Context(), cluster(t, time.Hour, "the name is taken")); err == nil || err.Error() != "the name is taken" {
		t.Errorf("got %v", err)
	}
}

func TestServingCertificateWaitsForItsAddress(t *testing.T) {
	c, err := Open(filepath.Join(t.TempDir(), "serving.pem"), NodeServing("a", net.IPv4(10, 0, 0, 1)), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Request(t.Context(), cluster(t, time.Hour, "")); err != nil {
		t.Fatal(err)
	}
	if !c.Good(time.Now()) {
		t.Error("not good for its own names")
	}
	moved, err := Open(c.file, NodeServing("a", net.IPv4(10, 0, 0, 2)), quiet)
	if err != nil || moved.Good(time.Now()) {
		t.Errorf("good for another address: %v", err)
	}
}

func TestPinIsOfTheWholeCertificate(t *testing.T) {
	a := authority(t)
	block, _ := pem.Decode(a.PEM)
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil || Pin(parsed) != Pin(a.Cert) || len(Pin(parsed)) != 64 {
		t.Errorf("%v", err)
	}
}
