package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/logtest"
)

// TestProxyHealth: what upstream's proxy answers, and when.
func TestProxyHealth(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := newProxyHealth(func() time.Time { return now })
	want := func(what string, healthz, livez int, body string) {
		t.Helper()
		for path, code := range map[string]int{"/healthz": healthz, "/livez": livez} {
			w := httptest.NewRecorder()
			h.health().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != code || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s: %s answers %d, not %d: %s", what, path, w.Code, code, w.Body)
			}
			if path == "/healthz" && body != "" && w.Body.String() != body {
				t.Errorf("%s: %s, not %s", what, w.Body, body)
			}
		}
	}
	want("at the start", 200, 200, `{"lastUpdated": "2026-01-02 03:04:05 +0000 UTC","currentTime": "2026-01-02 03:04:05 +0000 UTC", "nodeEligible": true}`)
	h.changed()
	now = now.Add(late - time.Second)
	want("a change has waited for a while", 200, 200, "")
	if err := h.write(func() error { h.changed(); now = now.Add(time.Second); return nil }); err != nil {
		t.Fatal(err)
	}
	now = now.Add(late - 2*time.Second)
	want("one that came while others were written", 200, 200, "")
	now = now.Add(time.Second)
	want("it has waited for too long", 503, 503, `{"lastUpdated": "2026-01-02 03:05:05 +0000 UTC","currentTime": "2026-01-02 03:06:04 +0000 UTC", "nodeEligible": true}`)
	refused := errors.New("refused")
	if err := h.write(func() error { want("while it is written", 503, 503, ""); return refused }); err != refused {
		t.Fatal(err)
	}
	want("the kernel refused it", 503, 503, "")
	if err := h.write(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	want("it is written", 200, 200, "")

	node := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "other"}, {Key: removalTaint}}}}
	h.see(node)
	want("the autoscaler removes the node", 503, 200, `{"lastUpdated": "2026-01-02 03:06:04 +0000 UTC","currentTime": "2026-01-02 03:06:04 +0000 UTC", "nodeEligible": false}`)
	h.see(&corev1.Node{})
	want("it has changed its mind", 200, 200, "")
	h.see(&corev1.Node{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{Time: now}}})
	want("the node is being deleted", 503, 200, "")
	h.see(nil)
	want("it is deleted", 503, 200, "")

	w := httptest.NewRecorder()
	h.metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		"kubeproxy_sync_proxy_rules_duration_seconds_count 2", `kubeproxy_proxy_healthz_total{code="503"} 6`, `kubeproxy_proxy_livez_total{code="200"} 8`,
		"kubeproxy_sync_proxy_rules_last_timestamp_seconds 1.767323164e+09",
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("the figures lack %s:\n%s", line, w.Body)
		}
	}
}

// TestHealthz asks a running node, whose figures another program's port keeps waiting.
func TestHealthz(t *testing.T) {
	w := newWorld(t, true)
	ask := func(addr, path string) (int, string) {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			return 0, ""
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const healthz = "127.0.0.1:31998"
	var said logtest.Log
	ctx, cancel := context.WithCancel(t.Context())
	var servers sync.WaitGroup
	defer servers.Wait()
	defer cancel()
	log := slog.New(slog.NewTextHandler(&said, nil))
	servers.Go(func() {
		if err := serve(ctx, "proxy-metrics-bind-address", taken.Addr().String(), w.net.healthz.metrics(), 10*time.Millisecond, log); err != nil {
			t.Error(err)
		}
	})
	servers.Go(func() {
		if err := serve(ctx, "proxy-healthz-bind-address", healthz, w.net.healthz.health(), time.Hour, log); err != nil {
			t.Error(err)
		}
	})
	wantCode := func(what, path string, want int) {
		t.Helper()
		eventually(t, what, func() bool { code, _ := ask(healthz, path); return code == want })
	}
	wantCode("it answers", "/healthz", 200)
	node := w.node()
	node.Spec.Taints = []corev1.Taint{{Key: removalTaint, Effect: corev1.TaintEffectNoSchedule}}
	w.client.put(node)
	wantCode("the node is about to go", "/healthz", 503)
	wantCode("the proxy lives", "/livez", 200)
	w.client.put(w.node())
	wantCode("the node stays", "/healthz", 200)

	eventually(t, "it says that the port is taken", func() bool {
		return strings.Contains(said.String(), fmt.Sprintf(`setting=proxy-metrics-bind-address address=%s why="another program has the port"`, taken.Addr()))
	})
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it takes the port", func() bool {
		_, mode := ask(taken.Addr().String(), "/proxyMode")
		_, figures := ask(taken.Addr().String(), "/metrics")
		return mode == "nftables" && strings.Contains(figures, "kubeproxy_sync_proxy_rules_duration_seconds_count")
	})
	if n := strings.Count(said.String(), "level=WARN"); n != 1 {
		t.Errorf("it said so %d times:\n%s", n, said.String())
	}
}
