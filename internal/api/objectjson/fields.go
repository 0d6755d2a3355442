package objectjson

import (
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unsafe"
)

// member is a field of a struct, or of a struct that is embedded in it.
type member struct {
	offset uintptr
	key    string // "name":
	write  writer
	leave  func(p unsafe.Pointer) bool // out, because it is empty; nil: never
}

func structure(fields []member) writer {
	return func(out []byte, p unsafe.Pointer) (_ []byte, err error) {
		out = append(out, '{')
		first := len(out)
		for i := range fields {
			f := &fields[i]
			at := unsafe.Add(p, f.offset)
			if f.leave != nil && f.leave(at) {
				continue
			}
			if len(out) > first {
				out = append(out, ',')
			}
			out = append(out, f.key...)
			if out, err = f.write(out, at); err != nil {
				return out, err
			}
		}
		return append(out, '}'), nil
	}
}

// fieldsOf lists what encoding/json writes of a struct, in its order; false if that takes rules which are not known here: embedded pointers, a name
// that is there twice, the option string.
func fieldsOf(t reflect.Type) (all []member, ok bool) {
	seen := map[string]bool{}
	var add func(t reflect.Type, offset uintptr) bool
	add = func(t reflect.Type, offset uintptr) bool {
		for i := range t.NumField() {
			f := t.Field(i)
			tag := f.Tag.Get("json")
			if tag == "-" {
				continue
			}
			name, options, _ := strings.Cut(tag, ",")
			if f.Anonymous && name == "" {
				if f.Type.Kind() != reflect.Struct || !add(f.Type, offset+f.Offset) {
					return false
				}
				continue
			}
			if !f.IsExported() {
				continue
			}
			if name == "" {
				name = f.Name
			}
			if !usual(name) || seen[name] || hasOption(options, "string") {
				return false
			}
			seen[name] = true
			all = append(all, member{offset: offset + f.Offset, key: `"` + name + `":`, write: of(f.Type), leave: leaves(f.Type, hasOption(options, "omitempty"), hasOption(options, "omitzero"))})
		}
		return true
	}
	return all, add(t, 0)
}

// usual is a name that encoding/json takes from a tag and writes as it is.
func usual(name string) bool {
	return name != "" && strings.IndexFunc(name, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-' && r != '$'
	}) < 0
}

func hasOption(options, want string) bool {
	return slices.Contains(strings.Split(options, ","), want)
}

// leaves says when a field is left out.
func leaves(t reflect.Type, whenEmpty, whenZero bool) func(unsafe.Pointer) bool {
	switch {
	case whenEmpty && whenZero:
		empty, zero := isEmpty(t), isZero(t)
		return func(p unsafe.Pointer) bool { return empty(p) || zero(p) }
	case whenEmpty:
		return isEmpty(t)
	case whenZero:
		return isZero(t)
	}
	return nil
}

func isEmpty(t reflect.Type) func(unsafe.Pointer) bool {
	switch t.Kind() {
	case reflect.Pointer:
		return func(p unsafe.Pointer) bool { return *(*unsafe.Pointer)(p) == nil }
	case reflect.String:
		return func(p unsafe.Pointer) bool { return len(*(*string)(p)) == 0 }
	case reflect.Slice:
		return func(p unsafe.Pointer) bool { return (*slice)(p).len == 0 }
	case reflect.Bool:
		return func(p unsafe.Pointer) bool { return !*(*bool)(p) }
	case reflect.Int32:
		return func(p unsafe.Pointer) bool { return *(*int32)(p) == 0 }
	case reflect.Map:
		return func(p unsafe.Pointer) bool {
			return *(*unsafe.Pointer)(p) == nil || reflect.NewAt(t, p).Elem().Len() == 0
		}
	case reflect.Array:
		return func(unsafe.Pointer) bool { return t.Len() == 0 }
	case reflect.Struct:
		return func(unsafe.Pointer) bool { return false }
	}
	return func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Elem().IsZero() }
}

type zeroer interface{ IsZero() bool }

func isZero(t reflect.Type) func(unsafe.Pointer) bool {
	switch own := reflect.TypeFor[zeroer](); {
	case t.Kind() == reflect.Pointer && t.Implements(own):
		return func(p unsafe.Pointer) bool {
			v := reflect.NewAt(t, p).Elem()
			return v.IsNil() || v.Interface().(zeroer).IsZero()
		}
	case t.Kind() != reflect.Interface && reflect.PointerTo(t).Implements(own):
		return func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Interface().(zeroer).IsZero() }
	}
	return func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Elem().IsZero() }
}
