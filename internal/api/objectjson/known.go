package objectjson

import (
	"encoding/json"
	"hash/maphash"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// known are the types that marshal themselves and that objects are full of, and maps of strings.
var known = map[reflect.Type]writer{
	reflect.TypeFor[metav1.Time]():        moment(time.RFC3339),
	reflect.TypeFor[metav1.MicroTime]():   moment(metav1.RFC3339Micro),
	reflect.TypeFor[resource.Quantity]():  quantity,
	reflect.TypeFor[intstr.IntOrString](): intOrString,
	reflect.TypeFor[metav1.FieldsV1]():    fieldSet,
	reflect.TypeFor[map[string]string]():  labels,
}

// moment is for metav1's two kinds of time, which are structs around one of Go's.
func moment(layout string) writer {
	return func(out []byte, p unsafe.Pointer) ([]byte, error) {
		t := *(*time.Time)(p)
		if t.IsZero() {
			return append(out, "null"...), nil
		}
		out = append(out, '"')
		out = t.UTC().AppendFormat(out, layout)
		return append(out, '"'), nil
	}
}

func quantity(out []byte, p unsafe.Pointer) ([]byte, error) {
	raw, err := (*resource.Quantity)(p).MarshalJSON()
	if err != nil || len(raw) < 2 || !plain(raw[1:len(raw)-1]) {
		return other(reflect.TypeFor[resource.Quantity]())(out, p)
	}
	return append(out, raw...), nil
}

func intOrString(out []byte, p unsafe.Pointer) ([]byte, error) {
	switch i := (*intstr.IntOrString)(p); i.Type {
	case intstr.Int:
		return strconv.AppendInt(out, int64(i.IntVal), 10), nil
	case intstr.String:
		return appendText(out, i.StrVal)
	}
	return other(reflect.TypeFor[intstr.IntOrString]())(out, p)
}

// fieldSet writes a set of fields, which nearly always is JSON already and as short as can be.
func fieldSet(out []byte, p unsafe.Pointer) ([]byte, error) {
	raw, err := (*metav1.FieldsV1)(p).MarshalJSON()
	if err != nil || !wellFormed(raw) {
		return other(reflect.TypeFor[metav1.FieldsV1]())(out, p)
	}
	return append(out, raw...), nil
}

// checked are the sums of field sets that were found well formed. Objects of a template have the same ones, and to look at them was half of a pod's cost.
var (
	checked [1024]atomic.Uint64
	seed    = maphash.MakeSeed()
)

// wellFormed says that raw is JSON and stands in it as it is.
func wellFormed(raw []byte) bool {
	sum := maphash.Bytes(seed, raw) | 1 // 0 is an empty place
	place := &checked[sum>>54]
	if place.Load() == sum {
		return true
	}
	if !compact(raw) || !json.Valid(raw) {
		return false
	}
	place.Store(sum)
	return true
}

// compact says that raw has nothing that could be left out or would be escaped.
func compact(raw []byte) bool {
	for _, b := range raw {
		if b <= ' ' || b >= 0x7f || b == '<' || b == '>' || b == '&' {
			return false
		}
	}
	return true
}

func labels(out []byte, p unsafe.Pointer) (_ []byte, err error) {
	m := *(*map[string]string)(p)
	if m == nil {
		return append(out, "null"...), nil
	}
	var few [16]string
	keys := few[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	out = append(out, '{')
	for i, k := range keys {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = appendText(out, k); err != nil {
			return out, err
		}
		out = append(out, ':')
		if out, err = appendText(out, m[k]); err != nil {
			return out, err
		}
	}
	return append(out, '}'), nil
}
