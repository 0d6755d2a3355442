package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// TestNodesAskForTheirPodsCertificates: and for no others'.
func TestNodesAskForTheirPodsCertificates(t *testing.T) {
	r := start(t)
	one := registrytest.Node("one")
	node, err := r.Create(one, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}})
	if err != nil {
		t.Fatal(err)
	}
	account, err := r.Create(registrytest.Admin, registrytest.Account("worker"))
	if err != nil {
		t.Fatal(err)
	}
	pod := func(name, on string) types.UID {
		p, err := r.Create(registrytest.Admin, registrytest.Pod(name, func(p *corev1.Pod) {
			p.Spec.NodeName, p.Spec.ServiceAccountName = on, "worker"
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/s", KeyType: "ED25519", KeyPath: "k", CertificateChainPath: "c"}},
			}}}}}
		}))
		if err != nil {
			t.Fatal(err)
		}
		return p.GetUID()
	}
	here, there := pod("here", "one"), pod("there", "two")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(change func(*certificatesv1.PodCertificateRequestSpec)) error {
		q := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "req-"}, Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: "example.com/s", PodName: "here", PodUID: here, ServiceAccountName: "worker", ServiceAccountUID: account.GetUID(),
			NodeName: "one", NodeUID: node.GetUID(), StubPKCS10Request: proof,
		}}
		change(&q.Spec)
		_, err := r.Create(one, q)
		return err
	}
	if err := ask(func(*certificatesv1.PodCertificateRequestSpec) {}); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*certificatesv1.PodCertificateRequestSpec){
		`which is not the requesting node "one"`:           func(s *certificatesv1.PodCertificateRequestSpec) { s.NodeName = "two" },
		"names node UID":                                   func(s *certificatesv1.PodCertificateRequestSpec) { s.NodeUID = "x" },
		"contains pod UID":                                 func(s *certificatesv1.PodCertificateRequestSpec) { s.PodUID = "x" },
		`pod "default/there" is not running on node "one"`: func(s *certificatesv1.PodCertificateRequestSpec) { s.PodName, s.PodUID = "there", there },
		"that differs from running pod":                    func(s *certificatesv1.PodCertificateRequestSpec) { s.ServiceAccountName = "other" },
		"names service account UID":                        func(s *certificatesv1.PodCertificateRequestSpec) { s.ServiceAccountUID = "x" },
		`does not mount a podCertificate projected volume for signer "example.com/o"`: func(s *certificatesv1.PodCertificateRequestSpec) { s.SignerName = "example.com/o" },
	} {
		refused(t, ask(change), 403, want)
	}
}
