package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// Nobody asks for a certificate of the group that may everything, and who asks is not for the request to say.
func TestCertificateRequests(t *testing.T) {
	r := start(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name, signer, organization string) error {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"devs", organization}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		made, err := r.Create(registrytest.Admin, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: signer, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}, Username: "somebody", Groups: []string{"system:masters"},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		}})
		if err == nil {
			if spec := made.(*certificatesv1.CertificateSigningRequest).Spec; spec.Username != registrytest.Admin.Name || len(spec.Groups) != len(registrytest.Admin.Groups) {
				t.Errorf("%s was made by %s of %v", name, spec.Username, spec.Groups)
			}
		}
		return err
	}
	const all = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
	refused(t, ask("masters", certificatesv1.KubeAPIServerClientSignerName, "system:masters"), 403, all)
	for name, of := range map[string][2]string{"others": {certificatesv1.KubeAPIServerClientSignerName, "ops"}, "another-signer": {"example.com/a", "system:masters"}} {
		if err := ask(name, of[0], of[1]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
