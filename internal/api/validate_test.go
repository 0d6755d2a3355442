package api

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// rowOf a kind; group/Kind, or the Kind alone for the core group.
func rowOf(t *testing.T, kind string) *Resource {
	t.Helper()
	group, name, found := strings.Cut(kind, "/")
	if !found {
		group, name = "", kind
	}
	r := NewTable(Optional()...).ByKind(schema.GroupKind{Group: group, Kind: name})
	if r == nil {
		t.Fatalf("no kind %s", kind)
	}
	return r
}

// parse makes an object of base with the paths of change set over it: both are YAML, change is merged into base.
func parse(t *testing.T, r *Resource, base, change string) Object {
	t.Helper()
	var a, b map[string]any
	for text, into := range map[*string]*map[string]any{&base: &a, &change: &b} {
		if err := yaml.UnmarshalStrict([]byte(*text), into); err != nil {
			t.Fatalf("%v in:\n%s", err, *text)
		}
	}
	raw, err := yaml.Marshal(merge(a, b))
	if err != nil {
		t.Fatal(err)
	}
	obj := r.New()
	if err := yaml.UnmarshalStrict(raw, obj); err != nil {
		t.Fatalf("%v in:\n%s", err, raw)
	}
	return obj
}

// merge puts b over a: maps are merged, anything else replaces, null removes.
func merge(a, b map[string]any) map[string]any {
	if a == nil {
		a = map[string]any{}
	}
	for k, v := range b {
		inner, isMap := v.(map[string]any)
		was, wasMap := a[k].(map[string]any)
		switch {
		case v == nil:
			delete(a, k)
		case isMap && wasMap:
			a[k] = merge(was, inner)
		default:
			a[k] = v
		}
	}
	return a
}

// found lists errors as "path Type", in order.
func found(errs field.ErrorList) []string {
	out := []string{}
	for _, e := range errs {
		out = append(out, e.Field+" "+strings.TrimPrefix(string(e.Type), "FieldValue"))
	}
	slices.Sort(out)
	return out
}

// bad is one change to a good object and the errors that it brings, as "path Type"; none means that it is good too.
type bad struct {
	name, change string
	want         []string
}

func checkCreate(t *testing.T, kind, good string, cases []bad) {
	t.Helper()
	r := rowOf(t, kind)
	for _, c := range append([]bad{{name: "as it should be"}}, cases...) {
		t.Run(c.name, func(t *testing.T) {
			obj := parse(t, r, good, c.change)
			if r.Default != nil {
				r.Default(obj)
			}
			check(t, r.Validate(obj), c.want)
		})
	}
}

// checkUpdate changes a good object that is there already.
func checkUpdate(t *testing.T, kind, good string, cases []bad) {
	t.Helper()
	r := rowOf(t, kind)
	for _, c := range append([]bad{{name: "unchanged"}}, cases...) {
		t.Run(c.name, func(t *testing.T) {
			obj, old := parse(t, r, good, c.change), parse(t, r, good, "")
			for _, o := range []Object{obj, old} {
				if r.Default != nil {
					r.Default(o)
				}
			}
			check(t, r.ValidateUpdate(obj, old), c.want)
		})
	}
}

// checkStatus changes the status of what is there.
func checkStatus(t *testing.T, kind, good string, cases []bad) {
	t.Helper()
	r := rowOf(t, kind)
	for _, c := range append([]bad{{name: "unchanged"}}, cases...) {
		t.Run(c.name, func(t *testing.T) {
			check(t, r.ValidateStatus(parse(t, r, good, c.change), parse(t, r, good, "")), c.want)
		})
	}
}

func check(t *testing.T, errs field.ErrorList, want []string) {
	t.Helper()
	slices.Sort(want)
	if got := found(errs); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s\n(%v)", strings.Join(got, "\n  "), strings.Join(want, "\n  "), errs.ToAggregate())
	}
}

func one(s string) []string { return []string{s} }

// checkMessages changes a good object and compares all that is said of it, word by word.
func checkMessages(t *testing.T, kind, good string, cases [][2]string) {
	t.Helper()
	r := rowOf(t, kind)
	for _, c := range cases {
		obj := parse(t, r, good, c[0])
		if r.Default != nil {
			r.Default(obj)
		}
		sameText(t, c[0], r.Validate(obj), c[1])
	}
}

// checkUpdateMessages likewise, of a change to the good object that is there already.
func checkUpdateMessages(t *testing.T, kind, good string, cases [][2]string) {
	t.Helper()
	r := rowOf(t, kind)
	for _, c := range cases {
		obj, old := parse(t, r, good, c[0]), parse(t, r, good, "")
		for _, o := range []Object{obj, old} {
			if r.Default != nil {
				r.Default(o)
			}
		}
		sameText(t, c[0], r.ValidateUpdate(obj, old), c[1])
	}
}

func sameText(t *testing.T, change string, errs field.ErrorList, want string) {
	t.Helper()
	var lines []string
	for _, e := range errs {
		lines = append(lines, e.Error())
	}
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("%s\ngot:  %s\nwant: %s", change, got, want)
	}
}
