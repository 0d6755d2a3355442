package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// How long requests stay after they were decided, or without a decision (upstream's times).
const (
	keepDecided = time.Hour
	keepPending = 24 * time.Hour
)

// NewCleaner returns the controller that deletes requests which are of no use any more.
func NewCleaner(c client.Client) harness.Controller {
	k := &cleaner{c, time.Now}
	return harness.Controller{Watches: []harness.Watch{harness.Self(&csr{})}, Reconcile: k.reconcile}
}

type cleaner struct {
	client client.Client
	now    func() time.Time
}

func (k *cleaner) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var found csr
	if err := k.client.Get(ctx, key, &found); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if left := end(&found).Sub(k.now()); left > 0 {
		return left, nil
	}
	uid := found.UID
	if err := k.client.Delete(ctx, found.DeepCopy(), crclient.Preconditions{UID: &uid}); crclient.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("delete the request for a certificate %s: %w", key.Name, err)
	}
	return 0, nil
}

// end is when a request has done its work.
func end(r *csr) time.Time {
	at := r.CreationTimestamp.Add(keepPending)
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			return c.LastUpdateTime.Add(keepDecided)
		case certificatesv1.CertificateApproved:
			if len(r.Status.Certificate) > 0 {
				at = c.LastUpdateTime.Add(keepDecided)
			}
		}
	}
	if block, _ := pem.Decode(r.Status.Certificate); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && cert.NotAfter.Before(at) {
			return cert.NotAfter
		}
	}
	return at
}
