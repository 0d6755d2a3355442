package objectjson

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

func boolean(out []byte, p unsafe.Pointer) ([]byte, error) {
	return strconv.AppendBool(out, *(*bool)(p)), nil
}

func integer[T int | int8 | int16 | int32 | int64](out []byte, p unsafe.Pointer) ([]byte, error) {
	return strconv.AppendInt(out, int64(*(*T)(p)), 10), nil
}

func text(out []byte, p unsafe.Pointer) ([]byte, error) { return appendText(out, *(*string)(p)) }

// appendText quotes s. What needs escapes is rare, and encoding/json knows how.
func appendText(out []byte, s string) ([]byte, error) {
	if !plain(s) {
		raw, err := json.Marshal(s)
		return append(out, raw...), err
	}
	out = append(out, '"')
	out = append(out, s...)
	return append(out, '"'), nil
}

// plain says that s stands in JSON as it is.
func plain[T string | []byte](s T) bool {
	for i := range len(s) {
		if special[s[i]] {
			return false
		}
	}
	return true
}

// special are the bytes that encoding/json does not write as they are in a string.
var special = func() (t [256]bool) {
	for b := range t {
		t[b] = b < ' ' || b >= 0x7f || strings.IndexByte(`"\<>&`, byte(b)) >= 0
	}
	return t
}()

func pointer(elem writer) writer {
	return func(out []byte, p unsafe.Pointer) ([]byte, error) {
		to := *(*unsafe.Pointer)(p)
		if to == nil {
			return append(out, "null"...), nil
		}
		return elem(out, to)
	}
}

// slice is how Go keeps one.
type slice struct {
	first    unsafe.Pointer
	len, cap int
}

func list(size uintptr, elem writer) writer {
	return func(out []byte, p unsafe.Pointer) (_ []byte, err error) {
		s := (*slice)(p)
		if s.first == nil {
			return append(out, "null"...), nil
		}
		out = append(out, '[')
		for i := range s.len {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = elem(out, unsafe.Add(s.first, uintptr(i)*size)); err != nil {
				return out, err
			}
		}
		return append(out, ']'), nil
	}
}

// dictionary writes maps in the order of their keys.
func dictionary(t reflect.Type) writer {
	write := of(t.Elem())
	return func(out []byte, p unsafe.Pointer) (_ []byte, err error) {
		v := reflect.NewAt(t, p).Elem()
		if v.IsNil() {
			return append(out, "null"...), nil
		}
		type entry struct {
			key   string
			value unsafe.Pointer
		}
		var few [8]entry
		entries, values := few[:0], reflect.MakeSlice(reflect.SliceOf(t.Elem()), v.Len(), v.Len()) // a map's own are not addressable
		for it := v.MapRange(); it.Next(); {
			at := values.Index(len(entries))
			at.SetIterValue(it)
			entries = append(entries, entry{it.Key().String(), at.Addr().UnsafePointer()})
		}
		slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
		out = append(out, '{')
		for i, e := range entries {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = appendText(out, e.key); err != nil {
				return out, err
			}
			out = append(out, ':')
			if out, err = write(out, e.value); err != nil {
				return out, err
			}
		}
		return append(out, '}'), nil
	}
}
