package apiserver

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
)

// gate is a writer that lets a test see how many write at once, and may be shut.
type gate struct {
	bytes.Buffer
	within, most *atomic.Int64
	shut         chan struct{} // nil: open
}

func (g *gate) Write(b []byte) (int, error) {
	g.most.Store(max(g.most.Load(), g.within.Add(1)))
	defer g.within.Add(-1)
	if g.shut != nil {
		<-g.shut
	}
	return g.Buffer.Write(b)
}

func TestListsAreWrittenInTurns(t *testing.T) {
	of := make(turns, 1)
	var within, most atomic.Int64
	var all sync.WaitGroup
	outs := make([]*gate, 8)
	for i := range outs {
		outs[i] = &gate{within: &within, most: &most}
		all.Go(func() {
			w := of.begin(t.Context(), outs[i])
			defer w.end()
			for range 3 * turnBytes / frameBytes {
				if _, err := w.Write(make([]byte, frameBytes)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, out := range outs {
		if out.Len() < 2*turnBytes {
			t.Errorf("a list has %d bytes", out.Len())
		}
	}
	if len(of) != 0 {
		t.Error("a turn was not given back")
	}
	// A turn may end by its length while its holder writes, on a busy machine: few at once, never all.
	if most.Load() == int64(len(outs)) {
		t.Errorf("%d wrote at once", most.Load())
	}
}

// A client that doesn't take what is written must not keep others from theirs.
func TestATurnEndsWhileItsClientIsSlow(t *testing.T) {
	of := make(turns, 1)
	var within, most atomic.Int64
	slow := &gate{within: &within, most: &most, shut: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() {
		w := of.begin(t.Context(), slow)
		defer w.end()
		_, _ = w.Write(make([]byte, frameBytes))
	})
	quick := &gate{within: &within, most: &most}
	w := of.begin(t.Context(), quick)
	for within.Load() == 0 {
		if _, err := w.Write([]byte("first")); err != nil {
			t.Fatal(err)
		}
		w.release()
	}
	if _, err := w.Write([]byte("beside")); err != nil {
		t.Fatal(err)
	}
	w.end()
	close(slow.shut)
	all.Wait()
	if len(of) != 0 {
		t.Error("a turn was not given back")
	}
}

func TestWhoWaitsForATurnMayGo(t *testing.T) {
	of := make(turns, 1)
	of <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := of.begin(ctx, &bytes.Buffer{})
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("it wrote without a turn")
	}
	w.end()
	if len(of) != 1 {
		t.Error("it gave back what it did not have")
	}
}
