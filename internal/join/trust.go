package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// ServerURL checks the address of a server, as the setting server gives it, and completes it.
func ServerURL(text string) (string, error) {
	if text == "" {
		return "", errors.New("server: give the server's address, such as https://10.0.0.1:6443")
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		return "", fmt.Errorf("server: %q is no address such as https://10.0.0.1:6443", text)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "6443")
	}
	return "https://" + u.Host, nil
}

// FetchAuthority asks a server for its cluster's authority, and believes it only if it is the one that the pin names and the server's own
// certificate is from it. Nothing secret has been sent by then. The result is PEM.
func FetchAuthority(ctx context.Context, server, pin string) ([]byte, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	var authority *x509.Certificate
	d := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second},
		// The chain is checked below: against the pin instead of against authorities that are known.
		Config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, ServerName: u.Hostname(), VerifyConnection: func(s tls.ConnectionState) (err error) {
			authority, err = pinned(s.PeerCertificates, u.Hostname(), pin)
			return err
		}},
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("server: cannot join %s: %w", server, err)
	}
	conn.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}), nil
}

// pinned finds the pinned authority in what a server presents, and checks the server's certificate with it.
func pinned(chain []*x509.Certificate, host, pin string) (*x509.Certificate, error) {
	for _, c := range chain[1:] {
		if !c.IsCA || Pin(c) != pin {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			var wrongName x509.HostnameError
			if errors.As(err, &wrongName) {
				return nil, fmt.Errorf("its certificate is not for %s: %w; add the name on the server with --tls-san", host, err)
			}
			return nil, fmt.Errorf("its certificate is not good: %w", err)
		}
		return c, nil
	}
	return nil, errors.New("its authority is not the one that the token names (CA hash mismatch); it is another cluster's server, or somebody is in between: get a new token from the cluster that you mean")
}
