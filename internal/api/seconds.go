package api

import (
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WholeSeconds cuts the times of an object to what its encodings keep: seconds, or microseconds. Who writes without encoding calls it, so that
// memory holds what is stored: a client that reads a time and writes it back must not be taken for one that changed it.
func WholeSeconds(obj any) {
	v := reflect.ValueOf(obj)
	if cut := cutterOf(v.Type()); cut != nil {
		cut(v)
	}
}

// cutter cuts the times within a value.
type cutter func(v reflect.Value)

var (
	cutters   = map[reflect.Type]cutter{}
	cuttersMu sync.Mutex
	aTime     = reflect.TypeFor[metav1.Time]()
	aMicro    = reflect.TypeFor[metav1.MicroTime]()
)

func cutterOf(t reflect.Type) cutter {
	cuttersMu.Lock()
	defer cuttersMu.Unlock()
	return makeCutter(t)
}

// makeCutter returns nil for types without times. A type within itself counts as having none: no kind's times lie that deep.
func makeCutter(t reflect.Type) cutter {
	if c, ok := cutters[t]; ok {
		return c
	}
	cutters[t] = nil
	var c cutter
	switch {
	case t == aTime:
		c = func(v reflect.Value) { at := v.Addr().Interface().(*metav1.Time); at.Time = at.Truncate(time.Second) }
	case t == aMicro:
		c = func(v reflect.Value) {
			at := v.Addr().Interface().(*metav1.MicroTime)
			at.Time = at.Truncate(time.Microsecond)
		}
	case t.Kind() == reflect.Pointer:
		if within := makeCutter(t.Elem()); within != nil {
			c = func(v reflect.Value) {
				if !v.IsNil() {
					within(v.Elem())
				}
			}
		}
	case t.Kind() == reflect.Slice:
		if within := makeCutter(t.Elem()); within != nil {
			c = func(v reflect.Value) {
				for i := range v.Len() {
					within(v.Index(i))
				}
			}
		}
	case t.Kind() == reflect.Struct:
		c = fieldsCutter(t)
	}
	cutters[t] = c
	return c
}

func fieldsCutter(t reflect.Type) cutter {
	type at struct {
		index  int
		within cutter
	}
	var fields []at
	for i := range t.NumField() {
		if !t.Field(i).IsExported() {
			continue
		}
		if within := makeCutter(t.Field(i).Type); within != nil {
			fields = append(fields, at{i, within})
		}
	}
	if fields == nil {
		return nil
	}
	return func(v reflect.Value) {
		for _, f := range fields {
			f.within(v.Field(f.index))
		}
	}
}
