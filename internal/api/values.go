package api

import (
	"strconv"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func pointer[T any](v T) *T { return &v }

// value is what p points at, or zero.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// fill sets *p to v where it is zero; fillNil sets *p to point at v where it is nil.
func fill[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func fillNil[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// fillKey sets a map's key where it has none.
func fillKey[V any](m *map[string]V, key string, v V) {
	if _, found := (*m)[key]; found {
		return
	}
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}

func boolText(b bool) string { return strconv.FormatBool(b) }
func number(n int32) string  { return strconv.Itoa(int(n)) }
func mapSelector(m map[string]string) string {
	return labels.SelectorFromSet(m).String()
}

// none and nonePair are the validation of kinds of which everything that decodes is good.
func none(Object) field.ErrorList          { return nil }
func nonePair(_, _ Object) field.ErrorList { return nil }

// sameAsCreate makes an update's validation of one that looks at the new object alone.
func sameAsCreate(validate func(Object) field.ErrorList) func(_, _ Object) field.ErrorList {
	return func(o, _ Object) field.ErrorList { return validate(o) }
}
