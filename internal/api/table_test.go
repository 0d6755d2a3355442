package api

import (
	"maps"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/randfill"
)

// eachRow runs f as a subtest of every row, and of every further version that a row is served as.
func eachRow(t *testing.T, f func(t *testing.T, r *Resource)) {
	t.Helper()
	for _, r := range NewTable(Optional()...).All() {
		t.Run(r.GroupResource().String(), func(t *testing.T) { f(t, r) })
		for i := range r.Also {
			served := r.Also[i].Row()
			t.Run(served.GroupResource().String(), func(t *testing.T) { f(t, served) })
		}
	}
}

func TestConstructorsAgreeWithKinds(t *testing.T) {
	eachRow(t, func(t *testing.T, r *Resource) {
		knows := func(obj runtime.Object, want schema.GroupVersionKind) {
			t.Helper()
			kinds, _, err := Scheme().ObjectKinds(obj)
			if err != nil || !slices.Contains(kinds, want) {
				t.Errorf("%T is %v to the scheme (%v), want %v", obj, kinds, err, want)
			}
		}
		knows(r.New(), r.GVK())
		if r.Namespaced && r.New().GetNamespace() != "" || reflect.ValueOf(r.New()).Elem().FieldByName("ObjectMeta") == (reflect.Value{}) {
			t.Error("a new object is not empty, or has no metadata")
		}
		if r.NewList == nil {
			if r.Key != "" {
				t.Error("it is stored but has no list")
			}
			return
		}
		list := r.NewList()
		knows(list, r.GVK().GroupVersion().WithKind(r.Kind+"List"))
		items := reflect.ValueOf(list).Elem().FieldByName("Items")
		if want := reflect.TypeOf(r.New()).Elem(); !items.IsValid() || items.Type().Elem() != want {
			t.Errorf("the items of %T are not of type %s", list, want)
		}
	})
}

func TestNamesAreUnique(t *testing.T) {
	plurals, kinds, keys := map[schema.GroupResource]bool{}, map[schema.GroupKind]bool{}, map[string]bool{}
	short := map[string]string{}
	table := NewTable(Optional()...)
	for _, r := range table.All() {
		gr, gk := r.GroupResource(), r.GVK().GroupKind()
		if plurals[gr] || kinds[gk] || r.Key != "" && keys[r.Key] {
			t.Errorf("%s: its plural, kind or key is another row's too", gr)
		}
		plurals[gr], kinds[gk], keys[r.Key] = true, true, true
		for _, name := range append(slices.Clone(r.Short), r.Singular) {
			if other := short[name]; other != "" {
				t.Errorf("%s and %s are both called %s", gr, other, name)
			}
			short[name] = gr.String()
		}
		if r.Plural != strings.ToLower(r.Plural) || r.Singular == "" || r.Version == "" {
			t.Errorf("%s: names are incomplete: %+v", gr, r)
		}
		if table.ByResource(gr) != r || table.ByKind(gk) != r {
			t.Errorf("%s is not found under its own name", gr)
		}
	}
}

func TestVerbsAndSubresources(t *testing.T) {
	for _, r := range NewTable(Optional()...).All() {
		for _, v := range r.Verbs {
			if !slices.Contains(AllVerbs, v) {
				t.Errorf("%s: %q is not a verb", r.Plural, v)
			}
		}
		if !slices.IsSorted(r.Verbs) || r.Key == "" && !slices.Equal(r.Verbs, []string{"create"}) && !slices.Equal(r.Verbs, []string{"get", "list"}) {
			t.Errorf("%s: verbs are %v", r.Plural, r.Verbs)
		}
		if status := reflect.ValueOf(r.New()).Elem().FieldByName("Status"); r.Status && !status.IsValid() {
			t.Errorf("%s has a status subresource and no status", r.Plural)
		}
		seen := map[string]bool{"status": true}
		for _, s := range r.Subresources {
			if seen[s.Name] || s.Kind == "" || len(s.Verbs) == 0 || !slices.IsSorted(s.Verbs) {
				t.Errorf("%s/%s is not well described: %+v", r.Plural, s.Name, s)
			}
			seen[s.Name] = true
			if s.New == nil {
				continue
			}
			want := schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}
			if want.Version == "" {
				want.Group, want.Version = r.Group, r.Version
			}
			if kinds, _, err := Scheme().ObjectKinds(s.New()); err != nil || !slices.Contains(kinds, want) {
				t.Errorf("%s/%s: %T is %v, want %v", r.Plural, s.Name, s.New(), kinds, want)
			}
		}
		if seen["scale"] != (r.Scale != nil) {
			t.Errorf("%s: the scale subresource and what it does do not go together", r.Plural)
		}
	}
}

func TestZeroObjectsAreHandled(t *testing.T) {
	now := time.Now()
	eachRow(t, func(t *testing.T, r *Resource) {
		cols := r.Columns
		if cols == nil {
			cols = DefaultColumns
		}
		for i, c := range cols {
			if c.Name == "" || c.Type == "" || c.Description == "" || c.Cell == nil {
				t.Errorf("column %d is not complete: %+v", i, c)
			}
			switch v := c.Cell(r.New(), now).(type) {
			case string:
				if c.Type == "integer" {
					t.Errorf("column %s: %q is no integer", c.Name, v)
				}
			case int64:
				if c.Type != "integer" {
					t.Errorf("column %s is a %s and shows %d", c.Name, c.Type, v)
				}
			case bool:
				if c.Type != "boolean" {
					t.Errorf("column %s is a %s and shows %v", c.Name, c.Type, v)
				}
			default:
				t.Errorf("column %s shows a %T", c.Name, v)
			}
		}
		if cols[0].Name != "Name" && r.Kind != "Event" || !slices.ContainsFunc(cols, func(c Column) bool { return c.Format == "name" }) {
			t.Error("no column has the name")
		}
		obj := r.New()
		if r.Fields != nil {
			r.Fields(obj)
		}
		for _, values := range r.Indexes {
			values(obj)
		}
		if r.Default != nil {
			r.Default(obj)
		}
		if r.Validate != nil {
			r.Validate(r.New())
			r.Validate(obj)
		}
		if r.ValidateUpdate != nil {
			r.ValidateUpdate(r.New(), r.New())
		}
		if r.Scale != nil {
			r.Scale.Get(r.New())
			r.Scale.Set(obj, 7)
			if n, _, _ := r.Scale.Get(obj); n != 7 {
				t.Errorf("scaled to 7, it has %d", n)
			}
		}
		if r.GracefulDelete != nil {
			r.GracefulDelete(r.New(), &metav1.DeleteOptions{})
		}
		for _, f := range []func(Object){r.PrepareCreate, r.Terminating} {
			if f != nil {
				f(r.New())
			}
		}
		if r.Held != nil && r.Held(r.New()) {
			t.Error("an empty object is held")
		}
	})
}

// fuzzed fills every field of an object, from a seed.
func fuzzed(seed int64, obj Object) {
	schemas := func(serializer.CodecFactory) []any {
		return []any{func(*apiextensionsv1.JSONSchemaProps, randfill.Continue) {}} // a schema holds schemas without end
	}
	funcs := fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, schemas)
	fuzzer.FuzzerFor(funcs, rand.NewSource(seed), Codecs()).NilChance(0.3).NumElements(1, 2).Fill(obj)
}

// fuzzing is how many objects of a kind are made up.
const fuzzing = 12

func TestDefaultsAreIdempotent(t *testing.T) {
	eachRow(t, func(t *testing.T, r *Resource) {
		if r.Default == nil {
			t.Skip("it has no defaults")
		}
		for seed := range int64(fuzzing) {
			obj := r.New()
			fuzzed(seed, obj)
			r.Default(obj)
			once := obj.DeepCopyObject()
			r.Default(obj)
			if !apiequality.Semantic.DeepEqual(once, obj) {
				t.Fatalf("seed %d: defaults of what has its defaults change it", seed)
			}
		}
	})
}

func TestNothingPanicsOnFuzzedObjects(t *testing.T) {
	now := time.Now()
	eachRow(t, func(t *testing.T, r *Resource) {
		for seed := range int64(fuzzing) {
			obj := r.New()
			fuzzed(seed, obj)
			before := obj.DeepCopyObject()
			for _, c := range r.Columns {
				c.Cell(obj, now)
			}
			if r.Fields != nil {
				r.Fields(obj)
			}
			for _, name := range slices.Sorted(maps.Keys(r.Indexes)) {
				r.Indexes[name](obj)
			}
			if r.Validate != nil {
				r.Validate(obj)
			}
			if r.ValidateUpdate != nil {
				r.ValidateUpdate(obj, r.New())
				r.ValidateUpdate(obj, obj)
			}
			if !apiequality.Semantic.DeepEqual(before, obj) {
				t.Fatalf("seed %d: somebody changed the object while looking at it", seed)
			}
		}
	})
}

func TestEventsInBothSpellings(t *testing.T) {
	row := NewTable().ByKind(schema.GroupKind{Kind: "Event"}).Also[0]
	for seed := range int64(fuzzing) {
		e := &eventsv1.Event{}
		fuzzed(seed, e)
		e.APIVersion, e.Kind = "events.k8s.io/v1", "Event"
		if back := row.To(row.From(e)); !apiequality.Semantic.DeepEqual(e, back) {
			t.Fatalf("seed %d: an event lost something on its way:\n%+v\n%+v", seed, e, back)
		}
	}
}
