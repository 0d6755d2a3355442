// Package expect remembers what a controller has just done to pods until its cache shows it, so that a stale cache never makes a pod too many.
//
// Its invariant: as long as Met says no, the cache may still lack a change of the controller's own, and nothing may be created or deleted by
// what it shows. Workload controllers keep one Book each.
package expect

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/controller/harness"
)

// Patience is how long an own change may take to show in the cache before it counts as lost.
const Patience = 5 * time.Minute

// Book holds the creations and deletions by owner. The zero value is ready for use.
type Book struct {
	mu    sync.Mutex
	byKey map[harness.Key]*entry
}

type entry struct {
	creations int
	deletions map[types.UID]struct{}
	since     time.Time
}

// Met says whether everything expected was seen (or was given up).
func (b *Book) Met(key harness.Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.byKey[key]
	if x == nil || time.Since(x.since) > Patience {
		delete(b.byKey, key)
		return true
	}
	return x.creations <= 0 && len(x.deletions) == 0
}

// Changes expects n pods to come and victims to go, instead of whatever was expected before. Called before the changes are made.
func (b *Book) Changes(key harness.Key, n int, victims []*corev1.Pod) {
	x := &entry{creations: n, deletions: make(map[types.UID]struct{}, len(victims)), since: time.Now()}
	for _, p := range victims {
		x.deletions[p.UID] = struct{}{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byKey == nil {
		b.byKey = map[harness.Key]*entry{}
	}
	b.byKey[key] = x
}

// Created notes that the cache showed a new pod.
func (b *Book) Created(key harness.Key) { b.Give(key, 1) }

// Give takes back the expectation of n creations.
func (b *Book) Give(key harness.Key, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.byKey[key]; x != nil {
		x.creations -= n
	}
}

// Deleted notes that the cache showed a pod going, or that its deletion failed.
func (b *Book) Deleted(key harness.Key, uid types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.byKey[key]; x != nil {
		delete(x.deletions, uid)
	}
}

// Forget drops what an owner that is gone expected.
func (b *Book) Forget(key harness.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byKey, key)
}
