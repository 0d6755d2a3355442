package api

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type csr = certificatesv1.CertificateSigningRequest

// certificateRows: who asks is written by admission, which knows the user; the decision is the subresource approval's, the certificate status'.
func certificateRows() []*Resource {
	return []*Resource{of[csr, certificatesv1.CertificateSigningRequestList](Resource{
		Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest", Plural: "certificatesigningrequests", Short: []string{"csr"},
		Key: "certificatesigningrequests", Status: true, ValidateName: anyName,
		Subresources: []Subresource{{
			Name: "approval", Kind: "CertificateSigningRequest", Verbs: []string{"get", "patch", "update"},
			New:    func() runtime.Object { return &csr{} },
			Change: func(into, given Object) { decide(into.(*csr), given.(*csr)) },
		}},
		Fields:         func(o Object) fields.Set { return fields.Set{"spec.signerName": o.(*csr).Spec.SignerName} },
		Validate:       func(o Object) field.ErrorList { return validateCSR(o.(*csr)) },
		PrepareUpdate:  func(o, old Object) { o.(*csr).Spec = *old.(*csr).Spec.DeepCopy() }, // a request is what it was when it was made
		PrepareStatus:  func(o, old Object) { keepDecision(o.(*csr), old.(*csr)) },
		ValidateUpdate: func(o, old Object) field.ErrorList { return validateDecision(o.(*csr), old.(*csr)) },
		ValidateStatus: func(o, old Object) field.ErrorList { return validateIssue(o.(*csr), old.(*csr)) },
		Columns:        csrColumns,
	}),
		of[trustBundle, certificatesv1.ClusterTrustBundleList](trustBundleRow),
		of[podCertificate, certificatesv1.PodCertificateRequestList](podCertificateRow),
	}
}

// CertificateRequest parses what a CSR asks for, and checks that who asks holds the key.
func CertificateRequest(request []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return parsed, parsed.CheckSignature()
}

// usages are all that a certificate may be asked for.
var usages = []certificatesv1.KeyUsage{
	certificatesv1.UsageAny, certificatesv1.UsageCertSign, certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning,
	certificatesv1.UsageContentCommitment, certificatesv1.UsageCRLSign, certificatesv1.UsageDataEncipherment, certificatesv1.UsageDecipherOnly,
	certificatesv1.UsageDigitalSignature, certificatesv1.UsageEmailProtection, certificatesv1.UsageEncipherOnly, certificatesv1.UsageIPsecEndSystem,
	certificatesv1.UsageIPsecTunnel, certificatesv1.UsageIPsecUser, certificatesv1.UsageKeyAgreement, certificatesv1.UsageKeyEncipherment,
	certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC, certificatesv1.UsageOCSPSigning, certificatesv1.UsageServerAuth,
	certificatesv1.UsageSigning, certificatesv1.UsageSMIME, certificatesv1.UsageTimestamping,
}

func validateCSR(r *csr) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if _, err := CertificateRequest(r.Spec.Request); err != nil {
		errs = append(errs, field.Invalid(spec.Child("request"), r.Spec.Request, err.Error()))
	}
	if len(r.Spec.Usages) == 0 {
		errs = append(errs, field.Required(spec.Child("usages"), ""))
	}
	for i, u := range r.Spec.Usages {
		if !slices.Contains(usages, u) {
			errs = append(errs, field.NotSupported(spec.Child("usages").Index(i), u, usages))
		}
		if slices.Index(r.Spec.Usages, u) < i {
			errs = append(errs, field.Duplicate(spec.Child("usages").Index(i), u))
		}
	}
	if r.Spec.SignerName == "kubernetes.io/legacy-unknown" {
		errs = append(errs, field.Invalid(spec.Child("signerName"), r.Spec.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, validateSignerName(r.Spec.SignerName, spec.Child("signerName"))...)
	}
	if s := r.Spec.ExpirationSeconds; s != nil && *s < 600 {
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), *s, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return append(errs, validateConditions(r)...)
}

// validateSignerName: a domain of at least two labels, a slash, and a name.
func validateSignerName(name string, p *field.Path) (errs field.ErrorList) {
	if name == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	domain, path, found := strings.Cut(name, "/")
	if !found || strings.Contains(path, "/") {
		return field.ErrorList{field.Invalid(p, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	errs = append(errs, each(p, domain, validation.IsDNS1123Subdomain(domain))...)
	if !strings.Contains(domain, ".") {
		errs = append(errs, field.Invalid(p, domain, "should be a domain with at least two segments separated by dots"))
	}
	if path == "" {
		return append(errs, field.Invalid(p, path, "must be a path that is not empty"))
	}
	return append(errs, each(p, path, apivalidation.NameIsDNSSubdomain(path, false))...)
}

func decision(r *csr, kind certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequestCondition {
	for i := range r.Status.Conditions {
		if r.Status.Conditions[i].Type == kind {
			return &r.Status.Conditions[i]
		}
	}
	return nil
}

func validateConditions(r *csr) field.ErrorList {
	p := field.NewPath("status", "conditions")
	var errs field.ErrorList
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, c := range r.Status.Conditions {
		at := p.Index(i)
		errs = append(errs, required(string(c.Type), at.Child("type"))...)
		switch c.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			if c.Status != corev1.ConditionTrue {
				errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []corev1.ConditionStatus{corev1.ConditionTrue}))
			}
		default:
			errs = append(errs, oneOf(c.Status, at.Child("status"), corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown)...)
		}
		if seen[c.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), c.Type))
		}
		seen[c.Type] = true
	}
	if seen[certificatesv1.CertificateApproved] && seen[certificatesv1.CertificateDenied] {
		errs = append(errs, field.Invalid(p, certificatesv1.CertificateDenied, "Approved and Denied conditions are mutually exclusive"))
	}
	return errs
}

// validateDecision: what was decided, or failed, stays so.
func validateDecision(r, old *csr) field.ErrorList {
	errs := validateConditions(r)
	for _, kind := range [...]certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		if decision(old, kind) != nil && decision(r, kind) == nil {
			errs = append(errs, field.Forbidden(field.NewPath("status", "conditions"), fmt.Sprintf("updates may not remove a condition of type %q", kind)))
		}
	}
	return errs
}

// validateIssue: a certificate is given once, is one, and never beside a failure.
func validateIssue(r, old *csr) field.ErrorList {
	errs := validateConditions(r)
	p := field.NewPath("status", "certificate")
	if len(r.Status.Certificate) > 0 {
		if err := checkChain(r.Status.Certificate); err != nil {
			errs = append(errs, field.Invalid(p, "<certificate data>", err.Error()))
		}
	}
	if len(old.Status.Certificate) > 0 && !slices.Equal(old.Status.Certificate, r.Status.Certificate) {
		errs = append(errs, field.Forbidden(p, "updates may not modify existing certificate content"))
	}
	return errs
}

func checkChain(chain []byte) error {
	for rest, n := chain, 0; ; n++ {
		block, after := pem.Decode(rest)
		switch {
		case block == nil && n == 0:
			return errors.New("must contain at least one CERTIFICATE PEM block")
		case block == nil:
			return nil
		case block.Type != "CERTIFICATE" || len(block.Headers) > 0:
			return fmt.Errorf("only CERTIFICATE PEM blocks without headers are allowed, found %q", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
		rest = after
	}
}

func isDecision(kind certificatesv1.RequestConditionType) bool {
	return kind == certificatesv1.CertificateApproved || kind == certificatesv1.CertificateDenied
}

// decide takes conditions and metadata from what is given, and nothing else.
func decide(into, given *csr) {
	statusMeta(into, given)
	old := into.Status.Conditions
	into.Status.Conditions = nil
	for _, c := range given.Status.Conditions {
		into.Status.Conditions = append(into.Status.Conditions, *c.DeepCopy())
	}
	stamp(into, old)
}

// keepDecision makes of a write to status what signers may say: no decisions.
func keepDecision(r, old *csr) {
	kept := func(kind certificatesv1.RequestConditionType) bool {
		return isDecision(kind) || kind == certificatesv1.CertificateFailed
	}
	var out []certificatesv1.CertificateSigningRequestCondition
	for _, c := range r.Status.Conditions {
		if was := decision(old, c.Type); was != nil && isDecision(c.Type) {
			c = *was
		} else if isDecision(c.Type) {
			continue
		}
		out = append(out, c)
	}
	r.Status.Conditions = out
	for _, c := range old.Status.Conditions {
		if kept(c.Type) && decision(r, c.Type) == nil {
			r.Status.Conditions = append(r.Status.Conditions, c)
		}
	}
	stamp(r, old.Status.Conditions)
}

// stamp fills the times of conditions that came without.
func stamp(r *csr, old []certificatesv1.CertificateSigningRequestCondition) {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, was := range old {
			if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
				c.LastTransitionTime = was.LastTransitionTime
			}
		}
	}
}

var csrColumns = []Column{nameColumn, ageColumn,
	text("SignerName", func(r *csr) string { return orElse(r.Spec.SignerName, "<none>") }),
	text("Requestor", func(r *csr) string { return r.Spec.Username }),
	text("RequestedDuration", func(r *csr) string {
		if r.Spec.ExpirationSeconds == nil {
			return "<none>"
		}
		return duration.HumanDuration(time.Duration(*r.Spec.ExpirationSeconds) * time.Second)
	}),
	text("Condition", csrState),
}

func csrState(r *csr) string {
	var words []string
	switch {
	case decision(r, certificatesv1.CertificateDenied) != nil:
		words = append(words, "Denied")
	case decision(r, certificatesv1.CertificateApproved) != nil:
		words = append(words, "Approved")
	default:
		words = append(words, "Pending")
	}
	if decision(r, certificatesv1.CertificateFailed) != nil {
		words = append(words, "Failed")
	}
	if len(r.Status.Certificate) > 0 {
		words = append(words, "Issued")
	}
	return strings.Join(words, ",")
}
