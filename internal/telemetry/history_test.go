package telemetry

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func sampleOf(pods int, nano, memory uint64) *stats.Summary {
	cpu, mem := &stats.CPUStats{UsageNanoCores: &nano}, &stats.MemoryStats{WorkingSetBytes: &memory}
	s := &stats.Summary{Node: stats.NodeStats{CPU: cpu, Memory: mem}}
	for i := range pods {
		s.Pods = append(s.Pods, stats.PodStats{
			PodRef: stats.PodReference{Namespace: "shop", Name: fmt.Sprint("p", i), UID: fmt.Sprint("u", i)}, CPU: cpu, Memory: mem,
			Containers: []stats.ContainerStats{{Name: "a", CPU: cpu, Memory: mem}, {Name: "b", CPU: &stats.CPUStats{}}},
		})
	}
	return s
}

func TestHistory(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := &Sampler{now: func() time.Time { return now }}
	ask := func(query string) (h History) {
		t.Helper()
		w := httptest.NewRecorder()
		s.History().ServeHTTP(w, httptest.NewRequest("GET", "/stats/history?"+query, nil))
		if err := json.Unmarshal(w.Body.Bytes(), &h); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		return h
	}
	if h := ask(""); len(h.Times) != 0 || len(h.Series) != 0 {
		t.Errorf("before the first sample: %+v", h)
	}
	s.past.add(now, sampleOf(1, 5_000_000, 1<<20))
	now = now.Add(time.Second)
	s.past.add(now, sampleOf(3, 1, 1)) // before its time
	now = now.Add(4 * time.Second)
	s.past.add(now, sampleOf(2, 7_000_000, 2<<20))

	h := ask("pod=p1")
	if len(h.Times) != 2 || len(h.Series) != 3 {
		t.Fatalf("%+v", h)
	}
	if one := h.Series[1]; one.Container != "a" || one.CPU[0] != nil || *one.CPU[1] != 7_000_000 || *one.Memory[1] != 2<<20 {
		t.Errorf("of a container that came late: %+v", one)
	}
	if one := h.Series[2]; one.Container != "b" || one.CPU[1] != nil || one.Memory[1] != nil {
		t.Errorf("of a container without figures: %+v", one)
	}
	if h := ask("since=2s"); len(h.Times) != 1 || len(h.Series) != 7 || h.Series[0].Pod != "" || *h.Series[0].CPU[0] != 7_000_000 {
		t.Errorf("the node and two pods, the last two seconds: %+v", h)
	}
	for range hour + 3 {
		now = now.Add(Period)
		s.past.add(now, sampleOf(1, 1_000_000, 1<<20))
	}
	h = ask("")
	if len(h.Times) != hour || h.Times[hour-1]-h.Times[0] != (time.Hour-Period).Milliseconds() || h.Times[hour-1] != now.UnixMilli() {
		t.Errorf("%d samples, from %d to %d", len(h.Times), h.Times[0], h.Times[len(h.Times)-1])
	}
	if len(h.Series) != 4 {
		t.Errorf("a pod that is gone is still there: %d series", len(h.Series))
	}
	w := httptest.NewRecorder()
	if h := ask("only=node"); len(h.Series) != 1 || h.Series[0].Pod != "" || len(h.Series[0].CPU) != len(h.Times) {
		t.Errorf("of the node alone: %+v", h)
	}
	if s.History().ServeHTTP(w, httptest.NewRequest("GET", "/stats/history?since=yesterday", nil)); w.Code != 400 {
		t.Errorf("a bad duration: %d", w.Code)
	}
}

// hourOf fills an hour with a sample, and tells how many bytes that takes.
func hourOf(sample *stats.Summary) (p *past, bytes uint64) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	p = &past{}
	for i := range hour {
		p.add(time.Unix(0, 0).Add(time.Duration(i)*Period), sample)
	}
	return p, heap() - before
}

// TestHistoryIsSmall: an hour of a hundred pods takes at most 20 MB.
func TestHistoryIsSmall(t *testing.T) {
	sample := sampleOf(100, 1, 1)
	p, bytes := hourOf(sample)
	if bytes > 20e6 {
		t.Errorf("%d bytes", bytes)
	}
	if n := testing.AllocsPerRun(5, func() { p.last = time.Time{}; p.add(time.Unix(1e6, 0), sample) }); n > 10 {
		t.Errorf("%v allocations a sample", n)
	}
}

func BenchmarkHistory(b *testing.B) {
	sample := sampleOf(100, 1, 1)
	for range b.N {
		p, bytes := hourOf(sample)
		b.ReportMetric(float64(bytes)/1e6, "MB")
		runtime.KeepAlive(p)
	}
}
