package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"strconv"
	"sync"
	"sync/atomic"
	"weak"

	"k8s.io/apimachinery/pkg/runtime"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/objectjson"
)

// Encoding of an object on the wire.
type Encoding int

// The encodings that are shared.
const (
	JSON     Encoding = iota
	Protobuf          // the k8s\0 envelope with runtime.Unknown
)

// Entry is one object at one revision. It is immutable and shared: nobody changes Object's result or Bytes'.
type Entry struct {
	res   *api.Resource
	key   string
	rev   int64
	stale bool   // stored in another way than the rule of its time would have it
	rule  uint32 // by which its value was encrypted or decrypted
	// obj is nil for cold kinds, which are decoded when asked for.
	obj api.Object
	// wire is the protobuf encoding with the resourceVersion in it, or nil for what protobuf can't say (custom resources), which has json instead.
	wire []byte
	item int // where in wire the object's field begins, up to its end; 0: look for it
	json atomic.Pointer[[]byte]
	// recent is the JSON of what has a wire encoding, until the next garbage collection that finds nobody writing it: readers of JSON who come together
	// share it, and it is not held for those who may never come.
	recent atomic.Pointer[weak.Pointer[[]byte]]
	view   atomic.Pointer[view]
	sum    uint64 // of obj, when mutations are looked for
}

// newEntry makes the entry of an object with its stored bytes. The object gets its resourceVersion and kind here, before anybody shares it.
func newEntry(c *Collection, key string, rev int64, obj api.Object, stored []byte) *Entry {
	e := &Entry{res: c.Resource(), key: key, rev: rev}
	if isProtobuf(stored) {
		e.wire, e.item = withResourceVersion(stored, rev)
	}
	if c.Resource().Cold && e.wire != nil {
		return e
	}
	if isFree(obj) {
		if wire := jsonWithResourceVersion(stored, rev); wire != nil {
			e.json.Store(&wire)
			return e
		}
	}
	stamp(c.Resource(), obj, rev)
	e.obj = obj
	if c.s.cfg.DetectMutation {
		e.sum = e.hash()
	}
	return e
}

func decodeEntry(c *Collection, key string, value []byte, rev int64) (*Entry, error) {
	obj, err := decode(c.Resource(), value)
	if err != nil {
		return nil, err
	}
	if p, ok := obj.(protoObject); ok && !completeAs(c.Resource(), obj, p, value) {
		if value, err = marshalEnvelope(c.Resource().GVK(), obj); err != nil {
			return nil, err
		}
	}
	c.share(obj, nil)
	return newEntry(c, key, rev, obj, value), nil
}

// completeAs fills the defaults that an object was stored without, by an older version or by another program, and says whether value is the encoding of
// what it is then. JSON, which upstream keeps a few kinds as, never is: the same encodings are shared as of all others.
func completeAs(r *api.Resource, obj api.Object, p protoObject, value []byte) bool {
	if r.Default == nil {
		return isProtobuf(value)
	}
	r.Default(obj)
	if !isProtobuf(value) {
		return false
	}
	raw, err := rawOf(value)
	if err != nil || p.Size() != len(raw) {
		return false
	}
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	*buf = append((*buf)[:0], raw...)
	n, err := p.MarshalToSizedBuffer(*buf)
	return err == nil && n == len(raw) && bytes.Equal(*buf, raw)
}

// scratch is what encodings are compared in.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// isFree says that an object has no Go type of its own: it is its JSON.
func isFree(obj api.Object) bool {
	_, free := obj.(runtime.Unstructured)
	return free
}

// stamp sets what is not stored: the resourceVersion and the kind. A custom resource's kind is stored, for it may be of an older version.
func stamp(r *api.Resource, obj api.Object, rev int64) {
	obj.SetResourceVersion(strconv.FormatInt(rev, 10))
	if !isFree(obj) {
		obj.GetObjectKind().SetGroupVersionKind(r.GVK())
	}
}

// NewEntry wraps an object that isn't in the store (a dry run's result, a converted version), so that all is encoded alike.
func NewEntry(r *api.Resource, obj api.Object) *Entry {
	rev, _ := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	key := obj.GetName()
	if ns := obj.GetNamespace(); ns != "" {
		key = ns + "/" + key
	}
	return &Entry{res: r, key: key, rev: rev, obj: obj}
}

// Key is the key below the resource's: "default/web-1", or "node-1".
func (e *Entry) Key() string { return e.key }

// Revision is the one at which the entry was written.
func (e *Entry) Revision() int64 { return e.rev }

// Object is the entry's object, with resourceVersion, apiVersion and kind set. It is shared; of a cold kind it is decoded anew on each call.
func (e *Entry) Object() api.Object {
	if e.obj != nil {
		return e.obj
	}
	stored := e.wire
	if stored == nil {
		stored = *e.json.Load()
	}
	obj, err := decode(e.res, stored)
	if err != nil {
		// The same bytes were decoded when they came into memory.
		panic(fmt.Sprintf("%s %s can no longer be decoded: %v", e.res.Kind, e.key, err))
	}
	stamp(e.res, obj, e.rev)
	return obj
}

// Bytes is the object's encoding, made once and shared by everyone who asks at about the same time. JSON has no trailing newline.
func (e *Entry) Bytes(enc Encoding) ([]byte, error) {
	switch enc {
	case Protobuf:
		if e.wire != nil {
			return e.wire, nil
		}
		return marshalEnvelope(e.res.GVK(), e.Object())
	case JSON:
		return e.asJSON()
	}
	return nil, fmt.Errorf("unknown encoding %d", enc)
}

func (e *Entry) asJSON() ([]byte, error) {
	if b := e.json.Load(); b != nil {
		return *b, nil
	}
	if w := e.recent.Load(); w != nil {
		if b := w.Value(); b != nil {
			return *b, nil
		}
	}
	b, err := objectjson.Marshal(e.Object())
	switch {
	case err != nil:
		return nil, err
	case e.wire == nil:
		e.json.Store(&b)
	default:
		w := weak.Make(&b)
		e.recent.Store(&w)
	}
	return b, nil
}

// at is the same object as it left at a later revision: what a Deleted event carries.
func (e *Entry) at(rev int64) *Entry {
	out := &Entry{res: e.res, key: e.key, rev: rev}
	if e.wire != nil {
		out.wire, out.item = withResourceVersion(e.wire, rev)
		if e.obj == nil {
			return out
		}
	}
	out.obj = e.Object()
	if e.obj != nil {
		out.obj = e.obj.DeepCopyObject().(api.Object)
	}
	stamp(e.res, out.obj, rev)
	if isFree(out.obj) {
		if stored, err := encode(e.res, out.obj); err == nil {
			if body := jsonWithResourceVersion(stored, rev); body != nil {
				out.json.Store(&body)
				out.obj = nil
			}
		}
	}
	return out
}

// Own is a copy of the entry's object that is the caller's to change.
func (e *Entry) Own() api.Object {
	if e.obj != nil {
		return e.obj.DeepCopyObject().(api.Object)
	}
	return e.Object()
}

// size is roughly what the entry holds in memory.
func (e *Entry) size() int {
	n := 200 + len(e.key) + len(e.wire)
	if e.obj != nil {
		n += 2*len(e.wire) + 500
	} else if body := e.json.Load(); body != nil {
		n += len(*body)
	}
	return n
}

var seed = maphash.MakeSeed()

// hash covers everything of the object that is encoded.
func (e *Entry) hash() uint64 {
	m, ok := e.obj.(runtime.ProtobufMarshaller)
	if !ok {
		return 0
	}
	buf := make([]byte, e.obj.(interface{ Size() int }).Size())
	n, err := m.MarshalTo(buf)
	if err != nil {
		return 0
	}
	return maphash.Bytes(seed, buf[:n])
}

// mutationError says that somebody changed a shared object.
type mutationError struct{ kind, key string }

func (e *mutationError) Error() string {
	return fmt.Sprintf("a shared object was changed: %s %s; copy objects before changing them", e.kind, e.key)
}

// checkMutations finds a shared object that is not what it was.
func (s *Store) checkMutations() error {
	if !s.cfg.DetectMutation {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var err error
	for _, c := range s.collections {
		c.tree.Ascend(func(e *Entry) bool {
			if e.obj != nil && e.sum != 0 && e.hash() != e.sum {
				err = &mutationError{c.Resource().Kind, e.key}
			}
			return err == nil
		})
	}
	return err
}

// ProtobufItem is the object as an item of a list of its kind. That is the envelope's own field for the object: both are fields with the number 2,
// and it is the envelope's last.
func (e *Entry) ProtobufItem() ([]byte, error) {
	if e.item > 0 {
		return e.wire[e.item:], nil
	}
	b, err := e.Bytes(Protobuf)
	if err != nil {
		return nil, err
	}
	raw, err := rawOf(b)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, 1+binary.MaxVarintLen64+len(raw))
	out = binary.AppendUvarint(append(out, tag(2, 2)), uint64(len(raw)))
	return append(out, raw...), nil
}
