package apiserver_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/internal/apiserver"
)

// afar is a listener whose clients seem to be on another host.
type afar struct{ net.Listener }

type farConn struct{ net.Conn }

func (l afar) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return farConn{c}, err
}

func (farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4711} }

// Long answers are compressed for clients on other hosts that take them so; short ones, watches and what clients on this host get are not.
func TestLongAnswersAreCompressed(t *testing.T) {
	f := start(t, func(c *apiserver.Config) { c.Listener = afar{c.Listener} })
	c := f.clientset()
	maps := c.CoreV1().ConfigMaps("default")
	for i := range 4 {
		if _, err := maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m", i)}, Data: map[string]string{"k": strings.Repeat("compress me ", 8000)},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// client-go takes gzip by itself, in JSON, in protobuf, and in pages.
	protobuf := f.config()
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	for _, c := range []*kubernetes.Clientset{c, kubernetes.NewForConfigOrDie(protobuf)} {
		list, err := c.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) != 4 || len(list.Items[3].Data["k"]) != 12*8000 {
			t.Fatalf("%v: %d items", err, len(list.Items))
		}
	}
	for _, a := range []struct {
		path, accept, takes string
		packed              bool
	}{
		{configMaps, "application/json", "gzip", true},
		{configMaps, "application/json", "br;q=1.0, gzip;q=0.8, *;q=0.1", true},
		{configMaps, "application/vnd.kubernetes.protobuf", "gzip", true},
		{configMaps + "?pretty=true", "application/json", "gzip", true},
		{configMaps, "application/json", "identity", false},
		{configMaps, "application/json", "gzip;q=0", false},
		{configMaps + "?limit=1", "application/json", "gzip", false}, // 96 KB
		{configMaps + "/m0", "application/json", "gzip", false},
		{configMaps + "?watch=true&timeoutSeconds=1", "application/json", "gzip", false},
		{"/openapi/v3/api/v1", "application/json", "gzip", true},
		{"/version", "application/json", "gzip", false},
		{configMaps + "/none", "application/json", "gzip", false},
	} {
		plain, _ := f.body(a.path, a.accept, "identity")
		got, encoding := f.body(a.path, a.accept, a.takes)
		// Their lengths are compared: a list's resourceVersion moves on while the server fills itself.
		if (encoding == "gzip") != a.packed || len(got) != len(plain) && !strings.Contains(a.path, "watch") || a.packed && plain == "" {
			t.Errorf("%s as %s, taking %q: %q, %d bytes for %d", a.path, a.accept, a.takes, encoding, len(got), len(plain))
		}
	}
	near := start(t)
	if _, encoding := near.body("/openapi/v3/api/v1", "application/json", "gzip"); encoding != "" {
		t.Errorf("on this host: %q", encoding)
	}
}

// body is an answer, unpacked, and how it came.
func (f *fixture) body(path, accept, takes string) (body, encoding string) {
	f.Helper()
	r, err := http.NewRequest(http.MethodGet, "https://"+f.host+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", takes)
	resp, err := f.admin.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	from := io.Reader(resp.Body)
	if encoding = resp.Header.Get("Content-Encoding"); encoding == "gzip" {
		if from, err = gzip.NewReader(resp.Body); err != nil {
			f.Fatal(err)
		}
	}
	raw, err := io.ReadAll(from)
	if err != nil {
		f.Fatal(err)
	}
	return string(raw), encoding
}
