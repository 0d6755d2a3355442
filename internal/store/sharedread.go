package store

import (
	"context"
	"sync"
)

// sharedRead lets any number of readers share linearizable reads: whoever comes while one is under way waits for the next, which
// begins after they came, and takes its result.
type sharedRead struct {
	mu   sync.Mutex
	next *readCall
	busy bool
}

type readCall struct {
	done chan struct{}
	rev  int64
	err  error
}

func (r *sharedRead) do(ctx context.Context, read func(context.Context) (int64, error)) (int64, error) {
	r.mu.Lock()
	call := r.next
	if call == nil {
		call = &readCall{done: make(chan struct{})}
		r.next = call
		if !r.busy {
			r.busy = true
			go r.loop(read)
		}
	}
	r.mu.Unlock()
	select {
	case <-call.done:
		return call.rev, call.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// loop reads for as long as somebody waits.
func (r *sharedRead) loop(read func(context.Context) (int64, error)) {
	for {
		r.mu.Lock()
		call := r.next
		r.next = nil
		if call == nil {
			r.busy = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), waitPatience)
		call.rev, call.err = read(ctx)
		cancel()
		close(call.done)
	}
}
