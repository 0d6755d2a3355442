package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

func (c *call) list() {
	o, err := parameters[metainternalversion.ListOptions](c.r)
	if err != nil {
		c.fail(err)
		return
	}
	f, err := negotiateFor(c.r, c.q)
	if err != nil {
		c.fail(err)
		return
	}
	page, err := c.s.reg.List(c.r.Context(), c.q, o)
	c.q.Steps.Done("read")
	if err != nil {
		c.fail(err)
		return
	}
	entries, err := c.q.Show(c.r.Context(), page.Entries)
	c.q.Steps.Done("convert")
	if err != nil {
		c.fail(err)
		return
	}
	meta := metav1.ListMeta{Continue: page.Continue, RemainingItemCount: page.Remaining}
	if page.Revision > 0 { // what is not stored has none
		meta.ResourceVersion = strconv.FormatInt(page.Revision, 10)
	}
	c.writeList(f, entries, meta)
}

// writeList answers with many objects, in the shape that is wanted.
func (c *call) writeList(f format, entries []*store.Entry, meta metav1.ListMeta) {
	if audit.WantsResponse(c.r.Context()) {
		c.recordList(entries, meta)
	}
	if len(entries) >= bigList && (f.as != "" || f.media == mediaYAML || f.pretty) {
		release, err := c.s.shaping(c.r.Context())
		if err != nil {
			c.fail(err)
			return
		}
		defer release()
	}
	var err error
	switch {
	case f.as != "":
		shaped, err := shape(c.r, f, c.q, entries, &meta)
		if err != nil {
			c.fail(err)
			return
		}
		body, err := encode(shaped, f.media)
		if err != nil {
			c.fail(apierrors.NewInternalError(err))
			return
		}
		writeBody(c.w, http.StatusOK, f, body)
	case f.media == mediaProtobuf:
		err = c.writeProtobufList(entries, meta)
	default:
		err = c.writeJSONList(f, entries, meta)
	}
	if err != nil {
		c.s.log.Debug("a list was not written to its end", "err", err)
	}
}

// bigList is how long a list is before few may be put together at a time. Lists that are spliced of shared encodings take no memory of their own.
const bigList = 500

// bigLists is how many big lists are put together at once.
const bigLists = 2

// shaping waits for its turn to put a big list together.
func (s *Server) shaping(ctx context.Context) (release func(), err error) {
	select {
	case s.shapes <- struct{}{}:
		return func() { <-s.shapes }, nil
	case <-ctx.Done():
		return nil, apierrors.NewTooManyRequests("too many long lists are being made; take protobuf or JSON of whole objects, or pages", 1)
	}
}

// recordList puts a list together for the audit log.
func (c *call) recordList(entries []*store.Entry, meta metav1.ListMeta) {
	apiVersion, kind := listKind(c.q)
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": apiVersion, "kind": kind}}
	list.SetResourceVersion(meta.ResourceVersion)
	list.SetContinue(meta.Continue)
	for _, e := range entries {
		if content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(e.Own()); err == nil {
			list.Items = append(list.Items, unstructured.Unstructured{Object: content})
		}
	}
	audit.Response(c.r.Context(), list)
}

// spoken is the row of the version that a request speaks.
func spoken(q *registry.Request) *api.Resource {
	if q.Served != nil {
		return q.Served.Row()
	}
	return q.Resource
}

// listKind names the list of a request's resource.
func listKind(q *registry.Request) (apiVersion, kind string) {
	row := spoken(q)
	return row.GVK().GroupVersion().String(), listKindOf(row)
}

// writeJSONList splices the items' shared encodings into a list.
func (c *call) writeJSONList(f format, entries []*store.Entry, meta metav1.ListMeta) error {
	apiVersion, kind := listKind(c.q)
	head, err := json.Marshal(struct {
		Kind       string          `json:"kind"`
		APIVersion string          `json:"apiVersion"`
		Metadata   metav1.ListMeta `json:"metadata"`
	}{kind, apiVersion, meta})
	if err != nil {
		return err
	}
	size := len(head) + len(`,"items":[]}`)
	out := c.splice(len(entries))
	defer out.end()
	named := prefixOf(spoken(c.q))
	bodies := make([][]byte, len(entries))
	for i, e := range entries {
		if bodies[i], err = e.Bytes(store.JSON); err != nil {
			c.fail(apierrors.NewInternalError(err))
			return err
		}
		if err = out.pause(i); err != nil {
			c.fail(apierrors.NewTimeoutError("too many long lists are being made; take protobuf, or pages", 1))
			return err
		}
		bodies[i] = named.without(bodies[i])
		size += len(bodies[i]) + 1
	}
	if f.media == mediaYAML || f.pretty {
		buf := make([]byte, 0, size)
		buf = append(append(buf, head[:len(head)-1]...), `,"items":[`...)
		for i, b := range bodies {
			buf = append(append(buf, before(i, b)...), b...)
		}
		buf = append(buf, "]}"...)
		if f.media == mediaYAML {
			if buf, err = toYAML(buf); err != nil {
				return err
			}
		}
		writeBody(c.w, http.StatusOK, f, buf)
		return nil
	}
	c.w.Header().Set("Content-Type", mediaJSON)
	c.w.WriteHeader(http.StatusOK)
	_, _ = out.Write(head[:len(head)-1])
	_, _ = out.WriteString(`,"items":[`)
	for i, b := range bodies {
		_, _ = out.WriteString(before(i, b))
		_, _ = out.Write(b)
	}
	_, _ = out.WriteString("]}\n")
	return out.Flush()
}

// kindPrefix is how the encoding of an object begins that says its kind first, as those do that have a Go type.
type kindPrefix []byte

// prefixOf is how the items of a resource's lists begin. Upstream's lists of what has a Go type name the kind once; custom resources say theirs each time,
// and so their prefix is empty.
func prefixOf(r *api.Resource) kindPrefix {
	if r.Custom != nil {
		return nil
	}
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,`, r.Kind, r.GVK().GroupVersion().String())
}

// before is what stands before the i-th item of a list.
func before(i int, item []byte) string {
	bare := len(item) > 0 && item[0] != '{'
	switch {
	case i == 0 && bare:
		return "{"
	case i == 0:
		return ""
	case bare:
		return ",{"
	}
	return ","
}

// without is the object without its kind and without the brace before it: a part of what is shared, not a copy.
func (p kindPrefix) without(object []byte) []byte {
	if len(p) > 0 && bytes.HasPrefix(object, p) {
		return object[len(p):]
	}
	return object
}

// writeProtobufList writes runtime.Unknown{typeMeta, raw: list{metadata, items…}} around the items' shared encodings, each of which is a field of the
// list already.
func (c *call) writeProtobufList(entries []*store.Entry, meta metav1.ListMeta) error {
	apiVersion, kind := listKind(c.q)
	metadata, err := meta.Marshal()
	if err != nil {
		return err
	}
	size := field(len(metadata))
	items := make([][]byte, len(entries))
	for i, e := range entries {
		if items[i], err = e.ProtobufItem(); err != nil {
			c.fail(apierrors.NewInternalError(err))
			return err
		}
		size += len(items[i])
	}
	var head []byte
	head = append(head, "k8s\x00"...)
	typeMeta := appendField(appendField(nil, 1, []byte(apiVersion)), 2, []byte(kind))
	head = appendField(head, 1, typeMeta)
	head = append(head, 2<<3|2)
	head = binary.AppendUvarint(head, uint64(size))
	head = appendField(head, 1, metadata)
	c.w.Header().Set("Content-Type", mediaProtobuf)
	c.w.WriteHeader(http.StatusOK)
	out := c.splice(len(entries))
	defer out.end()
	_, _ = out.Write(head)
	for _, b := range items {
		_, _ = out.Write(b)
	}
	_, _ = out.Write([]byte{3<<3 | 2, 0, 4<<3 | 2, 0})
	return out.Flush()
}

// frameBytes fill an HTTP/2 frame of the size that clients take to a whole TLS record: with the frame's nine bytes of head it is one record, one system
// call. A byte more would be two of each.
const frameBytes = 16<<10 - 9

var frames = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, frameBytes) }}

// spliced is the body of a list on its way: whole frames, and in turns where the list is long.
type spliced struct {
	*bufio.Writer
	turn *turn // nil: the list is short
}

// splice begins the body of a list with so many items; end must be called.
func (c *call) splice(items int) spliced {
	out := spliced{Writer: frames.Get().(*bufio.Writer)}
	if items < bigList {
		out.Reset(c.w)
		return out
	}
	out.turn = c.s.lists.begin(c.r.Context(), c.w)
	out.Reset(out.turn)
	return out
}

// pause lets others have their turn while the items of a long list are encoded; i is the number of one.
func (b spliced) pause(i int) error {
	const items = 64
	if b.turn == nil || i%items != 0 {
		return nil
	}
	return b.turn.step(turnBytes / 4)
}

func (b spliced) end() {
	if b.turn != nil {
		b.turn.end()
	}
	b.Reset(nil)
	frames.Put(b.Writer)
}

// field is how long a length-delimited field of n bytes is, with a tag of one byte.
func field(n int) int {
	return 1 + len(binary.AppendUvarint(nil, uint64(n))) + n
}

func appendField(b []byte, number int, v []byte) []byte {
	b = append(b, byte(number<<3|2))
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}
