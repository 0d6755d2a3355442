package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/registry"
)

// requestor writes into a request for a certificate who makes it; approvers go by that.
func requestor(_ context.Context, a *registry.Attributes) error {
	r, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Operation != create || a.Subresource != "" {
		return nil
	}
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = "", "", nil, nil
	if a.User == nil {
		return nil
	}
	r.Spec.Username, r.Spec.UID, r.Spec.Groups = a.User.GetName(), a.User.GetUID(), slices.Clone(a.User.GetGroups())
	for k, v := range a.User.GetExtra() {
		if r.Spec.Extra == nil {
			r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		r.Spec.Extra[k] = slices.Clone(v)
	}
	return nil
}

// certificateSubject (CertificateSubjectRestriction) keeps everybody from asking for a certificate that would make them all-powerful.
func certificateSubject(_ context.Context, a *registry.Attributes) error {
	r, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Operation != create || a.Subresource != "" || r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil {
		return forbid(a, errors.New("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"))
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return forbid(a, errors.New("failed to parse CSR: "+err.Error()))
	}
	if slices.Contains(parsed.Subject.Organization, user.SystemPrivilegedGroup) {
		return forbid(a, errors.New("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"))
	}
	return nil
}
