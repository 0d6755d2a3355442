package test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

// TestPodCertificate: a pod waits for its certificate, and starts with it and the key that it is for.
func TestPodCertificate(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - name: v
    projected:
      sources:
      - podCertificate: {signerName: test.skiff.dev/signer, keyType: ECDSAP256, credentialBundlePath: bundle, userAnnotations: {test.skiff.dev/a: b}}
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`)
	signRequests(t, c)
	c.WaitPodReady("p")
	bundle := c.Kubectl("exec", "p", "--", "cat", "/v/bundle")
	key, rest := pem.Decode([]byte(bundle))
	leaf, _ := pem.Decode(rest)
	if key == nil || leaf == nil {
		t.Fatalf("the pod has %q", bundle)
	}
	private, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(leaf.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if own, ok := private.(*ecdsa.PrivateKey); !ok || !own.PublicKey.Equal(cert.PublicKey) {
		t.Error("the certificate is for another key")
	}
}

// signRequests plays the signer, for one request.
func signRequests(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	api := c.Client().CertificatesV1().PodCertificateRequests("default")
	cluster.Eventually(t, func() error {
		list, err := api.List(context.Background(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			return fmt.Errorf("%d requests, %v", len(list.Items), err)
		}
		r := &list.Items[0]
		if r.Spec.UnverifiedUserAnnotations["test.skiff.dev/a"] != "b" || r.Spec.PodName != "p" || !strings.HasPrefix(r.Name, "req-") {
			return fmt.Errorf("the request is %+v", r.Spec)
		}
		sign(t, r)
		_, err = api.UpdateStatus(context.Background(), r, metav1.UpdateOptions{})
		return err
	})
}

func sign(t *testing.T, r *certificatesv1.PodCertificateRequest) {
	t.Helper()
	proof, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().Truncate(time.Second)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: from.Add(24 * time.Hour), DNSNames: []string{"p"}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, proof.PublicKey, authority)
	if err != nil {
		t.Fatal(err)
	}
	r.Status = certificatesv1.PodCertificateRequestStatus{
		Conditions: []metav1.Condition{{
			Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue, Reason: "Signed", LastTransitionTime: metav1.Now(),
		}},
		CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		NotBefore:        &metav1.Time{Time: from}, NotAfter: &metav1.Time{Time: leaf.NotAfter}, BeginRefreshAt: &metav1.Time{Time: from.Add(16 * time.Hour)},
	}
}
