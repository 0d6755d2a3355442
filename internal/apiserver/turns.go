package apiserver

import (
	"context"
	"io"
	"runtime"
	"sync/atomic"
	"time"
)

// Writing a long list is nothing but work for the processor: copying, encrypting, handing frames on. Were as many written at once as are asked for, every
// short request would wait behind all of them. So they are written in turns: half the processors' worth of lists at a time, each for a while.
const (
	turnBytes  = 512 << 10             // how much of a list is written before others have their turn
	turnLength = 20 * time.Millisecond // a turn ends by itself when it takes so long: its client is slow to take what is written
)

// turns are had by those that write long lists.
type turns chan struct{}

func newTurns() turns { return make(turns, max(1, runtime.GOMAXPROCS(0)/2)) }

// turn is one list's part of them. It is a writer that writes while it has its turn.
type turn struct {
	of   turns
	ctx  context.Context
	to   io.Writer
	left int
	has  atomic.Bool
	over *time.Timer
}

// begin makes the turns of one list; end must be called.
func (t turns) begin(ctx context.Context, to io.Writer) *turn {
	out := &turn{of: t, ctx: ctx, to: to}
	out.over = time.AfterFunc(turnLength, out.release)
	out.over.Stop()
	return out
}

// step waits until it is the list's turn, and notes that n bytes are worked on.
func (t *turn) step(n int) error {
	if t.left <= 0 {
		t.release()
	}
	t.left -= n
	if t.has.Load() {
		return nil
	}
	select {
	case t.of <- struct{}{}:
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
	t.left = turnBytes - n
	t.has.Store(true)
	t.over.Reset(turnLength)
	return nil
}

func (t *turn) Write(b []byte) (int, error) {
	if err := t.step(len(b)); err != nil {
		return 0, err
	}
	return t.to.Write(b)
}

// release gives the turn to another list.
func (t *turn) release() {
	if t.has.CompareAndSwap(true, false) {
		<-t.of
	}
}

func (t *turn) end() {
	t.over.Stop()
	t.release()
}
