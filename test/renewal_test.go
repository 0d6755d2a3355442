package test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/test/cluster"
)

// TestCertificatesAreRenewed: an agent whose certificates have seconds left gets new ones from the server while it runs, and goes on with them when the old ones
// have expired.
func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	const left = 15 * time.Second
	c := cluster.StartNodes(t, 2)
	agent := c.Agents[0]
	agent.Stop()
	ca, err := pki.OpenAuthority(filepath.Join(c.DataDir, "pki"), "ca", "skiff", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	name := pki.Leaf{CommonName: "system:node:node-2", Organizations: []string{"system:nodes"}, Life: left}
	serving := name
	serving.DNSNames, serving.IPs = []string{"node-2"}, []net.IP{net.ParseIP(agent.Host().IP())}
	old := map[string]*x509.Certificate{}
	for file, leaf := range map[string]pki.Leaf{"client.pem": name, "serving.pem": serving} {
		old[file] = replaceCertificate(t, ca, leaf, filepath.Join(agent.DataDir, "agent", file))
	}
	agent.Agent()
	for file, was := range old {
		cluster.Eventually(t, func() error {
			now, err := certificateIn(filepath.Join(agent.DataDir, "agent", file))
			if err == nil && (now.SerialNumber.Cmp(was.SerialNumber) == 0 || time.Until(now.NotAfter) < time.Hour) {
				err = fmt.Errorf("%s has not been renewed; it is good until %s", file, now.NotAfter)
			}
			return err
		})
	}
	for _, was := range old {
		time.Sleep(time.Until(was.NotAfter.Add(time.Second))) // there is nothing to wait for but the clock
	}
	c.Kubectl("wait", "node/node-2", "--for=condition=Ready", "--timeout=3m")
	c.Kubectl("run", "late", "--image=skiff.dev/web:1", `--overrides={"spec":{"nodeName":"node-2"}}`)
	c.Kubectl("wait", "pod/late", "--for=condition=Ready", "--timeout=3m") // by its client certificate
	c.Kubectl("exec", "late", "--", "hostname")                            // by its serving certificate
}

// replaceCertificate writes another certificate of the same authority into a node's file.
func replaceCertificate(t *testing.T, ca *pki.Authority, leaf pki.Leaf, file string) *x509.Certificate {
	t.Helper()
	pair, err := ca.Issue(leaf, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	raw := bytes.Join([][]byte{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}, nil)
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func certificateIn(file string) (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(pair.Certificate[0])
}
