package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// heapPercent: collecting at half the usual growth holds a fifth less memory of a large cluster.
	heapPercent = 50
	// heapLeast is how much the heap grows at least. A small one would be collected all the time: it is worth more than it holds.
	heapLeast = 32 << 20
)

// growHeap has the collector set in when the heap has grown by half, and by heapLeast at least. What lives is known after each collection, and then
// the share that may be added is set anew.
func growHeap() {
	debug.SetGCPercent(heapPercent)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	set := heapPercent
	type collected struct{ _ *byte } // what holds a pointer is not allocated together with others
	var after func(*collected)
	after = func(c *collected) {
		metrics.Read(live)
		if percent := heapGrowth(live[0].Value.Uint64()); percent != set {
			debug.SetGCPercent(percent)
			set = percent
		}
		runtime.SetFinalizer(c, after) // runs when the next collection finds it unused once more
	}
	runtime.SetFinalizer(new(collected), after)
}

// heapGrowth is by how many per cent a heap may grow of which so much lives. It goes in steps, for to set it stops the world for a moment.
func heapGrowth(live uint64) int {
	const step = 25
	percent := heapLeast * 100 / max(int(live), heapLeast/10)
	return max(heapPercent, (percent+step/2)/step*step)
}
