package apiserver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// What a flush of a watch costs does not depend on how many events it carries: it is a TLS record, a system call and three goroutines that wake each
// other. So the busier the server's watches are, the longer each of them lets events gather after it has sent some. An event that follows a quiet
// moment is sent at once.
const (
	paceSlot  = 16 * time.Millisecond  // flushes are counted over this long
	paceCost  = 500 * time.Microsecond // how long one flush makes every watch wait
	paceLeast = 300 * time.Microsecond // shorter waits cost more than they save
	paceMost  = 28 * time.Millisecond
)

// pace is how busy the server's watches are. The zero value is ready.
type pace struct {
	slot   atomic.Int64 // number of the present slot
	now    atomic.Int64 // flushes in it
	before atomic.Int64 // flushes in the one before
}

// count notes a flush and returns how long the watch that made it shall gather events.
func (p *pace) count(at time.Time) time.Duration {
	slot := at.UnixNano() / int64(paceSlot)
	if last := p.slot.Load(); last != slot && p.slot.CompareAndSwap(last, slot) {
		n := p.now.Swap(0)
		if last != slot-1 {
			n = 0
		}
		p.before.Store(n)
	}
	busy := max(p.now.Add(1), p.before.Load())
	return min(time.Duration(busy)*paceCost, paceMost)
}

// wait notes a flush and lets events gather; ctx's error ends it.
func (p *pace) wait(ctx context.Context) error {
	gap := p.count(time.Now())
	if gap < paceLeast {
		return nil
	}
	t := time.NewTimer(gap)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// batchBytes is how much of a batch is encoded before it is written.
const batchBytes = 64 << 10

var batches = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// borrow takes an empty buffer from those that watches share.
func borrow() []byte { return (*batches.Get().(*[]byte))[:0] }

// giveBack returns a buffer, unless it is of a size that few need.
func giveBack(b []byte) {
	if cap(b) > 0 && cap(b) <= 4*batchBytes {
		batches.Put(&b)
	}
}
