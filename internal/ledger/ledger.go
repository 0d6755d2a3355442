// Package ledger is a map that knows what changed since its changes were last taken, so that what follows it — a table in the kernel — is
// changed by differences. Its invariant: all that Take has handed out, added up, is what the map holds.
package ledger

// Ledger maps keys to values. It is not safe for use by several goroutines.
type Ledger[K comparable, V any] struct {
	Now   map[K]V         // to read
	Was   map[K]Before[V] // of what changed since the last Take; to read
	equal func(a, b V) bool
}

// Before is what a key had when changes were last taken.
type Before[V any] struct {
	Value V
	Held  bool
}

// New is an empty ledger whose values are compared with equal.
func New[K comparable, V any](equal func(a, b V) bool) Ledger[K, V] {
	return Ledger[K, V]{Now: map[K]V{}, Was: map[K]Before[V]{}, equal: equal}
}

// Same is the comparison of values that == compares.
func Same[V comparable](a, b V) bool { return a == b }

func (l *Ledger[K, V]) Set(k K, v V) {
	old, held := l.Now[k]
	if held && l.equal(old, v) {
		return
	}
	l.note(k, old, held)
	l.Now[k] = v
}

func (l *Ledger[K, V]) Remove(k K) {
	if old, held := l.Now[k]; held {
		l.note(k, old, held)
		delete(l.Now, k)
	}
}

// Become makes the ledger hold exactly what next holds.
func (l *Ledger[K, V]) Become(next map[K]V) {
	for k := range l.Now {
		if _, stays := next[k]; !stays {
			l.Remove(k)
		}
	}
	for k, v := range next {
		l.Set(k, v)
	}
}

func (l *Ledger[K, V]) note(k K, old V, held bool) {
	if _, noted := l.Was[k]; !noted {
		l.Was[k] = Before[V]{old, held}
	}
}

// Take returns what is new or different, and what is gone.
func (l *Ledger[K, V]) Take() (changed map[K]V, gone []K) {
	changed = map[K]V{}
	for k, was := range l.Was {
		now, held := l.Now[k]
		switch {
		case held && (!was.Held || !l.equal(was.Value, now)):
			changed[k] = now
		case !held && was.Held:
			gone = append(gone, k)
		}
	}
	clear(l.Was)
	return changed, gone
}
