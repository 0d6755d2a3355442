package store

import (
	"context"
	"fmt"
	"sort"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"skiff.dev/skiff/internal/etcd"
)

// loadPage is how many keys one read of the start-up asks for.
const loadPage = 10000

// load reads everything below Prefix at one revision and makes memory equal to it. The first time that fills memory; later, after the watch was lost, the
// differences become events, so that watchers go on.
func (s *Store) load(ctx context.Context) error {
	if s.Revision() == 0 {
		return s.loadFirst(ctx)
	}
	found := make(map[string]rawValue)
	at, err := pages(ctx, s.cfg.Client, s.cfg.Prefix, func(kv *mvccpb.KeyValue) bool {
		found[string(kv.Key)] = rawValue{string(kv.Key), kv.Value, kv.ModRevision}
		return true
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range s.differences(found, at) {
		s.apply(ev)
	}
	s.advance(at)
	return nil
}

// pages reads everything below prefix at one revision, page by page, until visit has seen enough.
func pages(ctx context.Context, client *etcd.Client, prefix string, visit func(*mvccpb.KeyValue) bool) (at int64, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(loadPage)}
		if at != 0 {
			opts = append(opts, clientv3.WithRev(at))
		}
		resp, err := client.Get(ctx, from, opts...)
		if err != nil {
			return at, err
		}
		at = max(at, resp.Header.Revision)
		for _, kv := range resp.Kvs {
			if !visit(kv) {
				return at, nil
			}
		}
		if !resp.More {
			return at, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// differences lists, in the order of their revisions, the events that turn memory into found. Called with mu held.
func (s *Store) differences(found map[string]rawValue, at int64) []*clientv3.Event {
	var out []*clientv3.Event
	add := func(t mvccpb.Event_EventType, key string, v rawValue) {
		out = append(out, (*clientv3.Event)(&mvccpb.Event{Type: t, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: v.value, ModRevision: v.revision}}))
	}
	for key, v := range found {
		if c, name := s.collectionOf(key); c != nil {
			if old := c.get(name); old != nil && old.rev == v.revision {
				continue
			}
		}
		add(clientv3.EventTypePut, key, v)
	}
	for _, c := range s.collections {
		c.tree.Ascend(func(e *Entry) bool {
			if _, there := found[c.prefix+e.key]; !there {
				add(clientv3.EventTypeDelete, c.prefix+e.key, rawValue{revision: at})
			}
			return true
		})
	}
	s.unclaimed.Ascend(func(v rawValue) bool {
		if _, there := found[v.key]; !there {
			add(clientv3.EventTypeDelete, v.key, rawValue{revision: at})
		}
		return true
	})
	for key := range s.corrupt {
		if _, there := found[key]; !there {
			add(clientv3.EventTypeDelete, key, rawValue{revision: at})
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Kv.ModRevision < out[j].Kv.ModRevision })
	return out
}

// follow applies etcd's watch from the revision memory has reached, until it breaks or ctx ends.
func (s *Store) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := s.cfg.Client.Watch(ctx, s.cfg.Prefix, clientv3.WithPrefix(), clientv3.WithRev(s.Revision()+1), clientv3.WithProgressNotify())
	var check <-chan time.Time
	if s.cfg.DetectMutation {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		check = tick.C
	}
	for {
		select {
		case resp, open := <-events:
			if err := resp.Err(); err != nil {
				return err
			}
			if !open {
				return fmt.Errorf("etcd closed the watch")
			}
			s.applyAll(&resp)
		case <-check:
			if err := s.checkMutations(); err != nil {
				return err
			}
		}
	}
}

func (s *Store) applyAll(resp *clientv3.WatchResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range resp.Events {
		s.apply(ev)
	}
	rev := resp.Header.Revision
	if n := len(resp.Events); n > 0 {
		// The header may be ahead of events that are still on their way.
		rev = resp.Events[n-1].Kv.ModRevision
	}
	s.advance(rev)
}

// apply brings one event into memory and into its resource's log. Called with mu held.
func (s *Store) apply(ev *clientv3.Event) {
	key, rev := string(ev.Kv.Key), ev.Kv.ModRevision
	c, name := s.collectionOf(key)
	if c == nil {
		if ev.Type == clientv3.EventTypeDelete {
			s.unclaimed.Delete(rawValue{key: key})
		} else {
			s.unclaimed.ReplaceOrInsert(rawValue{key, ev.Kv.Value, rev})
		}
		return
	}
	old := c.get(name)
	if ev.Type == clientv3.EventTypeDelete {
		delete(s.corrupt, key)
		if old == nil {
			return
		}
		c.remove(old)
		c.announce(Event{Type: Deleted, Entry: old.at(rev), Prev: old, Revision: rev})
		return
	}
	e := s.entryFor(c, key, name, ev.Kv)
	if e == nil {
		return
	}
	c.insert(e)
	if old == nil {
		c.announce(Event{Type: Added, Entry: e, Revision: rev})
	} else {
		c.announce(Event{Type: Modified, Entry: e, Prev: old, Revision: rev})
	}
}

// entryFor makes the entry of a put: of the object that this process is writing, if the put is that write; else of the bytes.
func (s *Store) entryFor(c *Collection, key, name string, kv *mvccpb.KeyValue) *Entry {
	if p := s.pending[key]; p != nil && p.is(kv.Value) {
		delete(s.corrupt, key)
		e := newEntry(c, name, kv.ModRevision, p.obj, p.value)
		e.rule, p.entry = p.rule, e
		return e
	}
	raw := rawValue{key, kv.Value, kv.ModRevision}
	e, err := c.decode(raw)
	return s.decoded(raw, e, err)
}
