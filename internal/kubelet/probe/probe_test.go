package probe

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// server answers probes as healthy says, and counts them.
func server(t *testing.T, healthy *atomic.Bool) (corev1.ProbeHandler, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if !healthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: u.Hostname(), Port: intstr.FromInt(port), Path: "/", Scheme: corev1.URISchemeHTTP}}, &asked
}

// TestEager: a probe with a period of an hour still notices a container that is healthy after a moment, and does not call it unhealthy before.
func TestEager(t *testing.T) {
	var healthy atomic.Bool
	handler, asked := server(t, &healthy)
	results, failures := make(chan bool, 10), make(chan string, 10)
	w := New(&corev1.Probe{ProbeHandler: handler, PeriodSeconds: 3600, TimeoutSeconds: 1}, Target{Container: &corev1.Container{}, Started: time.Now()}, false,
		Report{Result: func(ok bool) { results <- ok }, Failed: func(m string) { failures <- m }})
	w.Eager()
	w.Begin()
	defer w.Stop()
	for asked.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	healthy.Store(true)
	select {
	case ok := <-results:
		if !ok {
			t.Error("the first verdict is a failure")
		}
	case <-time.After(time.Minute):
		t.Fatal("no verdict: the probe waits for its period")
	}
	select {
	case m := <-failures:
		t.Errorf("an attempt between periods was reported: %s", m)
	default:
	}
	before := asked.Load()
	time.Sleep(4 * firstEager)
	if now := asked.Load(); now != before {
		t.Errorf("asked %d times more after the first success, before the period was over", now-before)
	}
}

func TestCounter(t *testing.T) {
	for name, c := range map[string]struct {
		success, failure int32
		initially        bool
		attempts         []bool
		want             []bool // verdicts that are told
	}{
		"ready at once":              {1, 3, false, []bool{true}, []bool{true}},
		"two failures are forgiven":  {1, 3, true, []bool{true, false, false, true}, []bool{true}},
		"three are not":              {1, 3, true, []bool{true, false, false, false}, []bool{true, false}},
		"successes in a row count":   {2, 1, false, []bool{true, false, true, true}, []bool{false, true}},
		"each further verdict again": {1, 2, true, []bool{false, false, false, false}, []bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			k := counter{success: c.success, failure: c.failure, ok: c.initially}
			var got []bool
			for _, ok := range c.attempts {
				if verdict, tell := k.add(ok); tell {
					got = append(got, verdict)
				}
			}
			if len(got) != len(c.want) {
				t.Fatalf("verdicts %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Fatalf("verdicts %v, want %v", got, c.want)
				}
			}
		})
	}
}

// TestRedirects: one that stays on the host is followed, one that leads away is a success with a warning.
func TestRedirects(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
		} else if r.URL.Path != "/well" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	for to, want := range map[string]struct {
		warning string
		fails   bool
	}{
		"/well":          {},
		"/gone":          {fails: true},
		"http://0.0.0.0": {warning: "Probe terminated redirects, Response body: <a href=\"http://0.0.0.0\">Found</a>."},
	} {
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		port, err := strconv.Atoi(u.Port())
		if err != nil {
			t.Fatal(err)
		}
		get := &corev1.HTTPGetAction{Host: u.Hostname(), Port: intstr.FromInt(port), Path: "/?to=" + url.QueryEscape(to)}
		warning, err := Call(t.Context(), get, &corev1.Container{}, "")
		if strings.TrimSpace(warning) != want.warning || (err != nil) != want.fails {
			t.Errorf("%s: warning %q, error %v", to, warning, err)
		}
	}
}
