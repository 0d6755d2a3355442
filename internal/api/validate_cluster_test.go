package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRuntimeClassValidation(t *testing.T) {
	const class = "metadata: {name: fast}\nhandler: runc\noverhead: {podFixed: {cpu: 10m}}\nscheduling: {nodeSelector: {a: b}, tolerations: [{key: k, operator: Exists}]}\n"
	checkCreate(t, "node.k8s.io/RuntimeClass", class, []bad{
		{"handler", `handler: ""`, one("handler Required")},
		{"handler's name", `handler: Run_C`, one("handler Invalid")},
		{"overhead", `overhead: {podFixed: {cpu: -1}}`, one("overhead.podFixed.limits[cpu] Invalid")},
		{"selector", `scheduling: {nodeSelector: {"a b": c}}`, one("scheduling.nodeSelector Invalid")},
		{"toleration twice", `scheduling: {tolerations: [{key: k, operator: Exists}, {key: k, operator: Exists}]}`, one("scheduling.tolerations[1] Duplicate")},
	})
	checkUpdate(t, "node.k8s.io/RuntimeClass", class, []bad{{"handler", `handler: kata`, one("handler Invalid")}, {"overhead", `overhead: null`, nil}})
}

func TestMigrationValidation(t *testing.T) {
	const migration = "metadata: {name: m}\nspec: {resource: {group: apps, resource: deployments}}\n"
	checkCreate(t, "storagemigration.k8s.io/StorageVersionMigration", migration, []bad{
		{"no resource", `spec: {resource: {resource: ""}}`, one("spec.resource.resource Required")},
		{"resource", `spec: {resource: {resource: "a/b"}}`, one("spec.resource.resource Invalid")},
		{"core", `spec: {resource: {group: null, resource: secrets}}`, nil},
	})
	checkUpdate(t, "storagemigration.k8s.io/StorageVersionMigration", migration, []bad{{"resource", `spec: {resource: {resource: daemonsets}}`, one("spec.resource Invalid")}})
}

func TestAddressKindsValidation(t *testing.T) {
	checkCreate(t, "networking.k8s.io/ServiceCIDR", "metadata: {name: c}\nspec: {cidrs: [10.0.0.0/16]}\n", []bad{
		{"none", `spec: {cidrs: []}`, one("spec.cidrs Required")},
		{"both families", `spec: {cidrs: [10.0.0.0/16, "fd00::/112"]}`, nil},
		{"two of one family", `spec: {cidrs: [10.0.0.0/16, 10.1.0.0/16]}`, one("spec.cidrs Invalid")},
		{"three", `spec: {cidrs: [10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16]}`, one("spec.cidrs Invalid")},
		{"no range", `spec: {cidrs: [all]}`, one("spec.cidrs[0] Invalid")},
		{"host bits", `spec: {cidrs: [10.0.0.1/16]}`, one("spec.cidrs[0] Invalid")},
	})
	checkUpdate(t, "networking.k8s.io/ServiceCIDR", "metadata: {name: c}\nspec: {cidrs: [10.0.0.0/16]}\n", []bad{
		{"another", `spec: {cidrs: [10.1.0.0/16]}`, one("spec.cidrs Invalid")},
		{"the other family too", `spec: {cidrs: [10.0.0.0/16, "fd00::/112"]}`, nil},
	})
	checkCreate(t, "networking.k8s.io/IPAddress", "metadata: {name: 10.0.0.1}\nspec: {parentRef: {resource: services, namespace: default, name: s}}\n", []bad{
		{"nobody's", `spec: {parentRef: null}`, one("spec.parentRef Required")},
		{"no name", `spec: {parentRef: {name: ""}}`, one("spec.parentRef.name Required")},
		{"no resource", `spec: {parentRef: {resource: ""}}`, one("spec.parentRef.resource Required")},
	})
	for name, good := range map[string]bool{"10.0.0.1": true, "2001:db8::1": true, "2001:0db8::1": false, "010.0.0.1": false, "a": false} {
		if why := addressName(name, false); (len(why) == 0) != good {
			t.Errorf("%s: %v", name, why)
		}
	}
	const class = "metadata: {name: c}\nspec: {controller: example.com/ingress, parameters: {kind: Config, name: p}}\n"
	checkCreate(t, "networking.k8s.io/IngressClass", class, []bad{
		{"no controller", `spec: {controller: ""}`, one("spec.controller Required")},
		{"controller", `spec: {controller: ingress}`, one("spec.controller Invalid")},
		{"no kind", `spec: {parameters: {kind: ""}}`, one("spec.parameters.kind Required")},
		{"scope", `spec: {parameters: {scope: World}}`, one("spec.parameters.scope NotSupported")},
		{"namespace of a scope", `spec: {parameters: {scope: Namespace}}`, one("spec.parameters.namespace Required")},
		{"namespace without", `spec: {parameters: {namespace: a}}`, one("spec.parameters.namespace Forbidden")},
	})
	checkUpdate(t, "networking.k8s.io/IngressClass", class, []bad{{"controller", `spec: {controller: example.com/other}`, one("spec.controller Invalid")}})
}

// signed makes a certificate for a key; nil parent signs itself.
func signed(t *testing.T, change func(*x509.Certificate), key *ecdsa.PrivateKey) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a"}, NotBefore: time.Unix(1_800_000_000, 0), BasicConstraintsValid: true}
	c.NotAfter = c.NotBefore.Add(24 * time.Hour)
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTrustBundleValidation(t *testing.T) {
	key := newKey(t)
	ca := string(signed(t, func(c *x509.Certificate) { c.IsCA = true }, key))
	leaf := string(signed(t, func(*x509.Certificate) {}, key))
	for name, c := range map[string]struct {
		name, signer, bundle string
		want                 []string
	}{
		"plain":            {"a.b", "", ca, nil},
		"of a signer":      {"example.com:foo:v1", "example.com/foo", ca, nil},
		"colon":            {"a:b", "", ca, one("metadata.name Invalid")},
		"another's prefix": {"example.com:bar:v1", "example.com/foo", ca, one("metadata.name Invalid")},
		"signer":           {"foo:v1", "foo", ca, one("spec.signerName Invalid")},
		"nothing":          {"a", "", "", one("spec.trustBundle Invalid")},
		"no authority":     {"a", "", leaf, one("spec.trustBundle Invalid")},
		"twice":            {"a", "", ca + ca, one("spec.trustBundle Invalid")},
		"a key":            {"a", "", ca + "-----BEGIN PRIVATE KEY-----\nYQ==\n-----END PRIVATE KEY-----\n", one("spec.trustBundle Invalid")},
		"too much":         {"a", "", strings.Repeat("x", maxTrustBundle+1), one("spec.trustBundle TooLong")},
	} {
		t.Run(name, func(t *testing.T) {
			b := &trustBundle{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: c.signer, TrustBundle: c.bundle}}
			check(t, trustBundleRow.Validate(b), c.want)
			moved := b.DeepCopy()
			moved.Spec.SignerName = "example.com/moved"
			if errs := found(trustBundleRow.ValidateUpdate(moved, b)); !strings.Contains(strings.Join(errs, " "), "spec.signerName Invalid") {
				t.Errorf("another signer: %v", errs)
			}
		})
	}
}

func goodPodCertificate(t *testing.T, key *ecdsa.PrivateKey) *podCertificate {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &podCertificate{Spec: certificatesv1.PodCertificateRequestSpec{
		SignerName: "example.com/foo", PodName: "p", PodUID: "u", ServiceAccountName: "default", ServiceAccountUID: "v", NodeName: "n", NodeUID: "w", StubPKCS10Request: der,
	}}
	podCertificateRow.Default(r)
	return r
}

func TestPodCertificateValidation(t *testing.T) {
	key := newKey(t)
	for name, c := range map[string]struct {
		change func(*certificatesv1.PodCertificateRequestSpec)
		want   []string
	}{
		"good":      {func(*certificatesv1.PodCertificateRequestSpec) {}, nil},
		"signer":    {func(s *certificatesv1.PodCertificateRequestSpec) { s.SignerName = "foo" }, one("spec.signerName Invalid")},
		"pod":       {func(s *certificatesv1.PodCertificateRequestSpec) { s.PodName = "" }, one("spec.podName Invalid")},
		"pod's uid": {func(s *certificatesv1.PodCertificateRequestSpec) { s.PodUID = "" }, one("spec.podUID Required")},
		"short":     {func(s *certificatesv1.PodCertificateRequestSpec) { *s.MaxExpirationSeconds = 3599 }, one("spec.maxExpirationSeconds Invalid")},
		"long":      {func(s *certificatesv1.PodCertificateRequestSpec) { *s.MaxExpirationSeconds = 7862401 }, one("spec.maxExpirationSeconds Invalid")},
		"91 days":   {func(s *certificatesv1.PodCertificateRequestSpec) { *s.MaxExpirationSeconds = 7862400 }, nil},
		"system's": {func(s *certificatesv1.PodCertificateRequestSpec) {
			s.SignerName, *s.MaxExpirationSeconds = "kubernetes.io/kube-apiserver-client-pod", 86401
		}, one("spec.maxExpirationSeconds Invalid")},
		"no request":  {func(s *certificatesv1.PodCertificateRequestSpec) { s.StubPKCS10Request = nil }, one("spec.stubPKCS10Request Required")},
		"bad request": {func(s *certificatesv1.PodCertificateRequestSpec) { s.StubPKCS10Request = []byte("x") }, one("spec.stubPKCS10Request Invalid")},
		"plain key": {func(s *certificatesv1.PodCertificateRequestSpec) {
			s.UnverifiedUserAnnotations = map[string]string{"a": "b"}
		}, one("spec.unverifiedUserAnnotations Invalid")},
		"prefixed key": {func(s *certificatesv1.PodCertificateRequestSpec) {
			s.UnverifiedUserAnnotations = map[string]string{"example.com/a": "b"}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := goodPodCertificate(t, key)
			was := r.DeepCopy()
			c.change(&r.Spec)
			check(t, podCertificateRow.Validate(r), c.want)
			if changed := len(podCertificateRow.ValidateUpdate(r, was)) > 0; changed == (name == "good") {
				t.Error("the spec may change, or may not stay")
			}
		})
	}
}

func TestPodCertificateStatus(t *testing.T) {
	key := newKey(t)
	pending := goodPodCertificate(t, key)
	end := func(kind string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: "Done", LastTransitionTime: metav1.Now()}
	}
	issue := func(key *ecdsa.PrivateKey) *podCertificate {
		r := pending.DeepCopy()
		r.Status.CertificateChain = string(signed(t, func(*x509.Certificate) {}, key))
		from := metav1.Unix(1_800_000_000, 0)
		r.Status.NotBefore, r.Status.NotAfter = &from, pointer(metav1.NewTime(from.Add(24*time.Hour)))
		r.Status.BeginRefreshAt = pointer(metav1.NewTime(from.Add(12 * time.Hour)))
		r.Status.Conditions = []metav1.Condition{end("Issued")}
		return r
	}
	with := func(r *podCertificate, f func(*certificatesv1.PodCertificateRequestStatus)) *podCertificate {
		f(&r.Status)
		return r
	}
	for name, c := range map[string]struct {
		r    *podCertificate
		want []string
	}{
		"issued":      {issue(key), nil},
		"denied":      {with(pending.DeepCopy(), func(s *certificatesv1.PodCertificateRequestStatus) { s.Conditions = []metav1.Condition{end("Denied")} }), nil},
		"unknown end": {with(pending.DeepCopy(), func(s *certificatesv1.PodCertificateRequestStatus) { s.Conditions = []metav1.Condition{end("Other")} }), one("status.conditions[0].type NotSupported")},
		"two ends": {with(pending.DeepCopy(), func(s *certificatesv1.PodCertificateRequestStatus) {
			s.Conditions = []metav1.Condition{end("Denied"), end("Failed")}
		}), one("status.conditions Invalid")},
		"nothing issued":    {with(issue(key), func(s *certificatesv1.PodCertificateRequestStatus) { s.CertificateChain = "" }), one("status.certificateChain Required")},
		"another's key":     {issue(newKey(t)), one("status.certificateChain Invalid")},
		"wrong time":        {with(issue(key), func(s *certificatesv1.PodCertificateRequestStatus) { s.NotAfter = s.NotBefore }), one("status.notAfter Invalid")},
		"issued in silence": {with(issue(key), func(s *certificatesv1.PodCertificateRequestStatus) { s.Conditions = nil }), one("status Invalid")},
	} {
		t.Run(name, func(t *testing.T) { check(t, podCertificateRow.ValidateStatus(c.r, pending), c.want) })
	}
	again := with(issue(key), func(s *certificatesv1.PodCertificateRequestStatus) { s.BeginRefreshAt = s.NotBefore })
	check(t, podCertificateRow.ValidateStatus(again, issue(key)), one("status Invalid"))
}
