package apiserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/registry"
)

// Who may write to requests for certificates and to trust bundles decides about those of a signer only if a role says so, for that signer or all of its domain.
func TestSignersNeedPermission(t *testing.T) {
	f := startOver(t, func(c *registry.Config, a func() *authz.Authorizer) {
		for _, about := range []string{"approve", "sign", "attest"} {
			c.Validate = append(c.Validate, func(ctx context.Context, at *registry.Attributes) error { return a().Signers(ctx, at, about) })
		}
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	const group, requests, bundles = "certificates.k8s.io", "/apis/certificates.k8s.io/v1/certificatesigningrequests", "/apis/certificates.k8s.io/v1/clustertrustbundles"
	failed, approved := `{"type":"Failed","status":"True","reason":"r","message":"m"}`, `{"type":"Approved","status":"True","reason":"r","message":"m"}`
	for user, signers := range map[string][]string{"nobody": nil, "other": {"example.com/b", "example.org/*"}, "own": {"example.com/a"}, "domain": {"example.com/*"}} {
		t.Run(user, func(t *testing.T) {
			f := *f
			f.T = t
			f.put(requests, fmt.Sprintf(`{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: %s}, spec: {signerName: example.com/a, usages: [client auth], request: %s}}`, user, request)).
				ok(http.StatusCreated)
			f.allow(user, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{"certificatesigningrequests/approval", "certificatesigningrequests/status"}, Verbs: []string{"patch"}},
				rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{"clustertrustbundles"}, Verbs: []string{"list", "create"}},
				rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{"signers"}, ResourceNames: append(signers, "example.net/x"), Verbs: []string{"approve", "sign", "attest"}})
			c := f.client(user)
			f.soon(c, "GET "+bundles, http.StatusOK)
			may := user == "own" || user == "domain"
			decided := func(got answer, code int, refusal string) {
				t.Helper()
				if may && got.code != code || !may && (got.code != http.StatusForbidden || !strings.Contains(got.status().Message, refusal)) {
					t.Errorf("%d %s, want %s", got.code, got.body, refusal)
				}
			}
			patch := func(subresource, conditions string) answer {
				return f.askAs(c, "PATCH "+requests+"/"+user+"/"+subresource, `{"status":{"conditions":[`+conditions+`]}}`, "Content-Type", "application/merge-patch+json")
			}
			decided(patch("status", failed), http.StatusOK, `user not permitted to sign requests with signerName "example.com/a"`)
			decided(patch("approval", failed+","+approved), http.StatusOK, `user not permitted to approve requests with signerName "example.com/a"`)
			bundle := fmt.Sprintf(`{"apiVersion":"certificates.k8s.io/v1","kind":"ClusterTrustBundle","metadata":{"name":"example.com:a:%s"},"spec":{"signerName":"example.com/a","trustBundle":%q}}`, user, f.ca.PEM)
			decided(f.askAs(c, "POST "+bundles, bundle), http.StatusCreated, `user not permitted to attest for signerName "example.com/a"`)
			none := fmt.Sprintf(`{"apiVersion":"certificates.k8s.io/v1","kind":"ClusterTrustBundle","metadata":{"name":%q},"spec":{"trustBundle":%q}}`, user, f.ca.PEM)
			f.askAs(c, "POST "+bundles, none).ok(http.StatusCreated) // of no signer
		})
	}
}
