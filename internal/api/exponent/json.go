package exponent

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
)

// deepest is how deep objects may be nested; decoders refuse what is deeper.
const deepest = 10_000

// JSON refuses the JSON of an object that has a quantity with a long exponent. obj is a pointer to the Go type that it is decoded into.
func JSON(raw []byte, obj any) error {
	if !Anywhere(raw) && !bytes.Contains(raw, []byte(`\u00`)) { // letters and digits can be written like that
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return reader{d}.value(reflect.TypeOf(obj), "", 0)
}

// reader reads JSON along a Go type. What isn't JSON is for the object's decoder to refuse. Of keys that come twice, all values are looked at.
type reader struct{ *json.Decoder }

// value reads the next value, which belongs into a t; nil for what is decoded into nothing that has quantities.
func (r reader) value(t reflect.Type, path string, depth int) error {
	token, err := r.Token()
	if err != nil || depth > deepest {
		return nil
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch token := token.(type) {
	case json.Delim:
		return r.within(token, t, path, depth)
	case string:
		return check(t, token, path)
	case json.Number:
		return check(t, token.String(), path)
	}
	return nil
}

// within reads what is in an object or an array that has begun.
func (r reader) within(begun json.Delim, t reflect.Type, path string, depth int) error {
	for i := 0; r.More(); i++ {
		in, at := elem(t), path+"["+strconv.Itoa(i)+"]"
		if begun == '{' {
			key, err := r.Token()
			if err != nil {
				return nil
			}
			name, _ := key.(string)
			at = path + "." + name
			if t != nil && t.Kind() == reflect.Struct {
				in = fieldsOf(t).byName[name]
			}
		}
		before := r.InputOffset()
		if err := r.value(in, at, depth+1); err != nil {
			return err
		}
		if r.InputOffset() == before {
			return nil // there is no more to read
		}
	}
	_, _ = r.Token() // the end
	return nil
}

// elem is the type of a slice's elements or a map's values; nil for anything else.
func elem(t reflect.Type) reflect.Type {
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Map) {
		return t.Elem()
	}
	return nil
}
