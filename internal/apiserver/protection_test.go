package apiserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/admission"
	"skiff.dev/skiff/internal/apiserver/admission/dynamic"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/logtest"
	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/internal/registry"
)

func TestSlowRequestsAreRemarkedUpon(t *testing.T) {
	log := &logtest.Log{}
	f := start(t, func(c *apiserver.Config) {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
		c.Checks = []apiserver.Check{{Name: "slow", Run: func(context.Context) error { time.Sleep(1100 * time.Millisecond); return nil }}}
	})
	f.ask("GET /readyz/ping", "").ok(200)
	got := f.ask("GET /readyz/slow?x=y", "").ok(200)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), "a request was slow") && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	text := log.String()
	for _, want := range []string{"a request was slow", `uri="/readyz/slow?x=y"`, ` steps="answer 1.1`, "code=200", "user=admin", "audit=" + got.header.Get("Audit-Id")} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in the log: %s", want, text)
		}
	}
	if strings.Contains(text, "/readyz/ping") {
		t.Error("a fast request is in the log")
	}
}

// What took a slow request's time is told step by step.
func TestSlowRequestsTellTheirSteps(t *testing.T) {
	log, d := &logtest.Log{}, dynamic.New()
	admit, validate, err := admission.New(admission.Config{
		Admit:    map[string]registry.Admit{"MutatingAdmissionWebhook": d.MutateByWebhooks},
		Validate: map[string]registry.Validate{"ValidatingAdmissionWebhook": d.ValidateByWebhooks}, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	f := startAsking(t, d, func(c *registry.Config, _ func() *authz.Authorizer) { c.Admit, c.Validate = admit, validate },
		func(c *apiserver.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
	h := hooksFor(f)
	h.on("/slow", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Name == "a" {
			time.Sleep(slowFor)
		}
		return &admissionv1.AdmissionResponse{Allowed: true}
	})
	h.configure("Mutating", "m", "/slow", configMapRule, "")
	h.configure("Validating", "v", "/slow", configMapRule, "")
	told := func(audit string) (steps string) {
		t.Helper()
		soon(t, func() bool {
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "a request was slow") && strings.Contains(line, "audit="+audit) {
					_, steps, _ = strings.Cut(line, ` steps="`)
					steps, _, _ = strings.Cut(steps, `"`)
				}
			}
			return steps != ""
		})
		return steps
	}
	// took is how long each step is said to have taken.
	took := func(steps string) map[string]time.Duration {
		t.Helper()
		out := map[string]time.Duration{}
		for _, one := range strings.Split(steps, ", ") {
			at := strings.LastIndexByte(one, ' ')
			d, err := time.ParseDuration(one[at+1:])
			if err != nil {
				t.Fatalf("%v in %q", err, steps)
			}
			out[one[:max(at, 0)]] += d
		}
		return out
	}
	made := f.ask("POST "+configMaps, configMapText("a")).ok(201)
	for _, name := range []string{"admission MutatingAdmissionWebhook", "admission ValidatingAdmissionWebhook"} {
		if steps := told(made.header.Get("Audit-Id")); took(steps)[name] < slowFor {
			t.Errorf("%s took %v, of: %s", name, took(steps)[name], steps)
		}
	}

	body, in := io.Pipe() // a client that hesitates
	go func() {
		text := configMapText("b")
		_, _ = io.WriteString(in, text[:5])
		time.Sleep(slowFor * 2)
		_, _ = io.WriteString(in, text[5:])
		_ = in.Close()
	}()
	resp, err := f.admin.Post("https://"+f.host+configMaps, "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if steps := told(resp.Header.Get("Audit-Id")); resp.StatusCode != 201 || took(steps)["read and decode"] < slowFor*2-100*time.Millisecond {
		t.Errorf("%d, of: %s", resp.StatusCode, steps)
	}
}

// slowFor is as long as a step takes of which two make a request slow.
const slowFor = 550 * time.Millisecond

func TestWeakCiphersAreRefused(t *testing.T) {
	f := start(t)
	dial := func(version uint16, cipher uint16) error {
		c, err := tls.Dial("tcp", f.host, &tls.Config{RootCAs: f.ca.Pool(), MinVersion: version, MaxVersion: version, CipherSuites: []uint16{cipher}})
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	if err := dial(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256); err != nil {
		t.Error(err)
	}
	if dial(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA) == nil {
		t.Error("a cipher that checks too late was taken")
	}
	if dial(tls.VersionTLS11, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA) == nil {
		t.Error("TLS 1.1 was taken")
	}
}

// A certificate that takes the place of another is shown to whoever connects from then on; who is connected stays so.
func TestCertificatesAreReplacedWhileRunning(t *testing.T) {
	var now atomic.Pointer[tls.Certificate]
	f := start(t, func(c *apiserver.Config) {
		first, err := c.Certificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		now.Store(first)
		c.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return now.Load(), nil }
	})
	w, err := f.clientset().CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	shown := func() string {
		c, err := tls.Dial("tcp", f.host, &tls.Config{RootCAs: f.ca.Pool()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := shown()
	next, err := f.ca.Issue(pki.Leaf{CommonName: "kube-apiserver", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	now.Store(next)
	if after := shown(); after == before || after != next.Leaf.SerialNumber.String() {
		t.Errorf("shown are %s and then %s", before, after)
	}
	f.ask("POST "+configMaps, configMapText("a", "b", "c")).ok(201)
	select {
	case e := <-w.ResultChan():
		if e.Type != watch.Added {
			t.Errorf("the watch ended: %+v", e)
		}
	case <-time.After(time.Minute):
		t.Error("the watch is silent")
	}
}

// Whoever scrapes protobuf gets native histograms beside the classic ones, as from 1.37's server.
func TestNativeHistograms(t *testing.T) {
	f := start(t)
	f.healthy()
	f.ask("POST /api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"}}`).ok(201)
	got := f.ask("GET /metrics", "", "Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited").ok(200)
	families, seen := expfmt.NewDecoder(bytes.NewReader(got.body), expfmt.ResponseFormat(got.header)), map[string]bool{}
	for {
		var family dto.MetricFamily
		if err := families.Decode(&family); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, m := range family.Metric {
			if h := m.Histogram; h.GetSampleCount() > 0 && len(h.Bucket) > 0 && len(h.PositiveSpan)+int(h.GetZeroCount()) > 0 {
				seen[family.GetName()] = true
			}
		}
	}
	for _, name := range []string{"apiserver_request_duration_seconds", "apiserver_flowcontrol_request_wait_duration_seconds", "apiserver_flowcontrol_request_execution_seconds"} {
		if !seen[name] {
			t.Errorf("%s is not of both kinds", name)
		}
	}
}

func TestMetricNames(t *testing.T) {
	f := start(t)
	f.ask("POST /api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"}}`).ok(201)
	f.askAs(f.client("alice"), "GET /api/v1/nodes", "").ok(403)
	watching, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c := f.clientset()
	if err := c.CoreV1().RESTClient().Get().AbsPath("/api/v1/configmaps").Param("watch", "true").Param("resourceVersion", "0").Param("timeoutSeconds", "1").Do(watching).Error(); err != nil {
		t.Log(err) // a stream is no object
	}
	text := string(f.ask("GET /metrics", "").ok(200).body)
	for _, want := range []string{
		`apiserver_current_inflight_requests{request_kind="readOnly"} 1`, `apiserver_current_inflight_requests{request_kind="mutating"} 0`,
		`apiserver_watch_events_total{group="",resource="configmaps",version="v1"}`, `apiserver_longrunning_requests`,
		`authorization_attempts_total{result="allowed"}`, `authorization_attempts_total{result="no-opinion"} 1`,
		`authentication_attempts{result="success"}`, `apiserver_storage_objects{resource="configmaps"} `,
		`apiserver_resource_objects{group="",resource="configmaps"} `, `apiserver_resource_objects{group="apps",resource="deployments"} `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}
