package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

func certificateRequest(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestValidateCSR(t *testing.T) {
	request := certificateRequest(t)
	forged := []byte(strings.Replace(string(request), "M", "N", 3))
	short := int32(599)
	cases := map[string]struct {
		change func(*csr)
		want   string
	}{
		"good":            {func(*csr) {}, ""},
		"no request":      {func(r *csr) { r.Spec.Request = nil }, "spec.request: Invalid value: null: PEM block type must be CERTIFICATE REQUEST"},
		"a broken one":    {func(r *csr) { r.Spec.Request = forged }, "spec.request: Invalid value"},
		"no usage":        {func(r *csr) { r.Spec.Usages = nil }, "spec.usages: Required value"},
		"unknown usage":   {func(r *csr) { r.Spec.Usages = append(r.Spec.Usages, "flying") }, `spec.usages[1]: Unsupported value: "flying"`},
		"a usage twice":   {func(r *csr) { r.Spec.Usages = append(r.Spec.Usages, r.Spec.Usages[0]) }, "spec.usages[1]: Duplicate value"},
		"no signer":       {func(r *csr) { r.Spec.SignerName = "" }, "spec.signerName: Required value"},
		"the old signer":  {func(r *csr) { r.Spec.SignerName = "kubernetes.io/legacy-unknown" }, "the legacy signerName is not allowed via this API version"},
		"no domain":       {func(r *csr) { r.Spec.SignerName = "me" }, "must be a fully qualified domain and path"},
		"one word domain": {func(r *csr) { r.Spec.SignerName = "me/signer" }, "at least two segments separated by dots"},
		"too short":       {func(r *csr) { r.Spec.ExpirationSeconds = &short }, "may not specify a duration less than 600 seconds"},
		"both decisions": {func(r *csr) {
			r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Approved", Status: "True"}, {Type: "Denied", Status: "True"}}
		}, "Approved and Denied conditions are mutually exclusive"},
		"approved not": {func(r *csr) {
			r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Approved", Status: "False"}}
		}, `status.conditions[0].status: Unsupported value: "False"`},
	}
	for name, c := range cases {
		r := &csr{Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		}}
		c.change(r)
		got := ""
		if errs := validateCSR(r); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Who decides changes no certificate, who signs no decision, and nobody takes a decision back.
func TestDecisionsAndCertificates(t *testing.T) {
	yes := func(kind certificatesv1.RequestConditionType) certificatesv1.CertificateSigningRequestCondition {
		return certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue}
	}
	stored := &csr{Status: certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("old")}}
	given := &csr{Status: certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("new"), Conditions: []certificatesv1.CertificateSigningRequestCondition{yes("Approved")}}}
	decide(stored, given)
	if string(stored.Status.Certificate) != "old" || csrState(stored) != "Approved,Issued" || stored.Status.Conditions[0].LastTransitionTime.IsZero() {
		t.Errorf("after approval: %+v", stored.Status)
	}
	back := stored.DeepCopy()
	decide(back, &csr{})
	if errs := validateDecision(back, stored); len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), `updates may not remove a condition of type "Approved"`) {
		t.Errorf("a decision was taken back: %v", errs)
	}
	next := &csr{Status: certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{yes("Denied"), yes("Failed")}}}
	keepDecision(next, stored)
	if csrState(next) != "Approved,Failed" {
		t.Errorf("a signer decided: %s", csrState(next))
	}
	if errs := validateIssue(next, stored); len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), "updates may not modify existing certificate content") {
		t.Errorf("a certificate was taken away: %v", errs)
	}
}
