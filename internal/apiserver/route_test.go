package apiserver

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// counting counts a request as it is done for each.
func counting(tb testing.TB, method, path string) func() {
	tb.Helper()
	r := httptest.NewRequest(method, path, nil)
	info, err := (&request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}).NewRequestInfo(r)
	if err != nil {
		tb.Fatal(err)
	}
	m, rec := newMetrics(prometheus.NewRegistry()), &recorder{code: http.StatusOK, bytes: 1500}
	return func() { m.answered(routeOf(r, info, here), rec, 100*time.Microsecond, 0) }
}

// Every request is counted, so that must cost next to nothing.
func TestCountingAllocatesNothing(t *testing.T) {
	count := counting(t, http.MethodGet, "/api/v1/namespaces/default/pods/a")
	count()
	if n := testing.AllocsPerRun(100, count); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCounting(b *testing.B) {
	count := counting(b, http.MethodGet, "/api/v1/namespaces/default/pods/a")
	b.ReportAllocs()
	for b.Loop() {
		count()
	}
}
