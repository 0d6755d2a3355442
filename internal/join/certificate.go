package join

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/pki"
)

// Wanted is what a certificate is to say.
type Wanted struct {
	Signer   string
	Name     string   // common name: "system:node:a"
	Groups   []string // organizations
	DNSNames []string
	IPs      []net.IP
}

// NodeClient is the certificate with which a node shows itself to the API server.
func NodeClient(node string) Wanted {
	return Wanted{Signer: certificatesv1.KubeAPIServerClientKubeletSignerName, Name: "system:node:" + node, Groups: []string{"system:nodes"}}
}

// NodeServing is the one with which its kubelet answers.
func NodeServing(node string, ips ...net.IP) Wanted {
	return Wanted{
		Signer: certificatesv1.KubeletServingSignerName, Name: "system:node:" + node, Groups: []string{"system:nodes"}, DNSNames: []string{node}, IPs: ips,
	}
}

func (w Wanted) usages() []certificatesv1.KeyUsage {
	if w.Signer == certificatesv1.KubeletServingSignerName {
		return []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
	}
	return []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
}

// Certificate is one of this machine's, kept in a file (certificate and key, mode 0600) and renewed while Run runs.
type Certificate struct {
	file string
	want Wanted
	log  *slog.Logger
	// Renewed, if set, is called after each renewal.
	Renewed func()

	mu      sync.Mutex
	current *tls.Certificate
	first   chan struct{} // closed when there is one
}

// Open reads the certificate from its file. That there is none yet is no error.
func Open(file string, want Wanted, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{file: file, want: want, log: log, first: make(chan struct{})}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read this node's certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(raw, raw)
	if err != nil {
		log.Warn("a certificate of this node is damaged; asking for a new one", "file", file, "err", err)
		return c, nil
	}
	c.set(&pair)
	return c, nil
}

func (c *Certificate) set(pair *tls.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		close(c.first)
	}
	c.current = pair
}

// Current is the certificate there is; nil if there is none.
func (c *Certificate) Current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// Good says whether the certificate is the wanted one and in force.
func (c *Certificate) Good(now time.Time) bool {
	pair := c.Current()
	return pair != nil && pair.Leaf.Subject.CommonName == c.want.Name && now.Before(pair.Leaf.NotAfter) && now.After(pair.Leaf.NotBefore) && c.namesCovered(pair.Leaf)
}

func (c *Certificate) namesCovered(leaf *x509.Certificate) bool {
	for _, n := range c.want.DNSNames {
		if leaf.VerifyHostname(n) != nil {
			return false
		}
	}
	for _, ip := range c.want.IPs {
		if leaf.VerifyHostname(ip.String()) != nil {
			return false
		}
	}
	return true
}

// GetClientCertificate serves as tls.Config.GetClientCertificate.
func (c *Certificate) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if pair := c.Current(); pair != nil {
		return pair, nil
	}
	return &tls.Certificate{}, nil
}

// GetCertificate serves as tls.Config.GetCertificate. Before the first certificate is there, it waits a little.
func (c *Certificate) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	select {
	case <-c.first:
		return c.Current(), nil
	case <-time.After(5 * time.Second):
		return nil, errors.New("this node has no serving certificate yet")
	case <-hello.Context().Done():
		return nil, hello.Context().Err()
	}
}

// Run gets the certificate if it is missing, and a new one at two thirds of its life, until ctx ends.
func (c *Certificate) Run(ctx context.Context, api crclient.WithWatch) error {
	// Timers stand still while a machine sleeps and know nothing of a clock that was set, so the wall clock is looked at once an hour.
	const look = time.Hour
	const least = time.Second // between two requests, even when certificates are given for moments only
	pause := least
	for {
		if wait := c.due(time.Now()); wait > 0 {
			if !sleep(ctx, min(wait, look)) {
				return nil
			}
			continue
		}
		err := c.Request(ctx, api)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			pause = least
			c.log.Info("got a certificate", "name", c.want.Name, "signer", c.want.Signer, "until", c.Current().Leaf.NotAfter)
			if c.Renewed != nil {
				c.Renewed()
			}
		default:
			c.log.Warn("this node got no new certificate; trying again", "signer", c.want.Signer, "err", err)
			pause = min(pause*2, time.Minute)
		}
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// due is how long the certificate need not be renewed yet.
func (c *Certificate) due(now time.Time) time.Duration {
	if !c.Good(now) {
		return 0
	}
	leaf := c.Current().Leaf
	return pki.RenewAt(leaf.NotBefore, leaf.NotAfter).Sub(now)
}

func sleep(ctx context.Context, d time.Duration) (whole bool) {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Request asks the cluster for the certificate, waits for it and keeps it.
func (c *Certificate) Request(ctx context.Context, api crclient.WithWatch) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: c.want.Name, Organization: c.want.Groups},
		DNSNames: c.want.DNSNames, IPAddresses: c.want.IPs,
	}, key)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(der)
	request := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "node-csr-" + hex.EncodeToString(sum[:])[:20]},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: c.want.Signer, Usages: c.want.usages(),
		},
	}
	if err := api.Create(ctx, request); err != nil {
		return fmt.Errorf("ask for a certificate: %w", err)
	}
	chain, err := await(ctx, api, request)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	raw := bytes.Join([][]byte{bytes.TrimSpace(chain), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})}, []byte("\n"))
	pair, err := tls.X509KeyPair(raw, raw)
	if err != nil {
		return fmt.Errorf("the cluster gave a certificate that is of no use: %w", err)
	}
	if err := pki.WriteFile(c.file, raw, 0o600); err != nil {
		return err
	}
	c.set(&pair)
	return nil
}

// DeniedError says that the cluster refused to give a certificate, and why.
type DeniedError struct{ Message string }

func (e *DeniedError) Error() string { return e.Message }

// await watches a request until it was decided. Who approves by hand gets the time to.
func await(ctx context.Context, api crclient.WithWatch, request *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	for {
		w, err := api.Watch(ctx, &certificatesv1.CertificateSigningRequestList{}, &crclient.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("metadata.name", request.Name),
		})
		if err != nil {
			if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || ctx.Err() != nil {
				return nil, fmt.Errorf("wait for a certificate: %w", err)
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Second):
			}
			continue
		}
		chain, done, err := follow(ctx, w, request)
		w.Stop()
		if done || err != nil {
			return chain, err
		}
	}
}

// follow reads one watch; a watch may end before anything was decided.
func follow(ctx context.Context, w watch.Interface, request *certificatesv1.CertificateSigningRequest) (chain []byte, done bool, err error) {
	for {
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case e, open := <-w.ResultChan():
			if !open || e.Type == watch.Error {
				return nil, false, nil
			}
			r, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
			if !ok || r.UID != request.UID {
				continue
			}
			if e.Type == watch.Deleted {
				return nil, false, errors.New("wait for a certificate: the request was deleted")
			}
			for _, c := range r.Status.Conditions {
				if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
					return nil, true, &DeniedError{c.Message}
				}
			}
			if len(r.Status.Certificate) > 0 {
				return r.Status.Certificate, true, nil
			}
		}
	}
}
