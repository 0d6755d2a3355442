package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestBurn(t *testing.T) {
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		newSite(io.Discard).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	if w := ask("/burn?ms=1"); strings.Contains(w.Body.String(), "burnt") {
		t.Error("anybody may burn without being let")
	}
	t.Setenv("BURN", "1")
	began := time.Now()
	if w := ask("/burn?ms=50"); w.Body.String() != "burnt 50 ms\n" || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%q after %s", w.Body, time.Since(began))
	}
	for _, bad := range []string{"x", "-1", "5001"} {
		if w := ask("/burn?ms=" + bad); w.Code != http.StatusBadRequest {
			t.Errorf("ms=%s: code %d", bad, w.Code)
		}
	}
}

func TestSite(t *testing.T) {
	t.Setenv("POD_NAME", "web-1")
	t.Setenv("POD_NAMESPACE", "default")
	t.Setenv("MESSAGE", "ahoy <b>")
	var log strings.Builder
	s := newSite(&log)
	cases := []struct {
		path, accept string
		code         int
		want         []string
	}{
		{"/", "*/*", 200, []string{"ahoy <b>\n", "pod        web-1\n", "namespace  default\n", "you        192.0.2.1:1234\n"}},
		{"/", "text/html,*/*", 200, []string{"<!doctype html>", "ahoy &lt;b&gt;", "<dd>web-1</dd>"}},
		{"/healthz", "", 200, []string{"ok"}},
		{"/some/where", "", 200, []string{"path       /some/where\n"}},
	}
	for _, c := range cases {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Header.Set("Accept", c.accept)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%s: code %d, want %d", c.path, w.Code, c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s (%s) lacks %q:\n%s", c.path, c.accept, want, w.Body)
			}
		}
	}
	if strings.Count(log.String(), "\n") != 3 || !strings.Contains(log.String(), "GET / 200") || strings.Contains(log.String(), "healthz") {
		t.Errorf("log:\n%s", log.String())
	}
}
