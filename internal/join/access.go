package join

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
)

// WithToken is access to a server for a machine that has nothing but a token yet.
func WithToken(server string, authority []byte, t Token) (crclient.WithWatch, error) {
	cfg := &rest.Config{Host: server, BearerToken: t.Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: authority}, Timeout: 0}
	return crclient.NewWithWatch(cfg, crclient.Options{Scheme: api.Scheme()})
}

// WithCertificate is access for a node: each connection shows the certificate that is the newest then. reconnect closes all connections, so that
// those with an older certificate make room.
func WithCertificate(server string, authority []byte, c *Certificate) (cfg *rest.Config, reconnect func(), err error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, nil, fmt.Errorf("the cluster's authority is damaged; join again with a token")
	}
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 10 * time.Second}).DialContext)
	cfg = &rest.Config{Host: server, Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, GetClientCertificate: c.GetClientCertificate},
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 25,
		IdleConnTimeout:     90 * time.Second,
		// A server that is gone without a word is noticed before the node counts as lost.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 4 * time.Second},
	}}
	return cfg, dialer.CloseAll, nil
}
