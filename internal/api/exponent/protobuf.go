package exponent

import (
	"bytes"
	"reflect"

	"google.golang.org/protobuf/encoding/protowire"
)

// Protobuf refuses the protobuf of an object, in its envelope, that has a quantity with a long exponent. obj is a pointer to the Go type that it is decoded
// into. What isn't protobuf is for the object's decoder to refuse.
func Protobuf(raw []byte, obj any) error {
	if !find(raw, func(_, _ []byte) bool { return true }) { // a length or a tag may look like a letter
		return nil
	}
	return each(bytes.TrimPrefix(raw, []byte("k8s\x00")), func(number protowire.Number, body []byte) error {
		if number != 2 { // of runtime.Unknown
			return nil
		}
		return message(body, reflect.TypeOf(obj), "", 0)
	})
}

// message looks at a message that belongs into a t, or into one of several.
func message(raw []byte, t reflect.Type, path string, depth int) error {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if depth > deepest {
		return nil
	}
	return each(raw, func(number protowire.Number, content []byte) error {
		switch {
		case t == quantity && number == 1:
			return check(t, string(content), path)
		case t.Kind() == reflect.Map && number == 2: // an entry's value
			return message(content, t.Elem(), path, depth+1)
		case t.Kind() == reflect.Struct:
			f, ok := fieldsOf(t).byNumber[number]
			if !ok {
				return nil
			}
			if f.name != "" {
				return message(content, f.of, path+"."+f.name, depth+1)
			}
			return message(content, f.of, path, depth+1)
		}
		return nil
	})
}

// each hands out the contents of a message's fields, as far as it can be read.
func each(raw []byte, f func(protowire.Number, []byte) error) error {
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil
		}
		raw = raw[n:]
		if n = protowire.ConsumeFieldValue(number, kind, raw); n < 0 {
			return nil
		}
		if kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(raw)
			if err := f(number, content); err != nil {
				return err
			}
		}
		raw = raw[n:]
	}
	return nil
}
