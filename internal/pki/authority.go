// Package pki owns a cluster's authorities, the certificates they sign and the key of service-account tokens.
//
// On disk, below one directory, are only the things that must outlive a process: ca.crt and ca.key (the cluster's
// authority), sa.key (signs service-account tokens). Leaf certificates are issued in memory when a part starts and
// renewed online at two thirds of their life, so none can expire under a running process. The invariant: a key
// file is written whole with mode 0600 or not at all, and is never replaced.
//
// Packages host and join call it; nobody else.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// backdate covers machines whose clocks are a little apart.
	backdate = 5 * time.Minute
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	PEM  []byte // of Cert
	key  *ecdsa.PrivateKey
}

// Leaf says what a certificate is for. A certificate with names or addresses serves; one without is a client's.
type Leaf struct {
	CommonName    string
	Organizations []string
	DNSNames      []string
	IPs           []net.IP
	Life          time.Duration
}

// OpenAuthority reads the authority called name ("ca") below dir, or makes it if neither of its files is there.
func OpenAuthority(dir, name, commonName string, now time.Time) (*Authority, error) {
	certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	key, err := openKey(keyFile, certFile)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(certFile); errors.Is(err, os.ErrNotExist) {
		// Either all is new, or a crash fell between the two files: the key alone is enough to go on.
		return createAuthority(certFile, key, commonName, now)
	}
	raw, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w; restore it from a backup beside %s", err, keyFile)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block; restore it from a backup", certFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w; restore it from a backup", certFile, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s and %s do not belong together; restore both from one backup", certFile, keyFile)
	}
	if err := checkClock(cert, certFile, now); err != nil {
		return nil, err
	}
	return &Authority{Cert: cert, PEM: raw, key: key}, nil
}

func checkClock(cert *x509.Certificate, file string, now time.Time) error {
	const layout = time.RFC3339
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("the clock says %s, but the cluster's authority (%s) is valid only from %s: set the clock",
			now.UTC().Format(layout), file, cert.NotBefore.Format(layout))
	}
	if now.After(cert.NotAfter) {
		return fmt.Errorf("the cluster's authority (%s) expired on %s, or the clock (%s) is wrong",
			file, cert.NotAfter.Format(layout), now.UTC().Format(layout))
	}
	return nil
}

func createAuthority(certFile string, key *ecdsa.PrivateKey, commonName string, now time.Time) (*Authority, error) {
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := WriteFile(certFile, certPEM, 0o644); err != nil {
		return nil, err
	}
	return &Authority{Cert: cert, PEM: certPEM, key: key}, nil
}

// Issue signs a certificate with a key of its own.
func (a *Authority) Issue(l Leaf, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(l.Life)
	if notAfter.After(a.Cert.NotAfter) {
		notAfter = a.Cert.NotAfter
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: l.CommonName, Organization: l.Organizations},
		NotBefore:    now.Add(-backdate),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:     l.DNSNames,
		IPAddresses:  l.IPs,
	}
	if len(l.DNSNames)+len(l.IPs) > 0 {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.Cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", l.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Cert)
	return p
}

// EncodePair returns a certificate and its key as PEM.
func EncodePair(c *tls.Certificate) (cert, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	for _, b := range c.Certificate {
		cert = append(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})...)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the system's random source failed: nothing can go on
	}
	return n
}

// NotAfter is the end of a PEM certificate's life.
func NotAfter(certPEM []byte) (time.Time, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return time.Time{}, errors.New("no PEM block")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, err
	}
	return cert.NotAfter, nil
}
