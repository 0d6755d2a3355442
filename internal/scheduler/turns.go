package scheduler

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// turns has the writes about one pod done one after the other, in the order they were asked for, so that an older verdict never replaces a newer one. Writes
// about different pods go on side by side.
type turns struct {
	mu      sync.Mutex
	waiting map[types.UID][]func(ctx context.Context) // an entry for each pod that is being written about
}

// take begins a pod's turn; false: there is one under way, and do comes after it.
func (t *turns) take(pod types.UID, do func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	queue, busy := t.waiting[pod]
	if busy {
		t.waiting[pod] = append(queue, do)
		return false
	}
	t.waiting[pod] = nil
	return true
}

// next is what comes after a write; nil ends the turn.
func (t *turns) next(pod types.UID) (do func(ctx context.Context)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	queue := t.waiting[pod]
	if len(queue) == 0 {
		delete(t.waiting, pod)
		return nil
	}
	do, t.waiting[pod] = queue[0], queue[1:]
	return do
}

func (t *turns) busy(pod types.UID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, busy := t.waiting[pod]
	return busy
}

// write has do done on a binder's goroutine when it is the pod's turn.
func (l *loop) write(pod types.UID, do func(ctx context.Context)) {
	if !l.turns.take(pod, do) {
		return
	}
	l.writes <- func(ctx context.Context) {
		for do := do; do != nil; do = l.turns.next(pod) {
			do(ctx)
		}
	}
}
