package apiserver_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/logtest"
	"skiff.dev/skiff/internal/pki"
)

const stallWatch = "/api/v1/namespaces/default/configmaps?watch=true"

var configMapWatches = regexp.MustCompile(`(?m)^apiserver_longrunning_requests\{.*configmaps.*\} (\d+)$`)

// startStrict starts a server that waits for nobody longer than a second.
func startStrict(t *testing.T) *fixture {
	t.Helper()
	return start(t, func(c *apiserver.Config) { c.Stall = time.Second })
}

// watches waits until that many watches of ConfigMaps run.
func (f *fixture) watches(want string) {
	f.Helper()
	var last string
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		last = "0"
		if found := configMapWatches.FindStringSubmatch(string(f.ask("GET /metrics", "").body)); found != nil {
			last = found[1]
		}
		if last == want {
			return
		}
	}
	f.Fatalf("%s watches run, want %s", last, want)
}

// flood writes more than a connection's buffers hold.
func (f *fixture) flood() {
	for i := range 60 {
		f.Registry.Must(configMap(fmt.Sprintf("flood-%d", i), "k", strings.Repeat("x", 500_000)))
	}
}

func TestClientsThatReadNothingAreCutOff(t *testing.T) {
	t.Run("HTTP/1.1", func(t *testing.T) {
		f := startStrict(t)
		conn, err := tls.Dial("tcp", f.host, &tls.Config{RootCAs: f.ca.Pool(), Certificates: []tls.Certificate{*f.certificate("admin", "system:masters")}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", stallWatch)
		f.watches("1")
		f.flood()
		f.watches("0")
	})
	t.Run("HTTP/2", func(t *testing.T) {
		f := startStrict(t)
		resp, err := f.admin.Get("https://" + f.host + stallWatch)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		f.watches("1")
		f.flood()
		f.watches("0")
	})
}

// trickle is a body that stops in the middle and does not end.
type trickle struct {
	start string
	end   <-chan struct{}
}

func (b *trickle) Read(p []byte) (int, error) {
	if n := copy(p, b.start); n > 0 {
		b.start = b.start[n:]
		return n, nil
	}
	<-b.end
	return 0, io.ErrUnexpectedEOF
}

// A body that does not come to its end in the request's time is answered, and holds nothing: neither its client nor the server waits for ever.
func TestBodiesThatDoNotEndAreAnswered(t *testing.T) {
	f := start(t)
	const late = "request did not complete within requested timeout"
	send := map[string]string{
		"POST": "/api/v1/namespaces/default/configmaps?timeout=300ms", "PUT": "/api/v1/namespaces/default/configmaps/a?timeout=300ms",
		"PATCH": "/api/v1/namespaces/default/configmaps/a?timeout=300ms", "DELETE": "/api/v1/namespaces/default/configmaps/a?timeout=300ms",
	}
	for version, transport := range map[string]*http.Transport{
		"HTTP/1.1": {TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}, "HTTP/2.0": {ForceAttemptHTTP2: true},
	} {
		transport.TLSClientConfig = &tls.Config{RootCAs: f.ca.Pool(), Certificates: []tls.Certificate{*f.certificate("admin", "system:masters")}}
		client := &http.Client{Transport: transport, Timeout: time.Minute}
		for method, path := range send {
			t.Run(version+" "+method, func(t *testing.T) {
				ended := make(chan struct{})
				r, err := http.NewRequest(method, "https://"+f.host+path, &trickle{`{"metadata":`, ended})
				if err != nil {
					t.Fatal(err)
				}
				r.ContentLength = 1000
				r.Header.Set("Content-Type", "application/json")
				if method == "PATCH" {
					r.Header.Set("Content-Type", "application/merge-patch+json")
				}
				resp, err := client.Do(r)
				if err != nil {
					close(ended)
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				close(ended) // a client that is done with the answer waits for the body
				_ = resp.Body.Close()
				if err != nil || resp.Proto != version || resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(body), late) {
					t.Errorf("%s %s, %v: %s", resp.Proto, resp.Status, err, body)
				}
			})
		}
		transport.CloseIdleConnections()
	}
	f.alive()
}

// relay passes bytes on until it is cut; then both ends hear nothing, and are not told.
type relay struct {
	net.Listener
	mu  sync.RWMutex // read-held while bytes pass
	all sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l}
	r.all.Go(func() {
		near, err := l.Accept()
		if err != nil {
			return
		}
		defer near.Close()
		far, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer far.Close()
		r.all.Go(func() { r.pass(near, far) })
		r.pass(far, near)
	})
	t.Cleanup(func() {
		l.Close()
		r.all.Wait()
	})
	return r
}

func (r *relay) pass(to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.RLock()
		_, werr := to.Write(buf[:n])
		r.mu.RUnlock()
		if err != nil || werr != nil {
			return
		}
	}
}

func TestHalfOpenConnectionsAreCutOff(t *testing.T) {
	f := startStrict(t)
	t.Run("the other end is gone", func(t *testing.T) {
		r := newRelay(t, f.host)
		client := f.client("admin", "system:masters")
		resp, err := client.Get("https://" + r.Addr().String() + stallWatch)
		if err != nil {
			t.Fatal(err)
		}
		f.watches("1")
		time.Sleep(2500 * time.Millisecond) // longer than a client may be silent: it answers the server's questions
		f.watches("1")
		r.mu.Lock()
		f.watches("0")
		r.mu.Unlock()
		resp.Body.Close()
		client.CloseIdleConnections()
	})
	t.Run("it says nothing", func(t *testing.T) {
		conn, err := net.Dial("tcp", f.host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	f.alive()
}

// TestCertificatesOfAnotherTime: a clock that is wrong is told by 401 and one line in the log.
func TestCertificatesOfAnotherTime(t *testing.T) {
	var said logtest.Log
	f := start(t, func(c *apiserver.Config) { c.Log = slog.New(slog.NewTextHandler(&said, nil)) })
	for _, at := range []time.Time{time.Now().Add(48 * time.Hour), time.Now().Add(-48 * time.Hour)} {
		leaf, err := f.ca.Issue(pki.Leaf{CommonName: "admin", Organizations: []string{"system:masters"}, Life: time.Hour}, at)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := f.clientWith(*leaf).Get("https://" + f.host + "/api/v1/nodes")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a certificate of %s: %s", at, resp.Status)
		}
	}
	out := said.String()
	if strings.Count(out, "is not valid at this time") != 1 || !strings.Contains(out, "is before") || !strings.Contains(out, pkix.Name{CommonName: "admin"}.String()) {
		t.Errorf("the log says\n%s", out)
	}
}
