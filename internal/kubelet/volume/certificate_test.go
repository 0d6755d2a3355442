package volume

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// signer is an API of certificates, and whoever signs there.
type signer struct {
	Source
	requests map[string]*certificatesv1.PodCertificateRequest
}

func (s *signer) RequestCertificate(_ context.Context, pod *corev1.Pod, _ *corev1.PodCertificateProjection, proof []byte) (string, error) {
	name := fmt.Sprintf("req-%d", len(s.requests))
	s.requests[name] = &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: name}, Spec: certificatesv1.PodCertificateRequestSpec{StubPKCS10Request: proof},
	}
	return name, nil
}

func (s *signer) Certificate(_ context.Context, _, name string) (*certificatesv1.PodCertificateRequest, error) {
	if r := s.requests[name]; r != nil {
		return r, nil
	}
	return nil, apierrors.NewNotFound(certificatesv1.Resource("podcertificaterequests"), name)
}

func (s *signer) decide(name, condition, chain string, refresh time.Time) {
	r := s.requests[name]
	r.Status.Conditions = []metav1.Condition{{Type: condition, Status: metav1.ConditionTrue, Reason: "Why", Message: "because"}}
	r.Status.CertificateChain = chain
	r.Status.BeginRefreshAt = &metav1.Time{Time: refresh}
}

// certificateWorld is a pod with one certificate, and the clock.
type certificateWorld struct {
	*signer
	t   *testing.T
	m   *Manager
	p   Pod
	pod *corev1.Pod
	now time.Time
}

func newCertificateWorld(t *testing.T) *certificateWorld {
	t.Helper()
	w := &certificateWorld{signer: &signer{requests: map[string]*certificatesv1.PodCertificateRequest{}}, t: t, now: time.Unix(1_000_000, 0)}
	w.m = New(t.TempDir(), w.signer, nil)
	w.m.memory.Do(func() {}) // no tmpfs
	w.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"}}
	w.pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{PodCertificate: &corev1.PodCertificateProjection{SignerName: "s/s", KeyType: "ECDSAP256", CredentialBundlePath: "bundle", KeyPath: "key", CertificateChainPath: "chain"}},
	}}}}}
	return w
}

func (w *certificateWorld) mount() (time.Duration, error) {
	next, err := w.m.Mount(context.Background(), w.pod, &w.p, w.now)
	return next.Sub(w.now), err
}

func (w *certificateWorld) read(name string) string {
	data, _ := os.ReadFile(filepath.Join(w.m.Path(w.pod, &w.pod.Spec.Volumes[0]), name))
	return string(data)
}

// wants the chain and a key that is the proof's in the files.
func (w *certificateWorld) wants(request, chain string) {
	w.t.Helper()
	key, text := w.read("key"), w.read("chain")
	if text != chain || w.read("bundle") != key+text {
		w.t.Errorf("the files hold %q and %q", text, w.read("bundle"))
	}
	block, _ := pem.Decode([]byte(key))
	proof, err := x509.ParseCertificateRequest(w.requests[request].Spec.StubPKCS10Request)
	if block == nil || block.Type != "PRIVATE KEY" || err != nil {
		w.t.Fatalf("key %q, proof %v", key, err)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		w.t.Fatal(err)
	}
	own, ok := private.(*ecdsa.PrivateKey)
	if !ok || !own.PublicKey.Equal(proof.PublicKey) {
		w.t.Error("the key is not the one that the request was made with")
	}
}

func TestCertificateIsIssuedAndRefreshed(t *testing.T) {
	w := newCertificateWorld(t)
	anchor := func(text string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)}))
	}
	if again, err := w.mount(); !errors.Is(err, errNotIssued) || again != lostAfter || len(w.requests) != 1 {
		t.Fatalf("again in %s, %v, %d requests", again, err, len(w.requests))
	}
	begin := w.now.Add(time.Hour)
	w.decide("req-0", certificatesv1.PodCertificateRequestConditionTypeIssued, "words\n"+anchor("one"), begin)
	again, err := w.mount()
	if err != nil || again < time.Hour || again > time.Hour+refreshSpread {
		t.Fatalf("again in %s, %v", again, err)
	}
	w.wants("req-0", anchor("one"))

	w.now = w.now.Add(again)
	if again, err := w.mount(); err != nil || again != lostAfter || len(w.requests) != 2 {
		t.Fatalf("again in %s, %v, %d requests", again, err, len(w.requests))
	}
	w.wants("req-0", anchor("one")) // until the next is there
	w.decide("req-1", certificatesv1.PodCertificateRequestConditionTypeIssued, anchor("two"), w.now.Add(time.Hour))
	if _, err := w.mount(); err != nil {
		t.Fatal(err)
	}
	w.wants("req-1", anchor("two"))

	// A kubelet that starts anew has no keys. What is there stays until it has.
	w.p = Pod{}
	if _, err := w.mount(); err != nil || len(w.requests) != 3 {
		t.Fatalf("%v, %d requests", err, len(w.requests))
	}
	w.wants("req-1", anchor("two"))
}

func TestCertificateIsRefused(t *testing.T) {
	for condition, want := range map[string]string{
		certificatesv1.PodCertificateRequestConditionTypeDenied: `PodCertificateRequest default/req-0 was denied, reason="Why", message="because"`,
		certificatesv1.PodCertificateRequestConditionTypeFailed: `PodCertificateRequest default/req-0 failed, reason="Why", message="because"`,
	} {
		w := newCertificateWorld(t)
		_, _ = w.mount()
		w.decide("req-0", condition, "", w.now)
		for range 2 {
			if again, err := w.mount(); err == nil || !strings.Contains(err.Error(), want) || again > 0 || len(w.requests) != 1 {
				t.Errorf("again in %s, %v, %d requests", again, err, len(w.requests))
			}
		}
	}
}

func TestCertificateRequestIsLost(t *testing.T) {
	w := newCertificateWorld(t)
	_, _ = w.mount()
	w.requests = map[string]*certificatesv1.PodCertificateRequest{"other": {}}
	w.now = w.now.Add(lostAfter)
	if again, err := w.mount(); err == nil || again < time.Second {
		t.Errorf("again in %s, %v", again, err)
	}
}

func TestCertificateIsAwaited(t *testing.T) {
	w := newCertificateWorld(t)
	for range 3 { // a signer may take its time
		if again, err := w.mount(); !errors.Is(err, errNotIssued) || again != lostAfter {
			t.Errorf("again in %s, %v", again, err)
		}
		w.now = w.now.Add(lostAfter)
	}
	w.requests = map[string]*certificatesv1.PodCertificateRequest{"other": {}}
	if _, err := w.mount(); err == nil || !strings.Contains(err.Error(), "appears to have been deleted") {
		t.Error(err)
	}
	if _, err := w.mount(); !errors.Is(err, errNotIssued) || w.requests["req-1"] == nil {
		t.Errorf("%v, %v", err, w.requests)
	}
}

func TestKeyTypes(t *testing.T) {
	for _, kind := range []string{"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"} {
		if _, proof, err := newKey(kind); err != nil {
			t.Errorf("%s: %v", kind, err)
		} else if r, err := x509.ParseCertificateRequest(proof); err != nil || r.CheckSignature() != nil {
			t.Errorf("%s: the proof: %v", kind, err)
		}
	}
	if _, _, err := newKey("DSA"); err == nil {
		t.Error("a key of an unknown kind")
	}
}
