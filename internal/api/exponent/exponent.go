// Package exponent refuses quantities whose exponents nobody can compute with.
//
// resource.Quantity takes exponents of any size, and whoever compares or adds two of different ones computes a number of as many digits: 1e999999999 takes
// hours and gigabytes, some spellings of it already when they are read. So bodies are looked at before they are decoded. Most have nothing that could be such
// a quantity, and only bytes are compared; in the others the fields of the Go type that are quantities are looked for. Pure.
package exponent

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/api/resource"
)

// mostDigits of an exponent are far beyond any amount there is, and computed with in no time.
const mostDigits = 3

// Anywhere says whether a text has something in it that a quantity could take for a longer exponent.
func Anywhere(text []byte) bool {
	return find(text, func(before, after []byte) bool {
		number := bytes.TrimRight(before, "0123456789.")
		return (len(number) == 0 || !isLetter(number[len(number)-1])) && (len(after) == 0 || !isLetter(after[0]))
	})
}

// find looks for an e with that many digits behind it, where alone agrees with what comes before the e and after the digits.
func find(text []byte, alone func(before, after []byte) bool) bool {
	for at, c := range text {
		if c != 'e' && c != 'E' {
			continue
		}
		after := text[at+1:]
		if len(after) > 0 && (after[0] == '+' || after[0] == '-') {
			after = after[1:]
		}
		n := 0
		for n < len(after) && isDigit(after[n]) {
			n++
		}
		if n > mostDigits && alone(text[:at], after[n:]) {
			return true
		}
	}
	return false
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

var long = regexp.MustCompile(`^[+-]?[0-9]*\.?[0-9]*[eE][+-]?0*[1-9][0-9]{` + strconv.Itoa(mostDigits) + `,}$`)

// Long says whether a text is that of a quantity with a longer exponent.
func Long(text string) bool { return long.MatchString(strings.TrimSpace(text)) }

var quantity = reflect.TypeFor[resource.Quantity]()

// check refuses a text that a field of type t cannot have.
func check(t reflect.Type, text, path string) error {
	if t == quantity && Long(text) {
		return fmt.Errorf("%s: %.40q is no quantity: its exponent must not have more than %d digits", strings.TrimPrefix(path, "."), text, mostDigits)
	}
	return nil
}

// fields are a struct's, by their names in JSON and their numbers in protobuf.
type fields struct {
	byName   map[string]reflect.Type
	byNumber map[protowire.Number]numbered
}

type numbered struct {
	name string // "" for what has none of its own in JSON
	of   reflect.Type
}

var known sync.Map // of *fields, by reflect.Type

func fieldsOf(t reflect.Type) *fields {
	if k, ok := known.Load(t); ok {
		return k.(*fields)
	}
	out := &fields{map[string]reflect.Type{}, map[protowire.Number]numbered{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "" && f.Anonymous && f.Type.Kind() == reflect.Struct:
			for name, of := range fieldsOf(f.Type).byName {
				out.byName[name] = of
			}
		case name != "" && name != "-":
			out.byName[name] = f.Type
		}
		if parts := strings.Split(f.Tag.Get("protobuf"), ","); len(parts) > 1 {
			if n, err := strconv.Atoi(parts[1]); err == nil {
				out.byNumber[protowire.Number(n)] = numbered{name, f.Type}
			}
		}
	}
	k, _ := known.LoadOrStore(t, out)
	return k.(*fields)
}
