package test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"

	"skiff.dev/skiff/test/cluster"
)

const shopIngress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: skiff
  tls: [{hosts: [safe.example.com], secretName: safe}]
  rules:
    - {host: shop.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}}
    - {host: safe.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}}
    - {host: "*.example.org", http: {paths: [{path: /wild, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}}
    - {host: empty.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: gone, port: {number: 80}}}}]}}
`

// TestIngress: the add-on is enabled, Ingresses are answered at the node's ports by host, path and certificate, a rollout behind them loses no request, and
// disabling it takes everything away.
func TestIngress(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	becomes(t, "the add-on to be listed", func() bool {
		out, err := c.TryKubectl("get", "addon", "ingress", "-o", "jsonpath={.status.state}")
		return err == nil && out == "Disabled"
	})
	if images, err := c.Skiff("image", "list", "--data-dir", c.DataDir); err != nil || strings.Contains(images, "skiff.dev/ingress") {
		t.Errorf("before anybody wants it, its image is there, or the images are not known: %v\n%s", err, images)
	}
	c.Apply(cluster.Shop)
	c.Apply(shopIngress)
	crt, key := certificateFiles(t, "safe.example.com")
	c.Kubectl("create", "secret", "tls", "safe", "--cert", crt, "--key", key)
	began := time.Now()
	if out, err := c.Skiff("addon", "enable", "ingress", "--wait", "--data-dir", c.DataDir); err != nil {
		t.Fatalf("enable: %v\n%s%s", err, out, c.Kubectl("get", "pods,events", "-n", "skiff-ingress"))
	}
	t.Logf("the add-on is ready %s after it was enabled", time.Since(began).Round(10*time.Millisecond))
	c.Kubectl("rollout", "status", "deployment/shop", "--timeout=3m")

	for _, at := range []struct{ url, want string }{
		{"http://shop.example.com/healthz", "200"},
		{"http://a.example.org/wild", "200"},
		{"http://a.example.org/tame", `404 Not Found: no Ingress has a path for "/tame" on the host "a.example.org"`},
		{"http://gone.example.net/", `404 Not Found: no Ingress of a class served here has a rule for the host "gone.example.net"`},
		{"http://empty.example.com/", "503 Service Unavailable: there is no service default/gone"},
		{"http://safe.example.com/x", "308 https://safe.example.com/x"},
		{"https://safe.example.com/healthz", "200 safe.example.com"},
	} {
		becomes(t, at.url+" to be answered with "+at.want, func() bool { return strings.HasPrefix(throughIngress(t, c, at.url), at.want) })
	}
	becomes(t, "the Ingress's address", func() bool {
		return c.Kubectl("get", "ingress", "shop", "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}") == cluster.HostIP
	})

	c.Apply(anyHost)
	becomes(t, "the rule for every host", func() bool { return strings.HasPrefix(throughIngress(t, c, "http://"+cluster.HostIP+"/"), "200") })
	stop := c.Host().Load("http://"+cluster.HostIP+"/", 100)
	c.Kubectl("rollout", "restart", "deployment/shop")
	c.Kubectl("rollout", "status", "deployment/shop", "--timeout=3m")
	if sent, failed := stop(); len(failed) > 0 || sent == 0 {
		t.Errorf("of %d requests during a rollout, %d failed, the first with: %v", sent, len(failed), failed)
	}

	if out, err := c.Skiff("addon", "disable", "ingress", "--wait", "--data-dir", c.DataDir); err != nil {
		t.Fatalf("disable: %v\n%s", err, out)
	}
	becomes(t, "everything to go", func() bool {
		left := c.Kubectl("get", "clusterrole,clusterrolebinding,ingressclass", "-l", "addons.skiff.dev/name=ingress", "-o", "name")
		return left == "" && c.Kubectl("get", "namespace", "skiff-ingress", "--ignore-not-found") == ""
	})
	if got := throughIngress(t, c, "http://shop.example.com/"); !strings.Contains(got, "refused") {
		t.Errorf("port 80 still answers: %s", got)
	}
}

const anyHost = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: any}
spec: {ingressClassName: skiff, defaultBackend: {service: {name: shop, port: {number: 80}}}}
`

// throughIngress asks the node for a URL of any host: the status, where a redirect leads or what is said, and who the certificate is for.
func throughIngress(t *testing.T, c *cluster.Cluster, url string) string {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // whose it is, is told
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return c.Host().Dial(ctx, network, net.JoinHostPort(cluster.HostIP, port))
		},
	}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err.Error()
	case resp.StatusCode >= 400:
		return string(body)
	case resp.TLS != nil:
		return fmt.Sprintf("%d %s", resp.StatusCode, resp.TLS.PeerCertificates[0].DNSNames[0])
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("Location"))
}

// certificateFiles makes a certificate that nobody trusts, and its key.
func certificateFiles(t *testing.T, host string) (crt, key string) {
	t.Helper()
	rawCrt, rawKey, err := cert.GenerateSelfSignedCertKey(host, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	crt, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, raw := range map[string][]byte{crt: rawCrt, key: rawKey} {
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return crt, key
}
