package authz

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/registry"
)

// Signers is a registry.Validate for each of the verbs "approve" (CertificateApproval), "sign" (CertificateSigning) and "attest"
// (ClusterTrustBundleAttest): who decides about a request for a certificate must be allowed to approve for its signer, who gives the certificate to
// sign for it, and who says what a signer's certificates are trusted by to attest for it.
func (a *Authorizer) Signers(ctx context.Context, at *registry.Attributes, about string) error {
	if at.Resource.Group != certificatesv1.GroupName || at.User == nil || slices.Contains(at.User.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	verb, signer, name := "", "", ""
	switch r := at.Object.(type) {
	case *certificatesv1.CertificateSigningRequest:
		old, _ := at.Old.(*certificatesv1.CertificateSigningRequest)
		if verb = decisionVerb(at.Subresource, r, old); verb != "" {
			signer, name = old.Spec.SignerName, old.Name
		}
	case *certificatesv1.ClusterTrustBundle:
		old, _ := at.Old.(*certificatesv1.ClusterTrustBundle)
		if r.Spec.SignerName != "" && (old == nil || !equality.Semantic.DeepEqual(old.Spec, r.Spec)) { // the garbage collector need not be a signer
			verb, signer, name = "attest", r.Spec.SignerName, r.Name
		}
	case *certificatesv1.PodCertificateRequest:
		if old, had := at.Old.(*certificatesv1.PodCertificateRequest); had && at.Subresource == "status" {
			verb, signer, name = "sign", old.Spec.SignerName, old.Name
		}
	}
	if verb == "" || verb != about {
		return nil
	}
	may, err := a.forSigner(ctx, at.User, verb, signer)
	switch {
	case err != nil:
		return apierrors.NewInternalError(err)
	case may:
		return nil
	case verb == "attest":
		return apierrors.NewForbidden(at.Resource.GroupResource(), name, fmt.Errorf("user not permitted to attest for signerName %q", signer))
	}
	return apierrors.NewForbidden(at.Resource.GroupResource(), name, fmt.Errorf("user not permitted to %s requests with signerName %q", verb, signer))
}

// decisionVerb is what a change of a request for a certificate amounts to: "approve", "sign" or nothing.
func decisionVerb(subresource string, r, old *certificatesv1.CertificateSigningRequest) string {
	switch {
	case old == nil:
	case subresource == "approval":
		return "approve"
	case subresource == "status" && (!bytes.Equal(r.Status.Certificate, old.Status.Certificate) || failed(r) != failed(old)):
		return "sign"
	}
	return ""
}

// forSigner asks whether somebody may act for a signer, by its name or by its whole domain.
func (a *Authorizer) forSigner(ctx context.Context, u user.Info, verb, signer string) (bool, error) {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, err := a.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", Name: name, ResourceRequest: true,
		})
		if err != nil || decision == authorizer.DecisionAllow {
			return err == nil, err
		}
	}
	return false, nil
}

func failed(r *certificatesv1.CertificateSigningRequest) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateFailed
	})
}
