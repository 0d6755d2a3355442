// Package objectjson writes the JSON of API objects: byte for byte what encoding/json writes, in less than half the time.
//
// encoding/json checks and compacts once more whatever a MarshalJSON returns, and API objects are full of times, quantities and field sets. Here each
// Go type gets a writer, made once and kept, which appends to one buffer and knows those types. Its invariant is that equality: what it has no writer
// for (floats, interfaces, other types that marshal themselves, text that needs escapes) is left to encoding/json itself, value by value. Anybody may
// call it, with anything.
//
// Most of an object's fields are empty. Going past them by reflection is what the rest of the time went to, so writers find a field by its offset: they
// are made for one type by compose, and get pointers to values of that type only.
package objectjson

import (
	"encoding/json"
	"reflect"
	"sync"
	"unsafe"
)

// Marshal gives v's JSON.
func Marshal(v any) ([]byte, error) {
	value := reflect.ValueOf(v)
	if value.Kind() != reflect.Pointer || value.IsNil() {
		return json.Marshal(v)
	}
	buf := buffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= kept {
			buffers.Put(buf)
		}
	}()
	var err error
	if *buf, err = of(value.Type().Elem())((*buf)[:0], value.UnsafePointer()); err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(*buf)), *buf...), nil
}

// kept is how large a buffer may have grown and still be used again.
const kept = 64 << 10

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// writer appends the JSON of the value that p points to, which is of the type that the writer is for.
type writer func(out []byte, p unsafe.Pointer) ([]byte, error)

var writers sync.Map // of writer, by reflect.Type

// of gives a type's writer. While it is made, a type that contains itself finds a writer that waits for it.
func of(t reflect.Type) writer {
	if w, ok := writers.Load(t); ok {
		return w.(writer)
	}
	var made writer
	var ready sync.WaitGroup
	ready.Add(1)
	if w, being := writers.LoadOrStore(t, writer(func(out []byte, p unsafe.Pointer) ([]byte, error) {
		ready.Wait()
		return made(out, p)
	})); being {
		return w.(writer)
	}
	made = compose(t)
	ready.Done()
	writers.Store(t, made)
	return made
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()
)

func marshalsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return t.Implements(marshaler) || p.Implements(marshaler) || t.Implements(textMarshaler) || p.Implements(textMarshaler)
}

// byAddress says that a type, or a field of it, marshals itself only where its address can be taken. A map's values have none for encoding/json.
func byAddress(t reflect.Type) bool {
	if p := reflect.PointerTo(t); p.Implements(marshaler) && !t.Implements(marshaler) || p.Implements(textMarshaler) && !t.Implements(textMarshaler) {
		return true
	}
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			if byAddress(t.Field(i).Type) {
				return true
			}
		}
	}
	return t.Kind() == reflect.Array && byAddress(t.Elem())
}

// compose makes a type's writer.
func compose(t reflect.Type) writer {
	if w := known[t]; w != nil {
		return w
	}
	if t.Kind() == reflect.Pointer { // to what marshals itself, too: that has a writer, or is left to encoding/json there
		return pointer(of(t.Elem()))
	}
	if marshalsItself(t) || t == reflect.TypeFor[json.Number]() {
		return other(t)
	}
	switch t.Kind() {
	case reflect.Bool:
		return boolean
	case reflect.Int:
		return integer[int]
	case reflect.Int8:
		return integer[int8]
	case reflect.Int16:
		return integer[int16]
	case reflect.Int32:
		return integer[int32]
	case reflect.Int64:
		return integer[int64]
	case reflect.String:
		return text
	case reflect.Struct:
		if fields, ok := fieldsOf(t); ok {
			return structure(fields)
		}
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 { // those are base64
			return list(t.Elem().Size(), of(t.Elem()))
		}
	case reflect.Map:
		if t.Key().Kind() == reflect.String && !byAddress(t.Elem()) {
			return dictionary(t)
		}
	}
	return other(t)
}

// other leaves values to encoding/json. Methods of pointers count, as they do within an object.
func other(t reflect.Type) writer {
	return func(out []byte, p unsafe.Pointer) ([]byte, error) {
		raw, err := json.Marshal(reflect.NewAt(t, p).Interface())
		return append(out, raw...), err
	}
}
