package ingress

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// front serves a table over HTTP and HTTPS, where every backend of it has these endpoints.
func front(t *testing.T, w *world, endpoints ...string) (plain, secure *httptest.Server) {
	t.Helper()
	table := Build(w.Objects, nil)
	for _, b := range table.backends {
		if b.Endpoints = endpoints; len(endpoints) > 0 {
			b.Problem = ""
		}
	}
	h := NewHandler(func() *Table { return table }, slog.New(slog.DiscardHandler))
	plain, secure = httptest.NewServer(h), httptest.NewUnstartedServer(h)
	secure.EnableHTTP2 = true
	secure.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return table.Certificate(hello.ServerName), nil
	}}
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	return plain, secure
}

// send asks a front for a URL without looking its host up or following where it leads.
func send(t *testing.T, front *httptest.Server, method, to, body string) (*http.Response, string) {
	t.Helper()
	transport := front.Client().Transport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, front.Listener.Addr().String())
	}
	if transport.TLSClientConfig != nil {
		transport.TLSClientConfig.InsecureSkipVerify = true // which certificate it is, the test looks at
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(method, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "6.6.6.6")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(raw)
}

// echo is a pod that says what reached it.
func echo(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s host=%s for=%s proto=%s fhost=%s body=%s", r.Method, r.RequestURI, r.Host,
			r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Host"), body)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestHandler(t *testing.T) {
	w := newWorld()
	w.secret(t, "tls", "tls.example.com")
	w.ingress("plain", "a.example.com /x web")
	for name, redirect := range map[string]string{"tls": "", "both": "false"} {
		i := w.ingress(name, name+".example.com / web")
		i.Annotations = map[string]string{RedirectAnnotation: redirect}
		i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{name + ".example.com"}, SecretName: "tls"}}
	}
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused.Close()
	plain, secure := front(t, w, refused.Addr().String(), echo(t)) // half of all first attempts fail, and none is noticed
	for range 3 {
		resp, body := send(t, plain, "POST", "http://a.example.com/x/%2F?q=1;2", "words")
		if want := "POST /x/%2F?q=1;2 host=a.example.com for=127.0.0.1 proto=http fhost=a.example.com body=words"; body != want {
			t.Errorf("%s: the pod got %q, not %q", resp.Status, body, want)
		}
	}
	resp, body := send(t, secure, "GET", "https://tls.example.com/", "")
	if resp.ProtoMajor != 2 || !strings.Contains(body, "proto=https") || resp.TLS.PeerCertificates[0].DNSNames[0] != "tls.example.com" {
		t.Errorf("over TLS: %s %s", resp.Proto, body)
	}
	if resp, _ := send(t, plain, "GET", "http://tls.example.com:8080/x?y=z", ""); resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != "https://tls.example.com/x?y=z" {
		t.Errorf("plain HTTP where there is TLS: %s to %s", resp.Status, resp.Header.Get("Location"))
	}
	if resp, _ := send(t, plain, "GET", "http://both.example.com/", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("plain HTTP where no redirect is wanted: %s", resp.Status)
	}
	for to, want := range map[string]string{
		"http://a.example.com/y":  `404 Not Found: no Ingress has a path for "/y" on the host "a.example.com"`,
		"http://gone.example.com": `404 Not Found: no Ingress of a class served here has a rule for the host "gone.example.com"`,
	} {
		if resp, body := send(t, plain, "GET", to, ""); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, want) {
			t.Errorf("%s: %s %s", to, resp.Status, body)
		}
	}
	plain, _ = front(t, w)
	if resp, body := send(t, plain, "GET", "http://a.example.com/x", ""); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "there is no service default/web") {
		t.Errorf("without endpoints: %s %s", resp.Status, body)
	}
	plain, _ = front(t, w, refused.Addr().String())
	if resp, body := send(t, plain, "GET", "http://a.example.com/x", ""); resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, "the service default/web:80") {
		t.Errorf("with an endpoint that refuses: %s %s", resp.Status, body)
	}
}

// Pods of a port with the protocol h2c are spoken to in HTTP/2.
func TestH2C(t *testing.T) {
	pod := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	pod.Config.Protocols = &http.Protocols{}
	pod.Config.Protocols.SetUnencryptedHTTP2(true)
	pod.Start()
	defer pod.Close()
	table := &Table{fallback: &Route{Backend: &Backend{H2C: true, Endpoints: []string{pod.Listener.Addr().String()}}}}
	front := httptest.NewServer(NewHandler(func() *Table { return table }, slog.New(slog.DiscardHandler)))
	defer front.Close()
	if resp, body := send(t, front, "POST", front.URL, "words"); body != "HTTP/2.0" {
		t.Errorf("%s: the pod was spoken to in %q", resp.Status, body)
	}
}

// A connection that is upgraded carries bytes both ways.
func TestUpgrade(t *testing.T) {
	pod := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprintf(rw, "heard %s", line)
		_ = rw.Flush()
	}))
	defer pod.Close()
	w := newWorld()
	w.ingress("ws", "any / web")
	plain, _ := front(t, w, pod.Listener.Addr().String())
	at, err := url.Parse(plain.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	fmt.Fprintln(conn, "ahoy")
	if line, err := in.ReadString('\n'); line != "heard ahoy\n" {
		t.Errorf("%q, %v", line, err)
	}
}
