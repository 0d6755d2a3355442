package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"

	"skiff.dev/skiff/internal/etcd"
)

// Transform gives what a resource's values are put through on their way to etcd and back; nil where they are stored as they are. What comes out is
// bound to the etcd key, so that a value which was moved to another key can't be read. The number is that of the rule, which is another once the rule has changed.
type Transform func(schema.GroupResource) (t value.Transformer, rule uint32)

// transformPatience bounds a question to a key management service: memory waits for the answer.
const transformPatience = 10 * time.Second

// sealedMark begins every value that is encrypted, as upstream stores it: what, which version and which key follow ("aesgcm:v1:key1:").
var sealedMark = []byte("k8s:enc:")

// Sealed finds an encrypted value below prefix: its key, and what encrypted it; both are "" if there is none.
func Sealed(ctx context.Context, client *etcd.Client, prefix string) (key, by string, err error) {
	_, err = pages(ctx, client, prefix, func(kv *mvccpb.KeyValue) bool {
		if !bytes.HasPrefix(kv.Value, sealedMark) {
			return true
		}
		key, by = string(kv.Key), sealedBy(kv.Value)
		return false
	})
	return key, by, err
}

// sealedBy is the part of an encrypted value that says how it was: "k8s:enc:aesgcm:v1:key1".
func sealedBy(value []byte) string {
	head := bytes.SplitN(value[:min(len(value), 200)], []byte(":"), 6)
	return string(bytes.Join(head[:min(len(head), 5)], []byte(":")))
}

func (c *Collection) atRest() (t value.Transformer, rule uint32) {
	if c.s.cfg.AtRest == nil {
		return nil, 0
	}
	return c.s.cfg.AtRest(c.Resource().GroupResource())
}

// Stale says that the entry's value should be written again although its object stays the same: it is not encrypted as it should be, or the rule for that has
// changed since.
func (c *Collection) Stale(e *Entry) bool {
	_, rule := c.atRest()
	return e.stale || e.rule != rule
}

// seal gives the bytes that etcd gets, and by which rule.
func (c *Collection) seal(ctx context.Context, full string, plain []byte) (sealed []byte, rule uint32, err error) {
	t, rule := c.atRest()
	if t == nil {
		return plain, rule, nil
	}
	sealed, err = t.TransformToStorage(ctx, plain, value.DefaultContext(full))
	return sealed, rule, err
}

// unseal gives the encoding of what etcd has. stale says that it would be written differently by the rule.
func (c *Collection) unseal(full string, stored []byte) (plain []byte, stale bool, rule uint32, err error) {
	t, rule := c.atRest()
	if t == nil {
		return stored, false, rule, nil
	}
	plain, stale, err = unseal(t, full, stored)
	return plain, stale, rule, err
}

func unseal(t value.Transformer, full string, stored []byte) (plain []byte, stale bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), transformPatience)
	defer cancel()
	plain, stale, err = t.TransformFromStorage(ctx, stored, value.DefaultContext(full))
	if err != nil {
		return nil, false, fmt.Errorf("decrypt the value: %w", err)
	}
	return plain, stale, nil
}

// Readable says which encrypted value other rules could not decrypt, of those that the present ones can: before they take the present ones' place.
func (s *Store) Readable(ctx context.Context, rules Transform) (err error) {
	_, failed := pages(ctx, s.cfg.Client, s.cfg.Prefix, func(kv *mvccpb.KeyValue) bool {
		full := string(kv.Key)
		if !bytes.HasPrefix(kv.Value, sealedMark) {
			return true
		}
		s.mu.RLock()
		c, _ := s.collectionOf(full)
		_, known := s.corrupt[full]
		s.mu.RUnlock()
		if c == nil || known {
			return true
		}
		t, _ := rules(c.Resource().GroupResource())
		if t == nil {
			err = fmt.Errorf("%s is encrypted (%s), and nothing is said of %s any more", full, sealedBy(kv.Value), c.Resource().GroupResource())
		} else if _, _, err = unseal(t, full, kv.Value); err != nil {
			err = fmt.Errorf("%s (%s): %w", full, sealedBy(kv.Value), err)
		}
		return err == nil
	})
	if failed != nil {
		return fmt.Errorf("read the encrypted values: %w", failed)
	}
	return err
}

// Retry reads again what could not be decoded, now that it may: another server's key has come to be known.
func (s *Store) Retry(ctx context.Context) error {
	for full := range s.Corrupt() {
		resp, err := s.cfg.Client.Get(ctx, full)
		if err != nil {
			return fmt.Errorf("read %s again: %w", full, err)
		}
		if len(resp.Kvs) == 1 {
			s.retry(full, rawValue{full, resp.Kvs[0].Value, resp.Kvs[0].ModRevision})
		}
	}
	return nil
}

func (s *Store) retry(full string, raw rawValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, name := s.collectionOf(full)
	if _, unread := s.corrupt[full]; c == nil || !unread {
		return // there is a newer value, or none, since
	}
	e, err := c.decodeSafely(raw)
	if err != nil {
		s.corrupt[full] = unreadable{raw.revision, err}
		return
	}
	delete(s.corrupt, full)
	switch old := c.get(name); {
	case old == nil:
		c.insert(e)
		c.announce(Event{Type: Added, Entry: e, Revision: s.revision})
	case old.rev < e.rev:
		c.insert(e)
		c.announce(Event{Type: Modified, Entry: e, Prev: old, Revision: s.revision})
	}
}
