package certificates

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

const (
	forNode = certificatesv1.KubeAPIServerClientKubeletSignerName
	serving = certificatesv1.KubeletServingSignerName
	anybody = certificatesv1.KubeAPIServerClientSignerName
)

var (
	forClient  = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	forServing = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
	node1      = x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}}
	node1at    = x509.CertificateRequest{Subject: node1.Subject, DNSNames: []string{"n1"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}
)

func request(t *testing.T, template x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestWhatSignersSign(t *testing.T) {
	with := func(change func(*x509.CertificateRequest)) x509.CertificateRequest {
		r := node1
		change(&r)
		return r
	}
	cases := map[string]struct {
		signer string
		req    x509.CertificateRequest
		usages []certificatesv1.KeyUsage
		want   string
	}{
		"a node's client":        {forNode, node1, forClient, ""},
		"with key encipherment":  {forNode, node1, append(forClient, certificatesv1.UsageKeyEncipherment), ""},
		"a node's server":        {serving, node1at, forServing, ""},
		"a server without names": {serving, node1, forServing, "DNS or IP subjectAltName is required"},
		"a client with names":    {forNode, node1at, forClient, "DNS and IP subjectAltNames are not allowed"},
		"a client that serves":   {forNode, node1, forServing, "usages did not match [client auth digital signature key encipherment]"},
		"one usage too many":     {forNode, node1, append(forClient, certificatesv1.UsageServerAuth), "usages did not match [client auth digital signature key encipherment]"},
		"another group": {forNode, with(func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:nodes", "system:masters"} }), forClient,
			"subject organization is not system:nodes"},
		"no node's name": {forNode, with(func(r *x509.CertificateRequest) { r.Subject.CommonName = "admin" }), forClient,
			"subject common name does not begin with system:node:"},
		"mail":       {forNode, with(func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }), forClient, "email subjectAltNames are not allowed"},
		"any client": {anybody, x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, forClient, ""},
	}
	for name, c := range cases {
		got := ""
		if err := purposes[c.signer].check(&c.req, c.usages); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestJudge(t *testing.T) {
	nodes, joiner := []string{"system:nodes", "system:authenticated"}, []string{"system:bootstrappers"}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeInternalIP, Address: "10.0.0.2"}, {Type: corev1.NodeHostName, Address: "kubernetes"},
	}}}
	at := func(names []string, ips ...string) x509.CertificateRequest {
		r := x509.CertificateRequest{Subject: node1.Subject, DNSNames: names}
		for _, ip := range ips {
			r.IPAddresses = append(r.IPAddresses, net.ParseIP(ip))
		}
		return r
	}
	cases := map[string]struct {
		signer, user string
		groups       []string
		req          x509.CertificateRequest
		exists       bool
		want, needs  string
	}{
		"a machine joins":               {forNode, "system:bootstrap:abcdef", joiner, node1, false, "Approved", "nodeclient"},
		"a machine takes a name":        {forNode, "system:bootstrap:abcdef", joiner, node1, true, "Denied", "nodeclient"},
		"a node renews":                 {forNode, "system:node:n1", nodes, node1, true, "Approved", "selfnodeclient"},
		"a node wants to be another":    {forNode, "system:node:n2", nodes, node1, true, "Denied", "nodeclient"},
		"its own addresses":             {serving, "system:node:n1", nodes, node1at, true, "Approved", ""},
		"before it is registered":       {serving, "system:node:n1", nodes, node1at, false, "", ""},
		"another's certificate":         {serving, "system:node:n2", nodes, node1at, true, "", ""},
		"who has only a token":          {serving, "system:bootstrap:abcdef", joiner, node1at, true, "", ""},
		"an address it does not have":   {serving, "system:node:n1", nodes, at(nil, "10.0.0.9"), true, "", ""},
		"an address of another":         {serving, "system:node:n1", nodes, at(nil, "10.0.0.2"), true, "", ""},
		"a name of the API server":      {serving, "system:node:n1", nodes, at([]string{"kubernetes"}), true, "", ""},
		"one of its own, one another's": {serving, "system:node:n1", nodes, at([]string{"n1"}, "10.0.0.1", "10.0.0.2"), true, "", ""},
	}
	for name, c := range cases {
		r := &csr{Spec: certificatesv1.CertificateSigningRequestSpec{Username: c.user, Groups: c.groups}}
		v := judge(purposes[c.signer], r, &c.req, node, c.exists, []string{"10.0.0.2"})
		if string(v.kind) != c.want || v.needs != c.needs {
			t.Errorf("%s: %q by %q, want %q by %q", name, v.kind, v.needs, c.want, c.needs)
		}
	}
}

// Two hosts that join under one unused name at the same moment do not both become that node.
func TestANameIsGrantedOnce(t *testing.T) {
	ctx := t.Context()
	var asked []crclient.Object
	for _, host := range []string{"a", "b"} {
		asked = append(asked, &csr{ObjectMeta: metav1.ObjectMeta{Name: host}, Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request(t, node1), SignerName: forNode, Usages: forClient, Username: "system:bootstrap:abcdef", Groups: []string{"system:bootstrappers"},
		}})
	}
	c, allowed := clienttest.New(t, asked...), false
	a := &approver{client: c, allowed: func(context.Context, *csr, string) (bool, error) { return allowed, nil }}
	decide := func(host string) (got string) {
		t.Helper()
		if _, err := a.reconcile(ctx, harness.Key{Name: host}); err != nil {
			t.Fatal(err)
		}
		var r csr
		if err := c.Get(ctx, harness.Key{Name: host}, &r); err != nil {
			t.Fatal(err)
		}
		for _, condition := range r.Status.Conditions {
			got += string(condition.Type) + " " + condition.Message
		}
		return got
	}
	if got := decide("b"); got != "" {
		t.Errorf("who may not join is told %q", got)
	}
	allowed = true
	if got := decide("a"); !strings.HasPrefix(got, "Approved") {
		t.Errorf("the first: %q; who may not join has kept it from its name", got)
	}
	if got := decide("b"); !strings.Contains(got, `Denied another host is joining as node "n1" just now`) {
		t.Errorf("the second: %q", got)
	}
}

func TestClaims(t *testing.T) {
	var c claims
	now := time.Now()
	a, b := []byte("a"), []byte("b")
	for _, step := range []struct {
		what string
		key  []byte
		at   time.Duration
		want bool
	}{
		{"the first", a, 0, true},
		{"the same host again", a, time.Second, true},
		{"another", b, time.Second, false},
		{"another, once the first has had its time", b, claimLife + 2*time.Second, true},
	} {
		if got := c.take("n1", step.key, now.Add(step.at)); got != step.want {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
	if c.drop("n1"); !c.take("n1", a, now) {
		t.Error("a name is still claimed though its node came and went")
	}
}

// A request is approved, signed and cleared away; what the signer does not sign fails.
func TestLifeOfARequest(t *testing.T) {
	ctx, key := context.Background(), harness.Key{Name: "r"}
	good := &csr{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: request(t, node1), SignerName: forNode, Usages: forClient, Username: "system:bootstrap:abcdef", Groups: []string{"system:bootstrappers"},
	}}
	c := clienttest.New(t, good)
	a := &approver{client: c, allowed: func(_ context.Context, _ *csr, subresource string) (bool, error) {
		return subresource == "nodeclient", nil
	}}
	s := &signer{c, func(*x509.CertificateRequest, x509.KeyUsage, []x509.ExtKeyUsage, time.Duration, time.Time) ([]byte, error) {
		return []byte("certificate"), nil
	}, time.Now}
	look := func() *csr {
		t.Helper()
		var r csr
		if err := c.Get(ctx, key, &r); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	if _, err := s.reconcile(ctx, key); err != nil || len(look().Status.Certificate) > 0 {
		t.Fatalf("signed without approval: %v", err)
	}
	approved := look()
	conclude(approved, certificatesv1.CertificateApproved, "r", "m")
	if err := c.SubResource("status").Update(ctx, approved); err != nil {
		t.Fatal(err)
	}
	if _, err := a.reconcile(ctx, key); err != nil || len(look().Status.Conditions) != 1 {
		t.Fatalf("decided twice: %v, %v", err, look().Status.Conditions)
	}
	if _, err := s.reconcile(ctx, key); err != nil || string(look().Status.Certificate) != "certificate" {
		t.Fatalf("not signed: %v, %+v", err, look().Status)
	}
	now := time.Now()
	k := &cleaner{c, func() time.Time { return now }}
	done := look()
	done.CreationTimestamp, done.Status.Conditions[0].LastUpdateTime = metav1.NewTime(now), metav1.NewTime(now)
	if left := end(done).Sub(now); left != time.Hour {
		t.Errorf("kept for %s", left)
	}
	now = now.Add(25 * time.Hour)
	if _, err := k.reconcile(ctx, key); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(ctx, key, &csr{}); err == nil {
		t.Error("not cleared away")
	}
}

func TestSignerRefuses(t *testing.T) {
	bad := &csr{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: request(t, node1), SignerName: serving, Usages: forServing,
	}}
	conclude(bad, certificatesv1.CertificateApproved, "somebody", "said so")
	c := clienttest.New(t, bad)
	s := &signer{c, func(*x509.CertificateRequest, x509.KeyUsage, []x509.ExtKeyUsage, time.Duration, time.Time) ([]byte, error) {
		t.Error("signed")
		return nil, nil
	}, time.Now}
	if _, err := s.reconcile(context.Background(), harness.Key{Name: "r"}); err != nil {
		t.Fatal(err)
	}
	var r csr
	if err := c.Get(context.Background(), harness.Key{Name: "r"}, &r); err != nil || !has(&r, certificatesv1.CertificateFailed) {
		t.Errorf("%v, %+v", err, r.Status)
	}
}
