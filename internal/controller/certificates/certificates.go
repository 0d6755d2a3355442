// Package certificates decides about requests for certificates and grants them: it approves what nodes may have, signs what was approved, and
// clears away what is done with.
//
// Its invariant: nothing is signed for the API server's signers that the signer's rules do not allow, whoever approved it; and nothing is
// approved here but a node's own client and serving certificates.
package certificates

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

type csr = certificatesv1.CertificateSigningRequest

const (
	nodePrefix = "system:node:"
	nodesGroup = "system:nodes"
)

// purpose is what one of the API server's signers signs.
type purpose struct {
	required, optional []certificatesv1.KeyUsage
	node               bool // a node's: its name and group, and nothing else
	serving            bool
}

var encrypts = []certificatesv1.KeyUsage{certificatesv1.UsageKeyEncipherment}

// purposes are upstream's rules (the documentation's "Kubernetes signers").
var purposes = map[string]purpose{
	certificatesv1.KubeAPIServerClientKubeletSignerName: {
		required: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature}, optional: encrypts, node: true,
	},
	certificatesv1.KubeletServingSignerName: {
		required: []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature}, optional: encrypts, node: true, serving: true,
	},
	certificatesv1.KubeAPIServerClientSignerName: {
		required: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		optional: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment},
	},
}

// check says what of a request its signer does not sign.
func (p purpose) check(req *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	for _, u := range p.required {
		if !slices.Contains(usages, u) {
			return fmt.Errorf("usages did not match [%s]", words(append(slices.Clone(p.optional), p.required...)))
		}
	}
	for _, u := range usages {
		if !slices.Contains(p.required, u) && !slices.Contains(p.optional, u) {
			return fmt.Errorf("usages did not match [%s]", words(append(slices.Clone(p.optional), p.required...)))
		}
	}
	if !p.node {
		return nil
	}
	switch {
	case !slices.Equal(req.Subject.Organization, []string{nodesGroup}):
		return fmt.Errorf("subject organization is not %s", nodesGroup)
	case !strings.HasPrefix(req.Subject.CommonName, nodePrefix) || req.Subject.CommonName == nodePrefix:
		return fmt.Errorf("subject common name does not begin with %s", nodePrefix)
	case len(req.EmailAddresses) > 0:
		return fmt.Errorf("email subjectAltNames are not allowed")
	case len(req.URIs) > 0:
		return fmt.Errorf("URI subjectAltNames are not allowed")
	case p.serving && len(req.DNSNames)+len(req.IPAddresses) == 0:
		return fmt.Errorf("DNS or IP subjectAltName is required")
	case !p.serving && len(req.DNSNames)+len(req.IPAddresses) > 0:
		return fmt.Errorf("DNS and IP subjectAltNames are not allowed")
	}
	return nil
}

func words(usages []certificatesv1.KeyUsage) string {
	var out []string
	for _, u := range usages {
		out = append(out, string(u))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func has(r *csr, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
}

func conclude(r *csr, kind certificatesv1.RequestConditionType, reason, message string) {
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message,
	})
}

// Sign makes a certificate with the cluster's authority.
type Sign func(req *x509.CertificateRequest, usage x509.KeyUsage, extended []x509.ExtKeyUsage, life time.Duration, now time.Time) ([]byte, error)

// usual is how long a certificate is good for whose request says nothing, and longest at most.
const usual = 365 * 24 * time.Hour

// NewSigner returns the controller that signs approved requests.
func NewSigner(c client.Client, sign Sign) harness.Controller {
	s := &signer{c, sign, time.Now}
	return harness.Controller{Workers: 2, Watches: []harness.Watch{harness.Self(&csr{})}, Reconcile: s.reconcile}
}

type signer struct {
	client client.Client
	sign   Sign
	now    func() time.Time
}

func (s *signer) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var found csr
	if err := s.client.Get(ctx, key, &found); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	p, ours := purposes[found.Spec.SignerName]
	if !ours || len(found.Status.Certificate) > 0 || !has(&found, certificatesv1.CertificateApproved) ||
		has(&found, certificatesv1.CertificateDenied) || has(&found, certificatesv1.CertificateFailed) {
		return 0, nil
	}
	next := found.DeepCopy()
	req, err := api.CertificateRequest(found.Spec.Request)
	if err == nil {
		err = p.check(req, found.Spec.Usages)
	}
	if err != nil {
		conclude(next, certificatesv1.CertificateFailed, "SignerValidationFailure", err.Error())
	} else {
		usage, extended := x509Usages(found.Spec.Usages)
		if next.Status.Certificate, err = s.sign(req, usage, extended, life(&found), s.now()); err != nil {
			return 0, err
		}
	}
	if err := s.client.SubResource("status").Update(ctx, next); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("grant the certificate %s: %w", key.Name, err)
	}
	return 0, nil
}

func life(r *csr) time.Duration {
	if r.Spec.ExpirationSeconds == nil {
		return usual
	}
	return min(time.Duration(*r.Spec.ExpirationSeconds)*time.Second, usual)
}

func x509Usages(usages []certificatesv1.KeyUsage) (usage x509.KeyUsage, extended []x509.ExtKeyUsage) {
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageDigitalSignature:
			usage |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			usage |= x509.KeyUsageKeyEncipherment
		case certificatesv1.UsageClientAuth:
			extended = append(extended, x509.ExtKeyUsageClientAuth)
		case certificatesv1.UsageServerAuth:
			extended = append(extended, x509.ExtKeyUsageServerAuth)
		}
	}
	return usage, extended
}
