package replicaset

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/controller/harness"
)

// patience is how long an own change may take to show in the cache before it counts as lost.
const patience = 5 * time.Minute

// expectations are the creations and deletions a ReplicaSet made that its cache has not shown yet. The zero value is ready for use.
type expectations struct {
	mu    sync.Mutex
	byKey map[harness.Key]*expectation
}

type expectation struct {
	creations int
	deletions map[types.UID]struct{}
	since     time.Time
}

// met says whether everything expected was seen (or was given up).
func (e *expectations) met(key harness.Key) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.byKey[key]
	if x == nil || time.Since(x.since) > patience {
		delete(e.byKey, key)
		return true
	}
	return x.creations <= 0 && len(x.deletions) == 0
}

func (e *expectations) creations(key harness.Key, n int) { e.set(key, &expectation{creations: n}) }

func (e *expectations) deletions(key harness.Key, victims []*corev1.Pod) {
	x := &expectation{deletions: map[types.UID]struct{}{}}
	for _, p := range victims {
		x.deletions[p.UID] = struct{}{}
	}
	e.set(key, x)
}

func (e *expectations) set(key harness.Key, x *expectation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byKey == nil {
		e.byKey = map[harness.Key]*expectation{}
	}
	x.since = time.Now()
	e.byKey[key] = x
}

// created notes that the cache showed a new pod.
func (e *expectations) created(key harness.Key) { e.give(key, 1) }

// give takes back the expectation of n creations.
func (e *expectations) give(key harness.Key, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.byKey[key]; x != nil {
		x.creations -= n
	}
}

// deleted notes that the cache showed a pod going, or that its deletion failed.
func (e *expectations) deleted(key harness.Key, uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.byKey[key]; x != nil {
		delete(x.deletions, uid)
	}
}

func (e *expectations) forget(key harness.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byKey, key)
}
