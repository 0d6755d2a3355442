package store

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// loadFirst fills memory, which is empty, with everything below Prefix. Nobody hears of it: watches begin at the revision that is reached.
func (s *Store) loadFirst(ctx context.Context) error {
	var found []rawValue
	at, err := pages(ctx, s.cfg.Client, s.cfg.Prefix, func(kv *mvccpb.KeyValue) bool {
		found = append(found, rawValue{string(kv.Key), kv.Value, kv.ModRevision})
		return true
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(found) > 0 { // in the order of keys, so what belongs together comes together
		n := 1
		if c, _ := s.collectionOf(found[0].key); c == nil {
			s.unclaimed.ReplaceOrInsert(found[0])
		} else {
			for n < len(found) && strings.HasPrefix(found[n].key, c.prefix) {
				n++
			}
			s.fill(c, found[:n])
		}
		found = found[n:]
	}
	s.advance(at)
	for _, c := range s.collections {
		c.log.reset(at)
	}
	return nil
}

// fillChunk is how many values a processor takes at a time: objects that were made alike have keys that are, and share parts best when they are decoded together.
const fillChunk = 64

// fill puts what stored values are into a collection, decoding with all processors. Called with mu held.
func (s *Store) fill(c *Collection, raws []rawValue) {
	entries, errs := make([]*Entry, len(raws)), make([]error, len(raws))
	var next atomic.Int64
	work := func() {
		for {
			end := int(next.Add(fillChunk))
			for i := end - fillChunk; i < min(end, len(raws)); i++ {
				entries[i], errs[i] = c.decodeSafely(raws[i])
			}
			if end >= len(raws) {
				return
			}
		}
	}
	var helpers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(raws)+fillChunk-1)/fillChunk) - 1 {
		helpers.Go(work)
	}
	work()
	helpers.Wait()
	for i, raw := range raws {
		if e := s.decoded(raw, entries[i], errs[i]); e != nil {
			c.insert(e)
		}
	}
}

// decodeSafely is decode where nobody above would recover: a value that makes it panic is one that can't be decoded.
func (c *Collection) decodeSafely(raw rawValue) (e *Entry, err error) {
	defer func() {
		if p := recover(); p != nil {
			e, err = nil, fmt.Errorf("decoding it panicked: %v", p)
		}
	}()
	return c.decode(raw)
}

// decode makes an entry of a stored value.
func (c *Collection) decode(raw rawValue) (*Entry, error) {
	plain, stale, rule, err := c.unseal(raw.key, raw.value)
	if err != nil {
		return nil, err
	}
	e, err := decodeEntry(c, raw.key[len(c.prefix):], plain, raw.revision)
	if err != nil {
		return nil, err
	}
	e.stale, e.rule = stale, rule
	return e, nil
}

// decoded is the entry that a value was decoded to. A value that can't be is logged, remembered and left out. Called with mu held.
func (s *Store) decoded(raw rawValue, e *Entry, err error) *Entry {
	if err != nil {
		s.corrupt[raw.key] = unreadable{raw.revision, err}
		s.cfg.Log.Error("a stored object can't be read and is left out; restore it from a snapshot or delete it with ignoreStoreReadErrorWithClusterBreakingPotential",
			"key", raw.key, "err", err)
		return nil
	}
	delete(s.corrupt, raw.key)
	return e
}
