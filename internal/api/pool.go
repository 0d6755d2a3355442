package api

import (
	"encoding/binary"
	"slices"
	"sync"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pool knows parts of objects that were seen lately, so that objects which have them alike (a ReplicaSet's pods, everybody's default tolerations) can have the
// same ones. Parts in it are shared and never changed. It forgets: a place is taken by the next part that falls on it. The zero value is ready.
//
// Its methods' callers hold it: a row's Share runs between Lock and Unlock.
type Pool struct {
	sync.Mutex
	places  [1024]place
	texts   [1024]string
	scratch []byte
}

type place struct {
	key  string // the part's encoding
	part any
}

// marshaler is a part that has a protobuf encoding.
type marshaler interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
}

// put appends a part's encoding to the scratch buffer; false if it has none.
func (p *Pool) put(m marshaler) bool {
	n := m.Size()
	p.scratch = binary.AppendUvarint(p.scratch, uint64(n))
	at := len(p.scratch)
	p.scratch = slices.Grow(p.scratch, n)[:at+n]
	got, err := m.MarshalToSizedBuffer(p.scratch[at:])
	return err == nil && got == n
}

// seen is the part with the encoding in the scratch buffer that was seen before, or this one. Parts of different types may be encoded alike.
func seen[T any](p *Pool, part T) T {
	at := &p.places[xxhash.Sum64(p.scratch)%uint64(len(p.places))]
	if at.key == string(p.scratch) {
		if known, ok := at.part.(T); ok {
			return known
		}
	}
	*at = place{string(p.scratch), part}
	return part
}

// sharedPart is *v as it was seen before. A nil stays one.
func sharedPart[T any, P interface {
	*T
	marshaler
}](p *Pool, v **T) {
	if *v == nil {
		return
	}
	p.scratch = p.scratch[:0]
	if p.put(P(*v)) {
		*v = seen(p, *v)
	}
}

// sharedList is a list of parts as it was seen before.
func sharedList[T any, P interface {
	*T
	marshaler
}](p *Pool, list *[]T) {
	if len(*list) == 0 {
		return
	}
	p.scratch = p.scratch[:0]
	for i := range *list {
		if !p.put(P(&(*list)[i])) {
			return
		}
	}
	*list = seen(p, *list)
}

// sharedMap is a map as it was seen before.
func sharedMap(p *Pool, m *map[string]string) {
	if len(*m) == 0 {
		return
	}
	var buf [16]string
	keys := buf[:0]
	for k := range *m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	p.scratch = p.scratch[:0]
	for _, k := range keys {
		p.putText(k)
		p.putText((*m)[k])
	}
	*m = seen(p, *m)
}

// sharedTexts is a list of strings as it was seen before.
func sharedTexts(p *Pool, list *[]string) {
	if len(*list) == 0 {
		return
	}
	p.scratch = p.scratch[:0]
	for _, s := range *list {
		p.putText(s)
	}
	*list = seen(p, *list)
}

func (p *Pool) putText(s string) {
	p.scratch = append(binary.AppendUvarint(p.scratch, uint64(len(s))), s...)
}

// sharedText is a string with the bytes of an equal one that was seen before.
func sharedText[S ~string](p *Pool, s *S) {
	if *s == "" {
		return
	}
	at := &p.texts[xxhash.Sum64String(string(*s))%uint64(len(p.texts))]
	if *at != string(*s) {
		*at = string(*s)
	}
	*s = S(*at)
}

// sameList says that two lists are one in memory: what holds it is shared already, and must not be written to.
func sameList[T any](a, b []T) bool { return unsafe.SliceData(a) == unsafe.SliceData(b) }

// shareMeta shares what objects that were made alike have alike.
func shareMeta(m, was *metav1.ObjectMeta, p *Pool) {
	sharedText(p, &m.Namespace)
	sharedText(p, &m.GenerateName)
	sharedMap(p, &m.Labels)
	sharedMap(p, &m.Annotations)
	sharedList(p, &m.OwnerReferences)
	sharedTexts(p, &m.Finalizers)
	if sameList(m.ManagedFields, was.ManagedFields) {
		return
	}
	for i := range m.ManagedFields {
		e := &m.ManagedFields[i]
		sharedText(p, &e.Manager)
		sharedText(p, &e.Operation)
		sharedText(p, &e.APIVersion)
		sharedText(p, &e.FieldsType)
		sharedText(p, &e.Subresource)
		sharedPart(p, &e.FieldsV1)
	}
}
