package apiserver_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	protobufserializer "k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// raw writes bytes to the server over TLS, as the administrator, and returns the status line of the answer; "" if the server hung up. A server that
// waits for more hears soon that nothing will come; not at once, for that would be a client that has gone away.
func (f *fixture) raw(text string) string {
	f.Helper()
	c, err := tls.Dial("tcp", f.host, &tls.Config{RootCAs: f.ca.Pool(), Certificates: []tls.Certificate{*f.certificate("admin", "system:masters")}})
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, text) // a server that has heard enough hangs up
	defer time.AfterFunc(200*time.Millisecond, func() { _ = c.CloseWrite() }).Stop()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && line == "" {
		return ""
	}
	return strings.TrimSpace(line)
}

// alive fails the test if the server does not answer any more.
func (f *fixture) alive() {
	f.Helper()
	f.healthy()
}

func TestHostilePaths(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"))
	paths := []string{
		"/api/v1/namespaces/../../etc/passwd", "//", "//api//v1", "/api/v1/namespaces/default/configmaps/..", "/api/v1/namespaces/default/configmaps/%2e%2e",
		"/api/v1/namespaces/default/configmaps/a%2Fb", "/api/v1/namespaces/default%2Fconfigmaps/a", "/api/v1/namespaces/default/configmaps/a%00", "/api/v1/namespaces//configmaps",
		"/api/v1/namespaces/default/configmaps/a/status", "/api/v1/namespaces/default/pods/a/exec", "/api/v1/namespaces/default/pods/a/proxy/../../..",
		"/apis/", "/apis//v1", "/apis/apps/", "/apis/apps/v1/", "/api/v1/watch", "/api/v1/watch/", "/api/v1/proxy", "/api/v1/", "/api//configmaps",
		"/api/v1/namespaces/" + strings.Repeat("a/", 500), "/" + strings.Repeat("a", 10_000), "/openapi/v3/../../..", "/openapi/v3/apis/a/b", "/healthz/../metrics",
		"/api/v1/namespaces/%FF%FE/configmaps", "/api/v1/namespaces/default/configmaps?labelSelector=" + strings.Repeat("a%3Db,", 3000) + "a%3Db",
		"/api/v1/namespaces/default/configmaps?" + strings.Repeat("a=b&", 5000), "/api/v1/namespaces/default/configmaps?watch=perhaps", "/api/v1/namespaces/default/configmaps?limit=-1",
		"/api/v1/namespaces/default/configmaps?limit=99999999999999999999", "/api/v1/namespaces/default/configmaps?continue=" + strings.Repeat("QUFB", 2000),
		"/api/v1/namespaces/default/configmaps?resourceVersion=-1", "/api/v1/namespaces/default/configmaps?timeoutSeconds=-5", "/api/v1/namespaces/default/configmaps/a?resourceVersion=x",
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
			line := f.raw(method + " " + path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			var code int
			if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &code); err != nil || code >= 500 && code != 503 {
				t.Errorf("%s %.100s: %q", method, path, line)
			}
		}
	}
	f.ask("GET "+maps+"/a", "").ok(404) // DELETE of the whole collection was among them
	f.alive()
}

func TestHostileRequests(t *testing.T) {
	f := start(t)
	const head = "Host: h\r\nConnection: close\r\nContent-Type: application/json\r\n"
	cases := []struct{ name, text, want string }{
		{"no HTTP", "hello\r\n\r\n", "400"},
		{"a method of its own", "FROB " + maps + " HTTP/1.1\r\n" + head + "\r\n", "405"},
		{"headers without end", "GET / HTTP/1.1\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 2000) + head + "\r\n", "431"},
		{"a path without end", "GET /" + strings.Repeat("a", 2<<20) + " HTTP/1.1\r\n" + head + "\r\n", "431"},
		{"a body that breaks off", "POST " + maps + " HTTP/1.1\r\n" + head + "Content-Length: 500\r\n\r\n{\"kind\"", "400"},
		{"chunks that break off", "POST " + maps + " HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"kin", "400"},
		{"chunks that are none", "POST " + maps + " HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
		{"two lengths", "POST " + maps + " HTTP/1.1\r\n" + head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "400"},
		{"a length and chunks", "POST " + maps + " HTTP/1.1\r\n" + head + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""},
		{"a negative length", "POST " + maps + " HTTP/1.1\r\n" + head + "Content-Length: -1\r\n\r\n", "400"},
		{"a huge length", "POST " + maps + " HTTP/1.1\r\n" + head + "Content-Length: 99999999999\r\n\r\n{}", "400"},
		{"no host", "GET /version HTTP/1.1\r\n\r\n", "400"},
		{"an upgrade to nothing", "GET /version HTTP/1.1\r\n" + head + "Connection: Upgrade\r\nUpgrade: frob\r\n\r\n", "200"},
		{"exec of nobody", "POST /api/v1/namespaces/default/pods/a/exec?command=a HTTP/1.1\r\n" + head + "Content-Length: 0\r\n\r\n", "404"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if line := f.raw(c.text); !strings.Contains(line, " "+c.want) && line != "" {
				t.Errorf("%q, want %s", line, c.want)
			}
		})
	}
	f.alive()
}

func TestHostileBodies(t *testing.T) {
	f := start(t)
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	const pods = "POST /api/v1/namespaces/default/pods"
	cases := []struct {
		name, request, media, body string
	}{
		{"deep JSON", pods, "application/json", strings.Repeat(`{"a":`, 500_000)},
		{"deep arrays", pods, "application/json", strings.Repeat("[", 1_000_000)},
		{"deep JSON that ends", pods, "application/json", `{"spec":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}"},
		{"deep YAML", pods, "application/yaml", strings.Repeat("{a: ", 20_000)},
		{"a bomb of aliases", pods, "application/yaml", bomb},
		{"a bomb as a patch", "PATCH " + maps + "/a", "application/merge-patch+json", bomb},
		{"a bomb to apply", "PATCH " + maps + "/a?fieldManager=m", "application/apply-patch+yaml", bomb},
		{"many documents", pods, "application/yaml", strings.Repeat("---\na: b\n", 10_000)},
		{"not text", pods, "application/json", "\x00\xff\xfe{}"},
		{"surrogates", pods, "application/json", `{"metadata":{"name":"\ud800"}}`},
		{"numbers without end", pods, "application/json", `{"spec":{"priority":` + strings.Repeat("9", 100_000) + `}}`},
		{"an exponent", pods, "application/json", `{"spec":{"containers":[{"resources":{"limits":{"cpu":"1e999999999"}}}]}}`},
		{"a quantity without end", pods, "application/json", `{"spec":{"containers":[{"name":"a","image":"b","resources":{"limits":{"cpu":"` + strings.Repeat("9", 10_000) + `"}}}]}}`},
		{"null", pods, "application/json", "null"},
		{"nulls", pods, "application/json", `{"metadata":null,"spec":null}`},
		{"null elements", pods, "application/json", `{"metadata":{"name":"a","ownerReferences":[null]},"spec":{"containers":[null],"volumes":[null],"tolerations":[null]}}`},
		{"protobuf of nothing", pods, protobuf, "k8s\x00"},
		{"protobuf without its mark", pods, protobuf, "\x0a\x00"},
		{"protobuf of a length", pods, protobuf, "k8s\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"},
		{"protobuf of groups", pods, protobuf, "k8s\x00" + strings.Repeat("\x0b", 100_000)},
		{"a JSON patch of itself", "PATCH " + maps + "/a", "application/json-patch+json", `[` + strings.Repeat(`{"op":"copy","from":"/data","path":"/data/x"},`, 60) + `{"op":"copy","from":"/data","path":"/data/x"}]`},
		{"a patch with a bad pointer", "PATCH " + maps + "/a", "application/json-patch+json", `[{"op":"add","path":"/data/-1/~2","value":1}]`},
		{"a patch of an index", "PATCH " + maps + "/a", "application/json-patch+json", `[{"op":"add","path":"/metadata/finalizers/99999999","value":"a"}]`},
		{"a patch of nothing", "PATCH " + maps + "/a", "application/merge-patch+json", "null"},
		{"a strategic patch of its own", "PATCH " + maps + "/a", "application/strategic-merge-patch+json", `{"$patch":"frob","data":{"$retainKeys":[1],"$setElementOrder/x":{}}}`},
		{"options that are none", "DELETE " + maps + "/a", "application/json", `{"preconditions":7}`},
		{"options in protobuf", "DELETE " + maps + "/a", protobuf, "k8s\x00\xff"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f.Registry.Must(configMap("a", "k", "v"))
			defer func() { f.ask("DELETE "+maps+"/a", "") }()
			began := time.Now()
			got := f.ask(c.request, c.body, "Content-Type", c.media)
			if got.code < 400 || got.code >= 500 {
				t.Errorf("%d: %.300s", got.code, got.body)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	f.alive()
}

// Quantities with long exponents would be computed with for hours. Each way into an object refuses them, and nothing that only looks like one.
func TestQuantitiesThatNobodyCanComputeWith(t *testing.T) {
	f := start(t)
	const (
		pods, claims = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/persistentvolumeclaims"
		claim        = `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"a"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"%s"}}}}`
	)
	f.ask("POST "+claims, fmt.Sprintf(claim, "1Gi")).ok(201)
	f.ask("POST "+pods, `{"metadata":{"name":"1e999999999","labels":{"sha":"1e9999999"}},"spec":{"containers":[{"name":"a","image":"b:1e9999999"}]}}`).ok(201)
	for _, q := range []string{"1e999999999", "1E-999999999", "0.0000000000000000000000001e999999999", "e1000"} {
		pod := `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"b","resources":{"limits":{"memory":"` + q + `"},"requests":{"memory":"1"}}}]}}`
		kind := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "a", Image: "b", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse(strings.Repeat("1", len(q)))}}}}}}
		raw, err := runtime.Encode(protobufserializer.NewSerializer(scheme.Scheme, scheme.Scheme), kind)
		if err != nil {
			t.Fatal(err)
		}
		binary := bytes.Replace(raw, []byte(strings.Repeat("1", len(q))), []byte(q), 1)
		for name, c := range map[string]struct{ request, media, body string }{
			"JSON":            {"POST " + pods, "application/json", pod},
			"YAML":            {"POST " + pods, "application/yaml", pod},
			"protobuf":        {"POST " + pods, protobuf, string(binary)},
			"another dry run": {"POST " + pods + "?dryRun=All&fieldValidation=Ignore", "application/json", pod},
			"PUT":             {"PUT " + claims + "/a", "application/json", fmt.Sprintf(claim, q)},
			"merge patch":     {"PATCH " + claims + "/a", "application/merge-patch+json", `{"spec":{"resources":{"requests":{"storage":"` + q + `"}}}}`},
			"strategic patch": {"PATCH " + claims + "/a", "application/strategic-merge-patch+json", `{"spec":{"resources":{"requests":{"storage":"` + strings.Replace(q, "e", `\u0065`, 1) + `"}}}}`},
			"JSON patch":      {"PATCH " + claims + "/a", "application/json-patch+json", `[{"op":"replace","path":"/spec/resources/requests/storage","value":"` + q + `"}]`},
			"apply":           {"PATCH " + claims + "/a?fieldManager=m&force=true", "application/apply-patch+yaml", fmt.Sprintf(claim, q)},
		} {
			got := f.ask(c.request, c.body, "Content-Type", c.media)
			if got.code < 400 || got.code >= 500 || !strings.Contains(string(got.body), "is no quantity: its exponent must not have more than 3 digits") {
				t.Errorf("%s of %s: %d %s", name, q, got.code, got.body)
			}
		}
	}
	f.alive()
}

// Whatever bytes come as a body, the server answers with what a client did wrong, and lives.
func TestRandomBodies(t *testing.T) {
	f := start(t)
	rnd := rand.New(rand.NewSource(1))
	seed := []byte("k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x20\x0a\x1a\x0a\x01a\x12\x00\x1a\x07default\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x02\x0a\x00")
	for i := range 300 {
		body := bytes.Clone(seed)
		for range 1 + rnd.Intn(4) {
			body[4+rnd.Intn(len(body)-4)] = byte(rnd.Intn(256))
		}
		body = body[:4+rnd.Intn(len(body)-4)]
		for _, media := range []string{protobuf, "application/json", "application/yaml"} {
			if got := f.ask("POST "+maps+"?dryRun=All", string(body), "Content-Type", media); got.code >= 500 || got.code == http.StatusOK {
				t.Errorf("round %d, %s %q: %d %s", i, media, body, got.code, got.body)
			}
		}
	}
	f.alive()
}

func TestHostileHeaders(t *testing.T) {
	f := start(t)
	long := strings.Repeat("application/json;q=0.1;a=b,", 20_000)
	for _, headers := range [][]string{
		{"Accept", long}, {"Accept", strings.Repeat(";", 100_000)}, {"Accept", "application/json;q=NaN"}, {"Accept", "application/json;q=-1,*/*;q=Inf"},
		{"Accept", `application/json;as="Table;v=v1`}, {"Content-Type", "application/json;charset=\xff"}, {"Impersonate-User", strings.Repeat("a", 100_000)},
		{"Authorization", "Bearer " + strings.Repeat("a.", 100_000)}, {"User-Agent", strings.Repeat("x", 100_000)}, {"Impersonate-Extra-%zz", "a"},
	} {
		began := time.Now()
		if got := f.ask("GET "+maps, "", headers...); got.code >= 500 {
			t.Errorf("%s %.30s: %d %.300s", headers[0], headers[1], got.code, got.body)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s %.30s took %s", headers[0], headers[1], took)
		}
	}
	f.alive()
}
