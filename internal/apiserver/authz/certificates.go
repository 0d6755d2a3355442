package authz

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/registry"
)

// ValidateCertificates is a registry.Validate (CertificateApproval, CertificateSigning): who decides about a request for a certificate must
// be allowed to approve for its signer, who gives the certificate to sign for it.
func (a *Authorizer) ValidateCertificates(ctx context.Context, at *registry.Attributes) error {
	r, ok := at.Object.(*certificatesv1.CertificateSigningRequest)
	old, hadOld := at.Old.(*certificatesv1.CertificateSigningRequest)
	if !ok || !hadOld || at.Operation != "UPDATE" || at.User == nil || slices.Contains(at.User.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	verb := ""
	switch {
	case at.Subresource == "approval":
		verb = "approve"
	case at.Subresource == "status" && (!bytes.Equal(r.Status.Certificate, old.Status.Certificate) || failed(r) != failed(old)):
		verb = "sign"
	default:
		return nil
	}
	signer := old.Spec.SignerName
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, err := a.Authorize(ctx, authorizer.AttributesRecord{
			User: at.User, Verb: verb, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", Name: name, ResourceRequest: true,
		})
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		if decision == authorizer.DecisionAllow {
			return nil
		}
	}
	return apierrors.NewForbidden(at.Resource.GroupResource(), old.Name, fmt.Errorf("user not permitted to %s requests with signerName %q", verb, signer))
}

func failed(r *certificatesv1.CertificateSigningRequest) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateFailed
	})
}
