package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type podCertificate = certificatesv1.PodCertificateRequest

// How long a pod's certificate may last, in seconds: an hour to 91 days; a day where nobody says.
const (
	shortestPodCertificate = 3600
	longestPodCertificate  = 91 * 24 * 3600
	usualPodCertificate    = 24 * 3600
	// longestSystemCertificate is that of the signers of Kubernetes' own.
	longestSystemCertificate = 24 * 3600

	maxStubRequest      = 10 << 10
	maxCertificateChain = 100 << 10
)

// certificateEnds are the conditions that end a request: one of them, once.
var certificateEnds = []string{
	certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed,
}

var podCertificateRow = Resource{
	Group: "certificates.k8s.io", Version: "v1", Kind: "PodCertificateRequest", Plural: "podcertificaterequests", Key: "podcertificaterequests", Namespaced: true, Status: true, StatusAlone: true,
	Fields: func(o Object) fields.Set {
		s := &o.(*podCertificate).Spec
		return fields.Set{"spec.signerName": s.SignerName, "spec.podName": s.PodName, "spec.nodeName": string(s.NodeName)}
	},
	Default:  func(o Object) { fillNil(&o.(*podCertificate).Spec.MaxExpirationSeconds, usualPodCertificate) },
	Validate: func(o Object) field.ErrorList { return validatePodCertificate(o.(*podCertificate)) },
	ValidateUpdate: func(o, old Object) field.ErrorList {
		return immutable(o.(*podCertificate).Spec, old.(*podCertificate).Spec, field.NewPath("spec"))
	},
	ValidateStatus: func(o, old Object) field.ErrorList {
		return validatePodCertificateStatus(o.(*podCertificate), old.(*podCertificate))
	},
	Columns: []Column{nameColumn,
		text("PodName", func(r *podCertificate) string { return r.Spec.PodName }),
		text("ServiceAccountName", func(r *podCertificate) string { return r.Spec.ServiceAccountName }),
		text("NodeName", func(r *podCertificate) string { return string(r.Spec.NodeName) }),
		text("SignerName", func(r *podCertificate) string { return r.Spec.SignerName }),
		text("State", podCertificateState), ageColumn,
	},
}

func podCertificateState(r *podCertificate) string {
	for _, end := range certificateEnds {
		if isTrue(r.Status.Conditions, end) {
			return end
		}
	}
	return "Pending"
}

func validatePodCertificate(r *podCertificate) field.ErrorList {
	s, p := &r.Spec, field.NewPath("spec")
	errs := validateSignerName(s.SignerName, p.Child("signerName"))
	for _, part := range []struct{ name, value string }{
		{"podName", s.PodName}, {"serviceAccountName", s.ServiceAccountName}, {"nodeName", string(s.NodeName)},
	} {
		errs = append(errs, each(p.Child(part.name), part.value, apivalidation.NameIsDNSSubdomain(part.value, false))...)
	}
	for _, part := range []struct{ name, value string }{
		{"podUID", string(s.PodUID)}, {"serviceAccountUID", string(s.ServiceAccountUID)}, {"nodeUID", string(s.NodeUID)},
	} {
		if errs = append(errs, required(part.value, p.Child(part.name))...); len(part.value) > 128 {
			errs = append(errs, field.TooLong(p.Child(part.name), part.value, 128))
		}
	}
	errs = append(errs, certificateLife(s, p.Child("maxExpirationSeconds"))...)
	errs = append(errs, userAnnotations(s.UnverifiedUserAnnotations, p.Child("unverifiedUserAnnotations"))...)
	return append(errs, stubRequest(s.StubPKCS10Request, p.Child("stubPKCS10Request"))...)
}

func systemSigner(name string) bool { return strings.HasPrefix(name, "kubernetes.io/") }

func certificateLife(s *certificatesv1.PodCertificateRequestSpec, p *field.Path) field.ErrorList {
	most := int32(longestPodCertificate)
	if systemSigner(s.SignerName) {
		most = longestSystemCertificate
	}
	switch n := s.MaxExpirationSeconds; {
	case n == nil:
		return field.ErrorList{field.Required(p, "must be set")}
	case *n < shortestPodCertificate || *n > most:
		return field.ErrorList{field.Invalid(p, *n, fmt.Sprintf("must be in the range [%d, %d]", shortestPodCertificate, most))}
	}
	return nil
}

// userAnnotations are a pod author's word to the signer: annotations, every key with a domain.
func userAnnotations(m map[string]string, p *field.Path) field.ErrorList {
	errs := apivalidation.ValidateAnnotations(m, p)
	for k := range m {
		if !strings.Contains(k, "/") {
			errs = append(errs, field.Invalid(p, k, "must be domain-prefixed (e.g. example.com/key)"))
		}
	}
	return errs
}

func stubRequest(der []byte, p *field.Path) field.ErrorList {
	switch {
	case len(der) == 0:
		return field.ErrorList{field.Required(p, "must contain a DER-encoded PKCS#10 certificate request")}
	case len(der) > maxStubRequest:
		return field.ErrorList{field.TooLong(p, der, maxStubRequest)}
	}
	parsed, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return field.ErrorList{field.Invalid(p, "<value omitted>", fmt.Sprintf("must be a valid PKCS#10 certificate request: %v", err))}
	}
	if err := parsed.CheckSignature(); err != nil {
		return field.ErrorList{field.Invalid(p, "<value omitted>", fmt.Sprintf("signature does not verify: %v", err))}
	}
	if what := weakKey(parsed.PublicKey); what != "" {
		return field.ErrorList{field.Invalid(p, "<value omitted>", what)}
	}
	return nil
}

// weakKey says what is wrong with a key that is none of those a pod may have.
func weakKey(key any) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits != 3072 && bits != 4096 {
			return "RSA keys must have modulus size 3072 or 4096"
		}
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits != 256 && bits != 384 && bits != 521 {
			return "elliptic public keys must use curve P256, P384 or P521"
		}
	case ed25519.PublicKey:
	default:
		return "unknown public key type; supported types are Ed25519, ECDSA, and RSA"
	}
	return ""
}

// validatePodCertificateStatus: a request ends once; a certificate comes with the condition that says so, and never changes.
func validatePodCertificateStatus(r, old *podCertificate) field.ErrorList {
	s, p := &r.Status, field.NewPath("status")
	errs := metavalidation.ValidateConditions(s.Conditions, p.Child("conditions"))
	ends, end := 0, ""
	for i, c := range s.Conditions {
		at := p.Child("conditions").Index(i)
		switch c.Type {
		case certificateEnds[0], certificateEnds[1], certificateEnds[2]:
			if ends, end = ends+1, c.Type; c.Status != metav1.ConditionTrue {
				errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
			}
		default:
			errs = append(errs, field.NotSupported(at.Child("type"), c.Type, certificateEnds))
		}
	}
	if ends > 1 {
		errs = append(errs, field.Invalid(p.Child("conditions"), s.Conditions, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
	}
	if was := podCertificateState(old); was != "Pending" {
		return append(errs, immutable(*s, old.Status, p)...)
	}
	if end != certificatesv1.PodCertificateRequestConditionTypeIssued {
		if s.CertificateChain != "" || s.NotBefore != nil || s.NotAfter != nil || s.BeginRefreshAt != nil {
			errs = append(errs, field.Invalid(p, "<value omitted>", "must not contain a certificate unless the request is Issued"))
		}
		return errs
	}
	return append(errs, issued(r, p)...)
}

// issued checks a certificate against what was asked for and what the status says of it.
func issued(r *podCertificate, p *field.Path) field.ErrorList {
	s, at := &r.Status, p.Child("certificateChain")
	bad := func(format string, args ...any) field.ErrorList {
		return field.ErrorList{field.Invalid(at, "<value omitted>", fmt.Sprintf(format, args...))}
	}
	switch {
	case s.CertificateChain == "":
		return field.ErrorList{field.Required(at, "must be set when the request is Issued")}
	case len(s.CertificateChain) > maxCertificateChain:
		return field.ErrorList{field.TooLong(at, "<value omitted>", maxCertificateChain)}
	}
	if err := checkChain([]byte(s.CertificateChain)); err != nil {
		return bad("%v", err)
	}
	block, _ := pem.Decode([]byte(s.CertificateChain))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return bad("leaf certificate failed to parse: %v", err)
	}
	request, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		return bad("spec.stubPKCS10Request: %v", err)
	}
	if k, ok := request.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && !k.Equal(leaf.PublicKey) {
		return bad("leaf certificate was not issued to the requested public key")
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > time.Duration(value(r.Spec.MaxExpirationSeconds))*time.Second || life < shortestPodCertificate*time.Second {
		return bad("leaf certificate lifetime must be >= 1 hour and <= spec.maxExpirationSeconds (%v)", life)
	}
	errs := sameMoment(s.NotBefore, leaf.NotBefore, p.Child("notBefore"))
	errs = append(errs, sameMoment(s.NotAfter, leaf.NotAfter, p.Child("notAfter"))...)
	switch b := s.BeginRefreshAt; {
	case b == nil:
		errs = append(errs, field.Required(p.Child("beginRefreshAt"), "must be present and consistent with the issued certificate"))
	case b.Time.Before(leaf.NotBefore.Add(10*time.Minute)) || b.Time.After(leaf.NotAfter.Add(-10*time.Minute)):
		errs = append(errs, field.Invalid(p.Child("beginRefreshAt"), b, "must be at least 10 minutes after status.notBefore and before status.notAfter"))
	}
	return errs
}

func sameMoment(t *metav1.Time, want time.Time, p *field.Path) field.ErrorList {
	switch {
	case t == nil:
		return field.ErrorList{field.Required(p, "must be present and consistent with the issued certificate")}
	case !t.Time.Equal(want):
		return field.ErrorList{field.Invalid(p, t, "must be set to the value encoded in the leaf certificate")}
	}
	return nil
}
