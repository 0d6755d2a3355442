package store

import (
	"bytes"
	"strconv"

	"skiff.dev/skiff/internal/api"
)

// Custom resources are kept as the JSON that they are stored as, with the resourceVersion put in. They are decoded on use, and shown in the version
// and by the schema that somebody asks for; what that makes of an entry is kept with it.

// view is an entry as one row shows it.
type view struct {
	row   *api.Resource
	entry *Entry
}

// Viewed is what SetViewed noted for a row, or nil.
func (e *Entry) Viewed(row *api.Resource) *Entry {
	if v := e.view.Load(); v != nil && v.row == row {
		return v.entry
	}
	return nil
}

// SetViewed notes how a row shows the entry, and returns that: the entry itself if obj, which was made of it, is the same. Entries remember one
// row's view, which is enough where most clients speak one version.
func (e *Entry) SetViewed(row *api.Resource, obj api.Object) *Entry {
	shown := &Entry{res: row, key: e.key, rev: e.rev, obj: obj}
	if stored, err := encode(row, obj); err == nil {
		if body := jsonWithResourceVersion(stored, e.rev); body != nil {
			shown.obj = nil
			shown.json.Store(&body)
			if own := e.json.Load(); own != nil && bytes.Equal(*own, body) {
				shown = e
			}
		}
	}
	e.view.Store(&view{row, shown})
	return shown
}

// ShownAsIs notes that a row shows the entry as it is stored: it was just written by that row's rules.
func (e *Entry) ShownAsIs(row *api.Resource) { e.view.Store(&view{row, e}) }

// jsonWithResourceVersion copies a stored object and puts its resourceVersion first in its metadata; nil if it has none to put it into.
func jsonWithResourceVersion(stored []byte, rev int64) []byte {
	at := metadataAt(stored)
	if at < 0 {
		return nil
	}
	stored = bytes.TrimRight(stored, "\n")
	out := make([]byte, 0, len(stored)+len(`"resourceVersion":"",`)+20)
	out = append(out, stored[:at]...)
	out = append(out, `"resourceVersion":"`...)
	out = strconv.AppendInt(out, rev, 10)
	out = append(out, `",`...)
	return append(out, stored[at:]...)
}

// metadataAt finds where the first field of the object's own metadata begins; -1 if there is none.
func metadataAt(b []byte) int {
	const key = `"metadata"`
	depth, i := 0, 0
	for i < len(b) {
		switch b[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := stringEnd(b, i)
			if depth == 1 && string(b[i:end]) == key {
				return fieldsAt(b, end)
			}
			i = end
			continue
		}
		i++
	}
	return -1
}

// stringEnd is where the string that begins at i has ended.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// fieldsAt is where the first field of the object behind a key begins.
func fieldsAt(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case ' ', '\t', '\n', '\r', ':', '{':
		case '"':
			return i
		default:
			return -1
		}
	}
	return -1
}
