package volume

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"path"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Certificates is where pods' certificates come from: a signer decides about each request, now or later.
type Certificates interface {
	// RequestCertificate asks for a certificate for the pod; proof is a certificate request signed with its key.
	RequestCertificate(ctx context.Context, pod *corev1.Pod, s *corev1.PodCertificateProjection, proof []byte) (name string, err error)
	Certificate(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error)
}

// lostAfter is how long after it was made a request that isn't there counts as deleted, and is made anew.
const lostAfter = 10 * time.Minute

// refreshSpread is over which time refreshes that fall together are spread.
const refreshSpread = 5 * time.Minute

// credentials are a key and the certificate for it, and what is under way to replace them. They are in memory alone: a kubelet that starts anew asks anew.
type credentials struct {
	key, chain []byte
	refresh    time.Time // when to ask for the next

	request string // under way, empty if none is
	next    []byte // its key
	made    time.Time
	look    time.Time // when to look at it again, should word of it be lost
	failed  error     // for good
}

var errNotIssued = errors.New("the certificate has not been issued yet")

// due is when to look again although nothing happened.
func (c *credentials) due() time.Time {
	switch {
	case c.failed != nil:
		return time.Time{}
	case c.request != "":
		return c.look
	}
	return c.refresh
}

// certificate puts a pod's key and certificate into files, as they are now, and asks for the next when it is time.
func (m *Manager) certificate(ctx context.Context, pod *corev1.Pod, key string, s *corev1.PodCertificateProjection, def int32, p *Pod, now time.Time, files map[string]file) error {
	c := p.credentials[key]
	if c == nil {
		c = &credentials{}
		p.credentials[key] = c
	}
	if err := m.advance(ctx, pod, c, s, now); err != nil && (c.chain == nil || c.failed != nil) {
		return err
	}
	for where, parts := range map[string][][]byte{
		s.CredentialBundlePath: {c.key, c.chain}, s.KeyPath: {c.key}, s.CertificateChainPath: {c.chain},
	} {
		if where != "" {
			files[path.Clean(where)] = private(pod, bytes.Join(parts, nil), def)
		}
	}
	return nil
}

// advance takes the credentials one step on: asks, or looks what became of the request.
func (m *Manager) advance(ctx context.Context, pod *corev1.Pod, c *credentials, s *corev1.PodCertificateProjection, now time.Time) error {
	if c.failed != nil {
		return c.failed
	}
	if c.request == "" {
		if c.chain != nil && now.Before(c.refresh) {
			return nil
		}
		if err := m.ask(ctx, pod, c, s, now); err != nil {
			c.refresh = now.Add(time.Minute)
			return err
		}
	}
	c.look = now.Add(lostAfter)
	r, err := m.source.Certificate(ctx, pod.Namespace, c.request)
	if apierrors.IsNotFound(err) && !now.Before(c.made.Add(lostAfter)) {
		name := c.request
		c.request, c.refresh = "", now.Add(time.Second)
		return fmt.Errorf("PodCertificateRequest %s/%s appears to have been deleted", pod.Namespace, name)
	}
	if err != nil {
		return fmt.Errorf("while getting PodCertificateRequest %s/%s: %w", pod.Namespace, c.request, err)
	}
	return c.take(r)
}

func (m *Manager) ask(ctx context.Context, pod *corev1.Pod, c *credentials, s *corev1.PodCertificateProjection, now time.Time) error {
	key, proof, err := newKey(s.KeyType)
	if err != nil {
		return err
	}
	name, err := m.source.RequestCertificate(ctx, pod, s, proof)
	if err != nil {
		return fmt.Errorf("while creating PodCertificateRequest: %w", err)
	}
	c.request, c.next, c.made = name, key, now
	return nil
}

// take takes over what a request came to.
func (c *credentials) take(r *certificatesv1.PodCertificateRequest) error {
	what := "PodCertificateRequest " + r.Namespace + "/" + r.Name
	for _, condition := range r.Status.Conditions {
		switch condition.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied:
			c.failed = fmt.Errorf("%s was denied, reason=%q, message=%q", what, condition.Reason, condition.Message)
			return c.failed
		case certificatesv1.PodCertificateRequestConditionTypeFailed:
			c.failed = fmt.Errorf("%s failed, reason=%q, message=%q", what, condition.Reason, condition.Message)
			return c.failed
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			c.key, c.chain, c.request, c.next = c.next, blocks(r.Status.CertificateChain), "", nil
			c.refresh = r.Status.BeginRefreshAt.Add(mathrand.N(refreshSpread))
			return nil
		}
	}
	return fmt.Errorf("%s: %w", what, errNotIssued)
}

// blocks are the certificates of a chain, without the words around them.
func blocks(chain string) []byte {
	var out []byte
	for rest := []byte(chain); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return out
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
}

// newKey makes a key of a kind, and the proof that we have it.
func newKey(kind string) (text, proof []byte, err error) {
	key, err := generate(kind)
	if err != nil {
		return nil, nil, fmt.Errorf("while generating keypair: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if proof, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), proof, nil
}

func generate(kind string) (crypto.Signer, error) {
	switch kind {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("unknown key type %q", kind)
}
