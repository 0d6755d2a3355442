package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
)

// magic begins every protobuf value, as upstream stores it.
var magic = []byte("k8s\x00")

func isProtobuf(value []byte) bool { return bytes.HasPrefix(value, magic) }

// protoObject is what k8s.io/api's types can do.
type protoObject interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
	Unmarshal([]byte) error
}

// encode gives an object's stored bytes: the envelope, without resourceVersion and kind; JSON for what has no protobuf.
func encode(r *api.Resource, obj api.Object) ([]byte, error) {
	rv := obj.GetResourceVersion()
	obj.SetResourceVersion("")
	defer obj.SetResourceVersion(rv)
	if _, ok := obj.(protoObject); !ok {
		return json.Marshal(obj)
	}
	return marshalEnvelope(r.GVK(), obj)
}

// marshalEnvelope writes magic and runtime.Unknown{typeMeta, raw} in one buffer of the right size, back to front as protobuf allows.
func marshalEnvelope(gvk schema.GroupVersionKind, obj api.Object) ([]byte, error) {
	p, ok := obj.(protoObject)
	if !ok {
		return nil, fmt.Errorf("%s has no protobuf encoding", gvk.Kind)
	}
	apiVersion := gvk.GroupVersion().String()
	typeMeta := 2 + len(apiVersion) + 2 + len(gvk.Kind)
	size := p.Size()
	head := len(magic) + 2 + typeMeta + 1 + uvarintLen(size)
	out := make([]byte, 0, head+size+4)
	out = append(out, magic...)
	out = append(out, tag(1, 2), byte(typeMeta), tag(1, 2), byte(len(apiVersion)))
	out = append(out, apiVersion...)
	out = append(out, tag(2, 2), byte(len(gvk.Kind)))
	out = append(out, gvk.Kind...)
	out = append(out, tag(2, 2))
	out = binary.AppendUvarint(out, uint64(size))
	body := out[len(out) : len(out)+size]
	n, err := p.MarshalToSizedBuffer(body)
	if err != nil {
		return nil, err
	}
	if n != size {
		return nil, fmt.Errorf("%s changed while it was encoded", gvk.Kind)
	}
	// Upstream writes contentEncoding and contentType too, empty as they are.
	return append(out[:len(out)+size], tag(3, 2), 0, tag(4, 2), 0), nil
}

func tag(field, wireType int) byte { return byte(field<<3 | wireType) }

func uvarintLen(n int) int {
	return len(binary.AppendUvarint(nil, uint64(n)))
}

var errEnvelope = errors.New("the value is no valid envelope")

// rawOf finds the object's bytes within the envelope.
func rawOf(value []byte) (raw []byte, err error) {
	for rest := value[len(magic):]; len(rest) > 0; {
		key, n := binary.Uvarint(rest)
		if n <= 0 || key&7 != 2 {
			return nil, errEnvelope
		}
		rest = rest[n:]
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return nil, errEnvelope
		}
		body := rest[n : n+int(size)]
		rest = rest[n+int(size):]
		if key>>3 == 2 {
			raw = body
		}
	}
	if raw == nil {
		return nil, errEnvelope
	}
	return raw, nil
}

// decode makes an object of stored or wire bytes.
func decode(r *api.Resource, value []byte) (api.Object, error) {
	obj := r.New()
	if !isProtobuf(value) {
		if len(value) == 0 || value[0] != '{' {
			return nil, fmt.Errorf("the value is neither protobuf nor JSON (if it is encrypted, name its keys with --encryption-provider-config)")
		}
		if r.Decode != nil {
			return r.Decode(value)
		}
		return obj, json.Unmarshal(value, obj)
	}
	raw, err := rawOf(value)
	if err != nil {
		return nil, err
	}
	p, ok := obj.(protoObject)
	if !ok {
		return nil, fmt.Errorf("%s has no protobuf encoding", r.Kind)
	}
	return obj, p.Unmarshal(raw)
}

// withResourceVersion copies an envelope and appends the resourceVersion as one more metadata field: protobuf merges a message field that
// comes twice, and the last scalar wins. item is where the object's field begins, which is the last.
func withResourceVersion(value []byte, rev int64) (wire []byte, item int) {
	raw, err := rawOf(value)
	if err != nil {
		return bytes.Clone(value), 0
	}
	rv := strconv.FormatInt(rev, 10)
	const metadata, resourceVersion = 1, 6
	size := len(raw) + 4 + len(rv)
	start := headLength(value)
	out := make([]byte, 0, start+1+uvarintLen(size)+size)
	out = append(out, value[:start]...)
	out = append(out, tag(2, 2))
	out = binary.AppendUvarint(out, uint64(size))
	out = append(out, raw...)
	out = append(out, tag(metadata, 2), byte(2+len(rv)), tag(resourceVersion, 2), byte(len(rv)))
	return append(out, rv...), start
}

// headLength is where the envelope's first field that isn't typeMeta begins.
func headLength(value []byte) int {
	at := len(magic)
	for at < len(value) && value[at] == tag(1, 2) {
		size, n := binary.Uvarint(value[at+1:])
		at += 1 + n + int(size)
	}
	return at
}
