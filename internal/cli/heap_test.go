package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestHeapGrowth(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 1000}, {1 << 20, 1000}, {16 << 20, 200}, {32 << 20, 100}, {64 << 20, 50}, {65 << 20, 50}, {4 << 30, 50},
	} {
		if got := heapGrowth(c.live); got != c.want {
			t.Errorf("of %d bytes live: %d %%, want %d", c.live, got, c.want)
		}
	}
}

// The percentage follows what lives, collection by collection.
func TestHeapGrowsByALeast(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	percent := func() int {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return int(sample[0].Value.Uint64())
	}
	growHeap()
	reached := func(want func(int) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !want(percent()); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the heap may grow by %d %%", percent())
			}
			runtime.GC()
		}
	}
	reached(func(p int) bool { return p > heapPercent })
	held := make([]byte, 100<<20)
	reached(func(p int) bool { return p == heapPercent })
	runtime.KeepAlive(held)
	held = nil
	reached(func(p int) bool { return p > heapPercent })
}
