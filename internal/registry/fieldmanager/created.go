package fieldmanager

import (
	"bytes"
	"errors"
	"hash/maphash"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	smdschema "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"skiff.dev/skiff/internal/api"
)

// Who creates an object owns all of it: there is nothing to compare with, nobody to take from. The general way builds a set of paths by comparing with an
// empty object, which is a quarter of what a create costs. Here the Go object is walked once and the set's encoding written as it comes; what the walk
// does not know goes the general way. TestCreatedIsAsUpdated holds the two together.

// errOtherwise says that an object's fields must be found the general way.
var errOtherwise = errors.New("not known to the walk")

// created gives all of a new object's fields to who made it; false if that must be found out the general way.
func (m *Managers) created(w Write, obj api.Object) bool {
	if w.Manager == "" || w.Served != nil || w.Subresource != "" || len(obj.GetManagedFields()) > 0 {
		return false
	}
	types, ok := Types(w.Resource).(*unchecked)
	if !ok {
		return false
	}
	t, ok := types.of(w.Resource.GVK())
	if !ok {
		return false // the general way finds it
	}
	root := types.shapes.of(t.schema, t.ref, reflect.TypeOf(obj))
	if root == nil {
		return false
	}
	p := walkers.Get().(*walker)
	defer walkers.Put(p)
	p.out = p.out[:0]
	if err := p.root(root, reflect.ValueOf(obj).Elem(), w.Resource.Status); err != nil {
		return false
	}
	now := metav1.Time{Time: time.Now().UTC()}
	if len(p.out) == 0 {
		obj.SetManagedFields(nil)
		return true
	}
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{{
		Manager: w.Manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: w.Resource.GVK().GroupVersion().String(), Time: &now,
		FieldsType: "FieldsV1", FieldsV1: types.shapes.same(p.out),
	}})
	return true
}

// unowned are the fields that belong to nobody, at the root and in the metadata.
var unowned = map[string]bool{
	"name": true, "namespace": true, "creationTimestamp": true, "selfLink": true, "uid": true, "clusterName": true, "generation": true,
	"managedFields": true, "resourceVersion": true,
}

// walker writes a field set as it is encoded.
type walker struct {
	out   []byte
	names []string
}

var walkers = sync.Pool{New: func() any { return new(walker) }}

// root writes the fields of a whole object; nothing if nobody owns any.
func (p *walker) root(s *shape, v reflect.Value, status bool) error {
	p.out = append(p.out, '{')
	for i := range s.fields {
		f := &s.fields[i]
		switch {
		case f.name == "apiVersion", f.name == "kind", f.name == "status" && status:
			continue
		case f.name == "metadata" && f.shape != nil && f.shape.kind == structure && f.shape.elem == nil:
			at := p.open(f.key)
			p.out = append(p.out, '{')
			body := f.entry.GetFrom(v)
			for j := range f.shape.fields {
				if own := &f.shape.fields[j]; !unowned[own.name] {
					if err := p.field(own, body, true); err != nil {
						return err
					}
				}
			}
			p.close(at)
		default:
			if err := p.field(f, v, true); err != nil {
				return err
			}
		}
	}
	if len(p.out) == 1 {
		p.out = p.out[:0]
		return nil
	}
	p.out = append(p.out, '}')
	return nil
}

// open begins a member, and returns where to go back to if it comes to nothing.
func (p *walker) open(key string) int {
	at := len(p.out)
	if p.out[at-1] != '{' {
		p.out = append(p.out, ',')
	}
	p.out = append(p.out, key...)
	return at
}

// close ends a member that lies open, or takes it back if there is nothing in it.
func (p *walker) close(at int) {
	if p.out[len(p.out)-1] == '{' {
		p.out = p.out[:at]
		return
	}
	p.out = append(p.out, '}')
}

// field writes a field of the struct v. live says that the empty object has the struct too: then a field that an empty object shows as well is owned
// only where it differs from that.
func (p *walker) field(f *fieldShape, v reflect.Value, live bool) error {
	val := f.entry.GetFrom(v)
	if f.entry.CanOmit(val) {
		return nil
	}
	if f.shape == nil {
		return errOtherwise
	}
	at := p.open(f.key)
	if live && f.live {
		return p.live(f.shape, val, at)
	}
	return p.added(f.shape, val)
}

// live writes what of a value differs from an empty object's; at is where its member began.
func (p *walker) live(s *shape, v reflect.Value, at int) error {
	nilable := v.Kind() == reflect.Pointer || v.Kind() == reflect.Map || v.Kind() == reflect.Slice
	switch {
	case nilable && v.IsNil(), s.kind == leaf && v.IsZero():
		p.out = p.out[:at]
		return nil
	case s.kind == leaf && (s.custom || v.Kind() == reflect.Struct) && saysNothing(v):
		p.out = p.out[:at]
		return nil
	case s.kind == leaf:
		p.out = append(p.out, "{}"...)
		return nil
	case nilable:
		return p.children(s, v, false)
	case s.kind != structure:
		return errOtherwise
	}
	p.out = append(p.out, '{')
	for i := range s.fields {
		if err := p.field(&s.fields[i], v, true); err != nil {
			return err
		}
	}
	p.close(at)
	return nil
}

// saysNothing is whether a value that is not Go's zero looks like it all the same.
func saysNothing(v reflect.Value) bool {
	some, err := value.NewValueReflect(v.Addr().Interface())
	if err != nil {
		return false
	}
	none, err := value.NewValueReflect(reflect.New(v.Type()).Interface())
	return err == nil && value.Equals(some, none)
}

// added writes a value that an empty object does not have.
func (p *walker) added(s *shape, v reflect.Value) error {
	if s.kind == leaf {
		p.out = append(p.out, "{}"...)
		return nil
	}
	return p.children(s, v, true)
}

// children writes what a value consists of, and itself if it is owned as well; one that is empty is owned as such.
func (p *walker) children(s *shape, v reflect.Value, self bool) error {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return errOtherwise
		}
		v = v.Elem()
	}
	begin := len(p.out)
	p.out = append(p.out, '{')
	if self {
		p.out = append(p.out, `".":{}`...)
	}
	before := len(p.out)
	var err error
	switch s.kind {
	case structure:
		for i := range s.fields {
			if err = p.field(&s.fields[i], v, false); err != nil {
				return err
			}
		}
	case dictionary:
		err = p.dictionary(s, v)
	case keyed:
		err = p.keyed(s, v)
	case set:
		err = p.set(v)
	}
	if len(p.out) == before {
		p.out = append(p.out[:begin], '{')
	}
	p.out = append(p.out, '}')
	return err
}

func (p *walker) dictionary(s *shape, v reflect.Value) error {
	first := len(p.names)
	defer func() { p.names = p.names[:first] }()
	for it := v.MapRange(); it.Next(); {
		p.names = append(p.names, it.Key().String())
	}
	names := p.names[first:]
	slices.Sort(names)
	for _, name := range names {
		if !unescaped(name) {
			return errOtherwise
		}
		p.comma()
		p.out = append(append(append(p.out, `"f:`...), name...), `":`...)
		if s.elem.kind == leaf {
			p.out = append(p.out, "{}"...)
		} else if err := p.added(s.elem, v.MapIndex(reflect.ValueOf(name).Convert(v.Type().Key()))); err != nil {
			return err
		}
	}
	return nil
}

func (p *walker) set(v reflect.Value) error {
	first := len(p.names)
	defer func() { p.names = p.names[:first] }()
	for i := range v.Len() {
		p.names = append(p.names, v.Index(i).String())
	}
	names := p.names[first:]
	slices.Sort(names)
	for i, name := range names {
		if !unescaped(name) || i > 0 && names[i-1] == name {
			return errOtherwise
		}
		p.comma()
		p.out = append(append(append(p.out, `"v:\"`...), name...), `\"":{}`...)
	}
	return nil
}

func (p *walker) comma() {
	if p.out[len(p.out)-1] != '{' {
		p.out = append(p.out, ',')
	}
}

// keyed writes the items of a list whose items have keys, in the order of these.
func (p *walker) keyed(s *shape, v reflect.Value) error {
	type item struct {
		keys []keyValue
		at   int
	}
	items := make([]item, v.Len())
	all := make([]keyValue, 0, len(items)*len(s.keys))
	for i := range items {
		from := len(all)
		elem := v.Index(i)
		if elem.Kind() == reflect.Pointer {
			return errOtherwise
		}
		for k := range s.keys {
			kv, given, err := s.keys[k].of(elem)
			if err != nil {
				return err
			}
			if given {
				all = append(all, kv)
			}
		}
		if len(all) == from {
			return errOtherwise
		}
		items[i] = item{all[from:len(all):len(all)], i}
	}
	same := false
	slices.SortFunc(items, func(a, b item) int {
		c := slices.CompareFunc(a.keys, b.keys, keyValue.compare)
		same = same || c == 0 && a.at != b.at
		return c
	})
	if same {
		return errOtherwise
	}
	for _, it := range items {
		p.comma()
		p.out = append(p.out, `"k:{`...)
		for i, kv := range it.keys {
			if i > 0 {
				p.out = append(p.out, ',')
			}
			p.out = kv.append(p.out)
		}
		p.out = append(p.out, `}":`...)
		if err := p.added(s.elem, v.Index(it.at)); err != nil {
			return err
		}
	}
	return nil
}

// keyValue is one key of a list's item.
type keyValue struct {
	name   string
	text   string
	number int64
	isText bool
}

func (k keyValue) compare(o keyValue) int {
	if c := strings.Compare(k.name, o.name); c != 0 {
		return c
	}
	if k.isText {
		return strings.Compare(k.text, o.text)
	}
	return int(min(max(k.number-o.number, -1), 1))
}

func (k keyValue) append(out []byte) []byte {
	out = append(append(append(out, `\"`...), k.name...), `\":`...)
	if k.isText {
		return append(append(append(out, `\"`...), k.text...), `\"`...)
	}
	return strconv.AppendInt(out, k.number, 10)
}

// of is an item's value of a key; not given if it has none.
func (k *keyShape) of(item reflect.Value) (kv keyValue, given bool, err error) {
	kv = keyValue{name: k.name, isText: k.isText}
	v := k.entry.GetFrom(item)
	switch {
	case k.entry.CanOmit(v):
		return k.preset, k.preset.name != "", nil
	case v.Kind() == reflect.Pointer && v.IsNil():
		return kv, false, errOtherwise
	case v.Kind() == reflect.Pointer:
		v = v.Elem()
	}
	if k.isText {
		kv.text = v.String()
		if !unescaped(kv.text) {
			return kv, false, errOtherwise
		}
		return kv, true, nil
	}
	kv.number = v.Int()
	if kv.number < -1<<53 || kv.number > 1<<53 {
		return kv, false, errOtherwise
	}
	return kv, true, nil
}

// unescaped says that a string is written in JSON as it is, also by who escapes for HTML.
func unescaped(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// shape is how a Go type's values lie in a field set.
type shape struct {
	kind   shapeKind
	custom bool // a leaf that the type encodes itself
	fields []fieldShape
	keys   []keyShape
	elem   *shape
}

type shapeKind int

const (
	leaf       shapeKind = iota // a scalar, or what is owned as a whole
	structure                   // fields
	dictionary                  // elem by name
	keyed                       // elem by keys
	set                         // strings
)

type fieldShape struct {
	name, key string // key is `"f:name":`
	entry     *value.FieldCacheEntry
	shape     *shape // nil: not known
	live      bool   // an empty struct shows the field
}

type keyShape struct {
	name   string
	isText bool
	entry  *value.FieldCacheEntry
	preset keyValue // for an item without the key; without a name: none
}

// shapes of one schema's types. What was made is kept for ever: there are as many as there are types.
type shapes struct {
	mu    sync.Mutex
	known map[shapeKey]*shape

	lately [256]*metav1.FieldsV1 // encoded sets: objects made of one template share theirs
}

var seed = maphash.MakeSeed()

// same is the encoded set as somebody had it lately, or a copy of it.
func (c *shapes) same(set []byte) *metav1.FieldsV1 {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := &c.lately[maphash.Bytes(seed, set)%uint64(len(c.lately))]
	if !bytes.Equal((*at).GetRawBytes(), set) {
		*at = metav1.NewFieldsV1(string(set))
	}
	return *at
}

type shapeKey struct {
	name string
	t    reflect.Type
}

// of is the shape of an object's type, a pointer to a struct; nil if there is none.
func (c *shapes) of(schema *smdschema.Schema, ref smdschema.TypeRef, t reflect.Type) *shape {
	if ref.NamedType == nil || t.Kind() != reflect.Pointer {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.known[shapeKey{*ref.NamedType, t}]; ok {
		return s
	}
	if c.known == nil {
		c.known = map[shapeKey]*shape{}
	}
	s := c.make(schema, ref, t.Elem())
	c.known[shapeKey{*ref.NamedType, t}] = s
	return s
}

// make finds a type's shape; nil if the walk does not know it. Called with the lock held.
func (c *shapes) make(schema *smdschema.Schema, ref smdschema.TypeRef, t reflect.Type) *shape {
	atom, ok := schema.Resolve(ref)
	if !ok {
		return nil
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	custom := value.TypeReflectEntryOf(t).CanConvertToUnstructured()
	whole := (atom.List == nil || atom.List.ElementRelationship == smdschema.Atomic) && (atom.Map == nil || atom.Map.ElementRelationship == smdschema.Atomic)
	if whole {
		return &shape{kind: leaf, custom: custom}
	}
	if custom || atom.Scalar != nil || atom.List != nil && atom.Map != nil {
		return nil
	}
	key := shapeKey{t: t}
	if ref.NamedType != nil && ref.ElementRelationship == nil {
		key.name = *ref.NamedType
		if s, ok := c.known[key]; ok {
			return s
		}
	}
	s := &shape{}
	if key.name != "" {
		c.known[key] = s // types may hold themselves
	}
	switch {
	case atom.Map != nil && t.Kind() == reflect.Struct:
		s.kind, s.fields = structure, c.fields(schema, atom.Map, t)
		return s
	case atom.Map != nil && t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		s.kind, s.elem = dictionary, c.make(schema, atom.Map.ElementType, t.Elem())
		ok = s.elem != nil && t.Elem().Kind() != reflect.Pointer
	case atom.List != nil && t.Kind() == reflect.Slice && len(atom.List.Keys) == 0:
		s.kind = set
		ok = t.Elem().Kind() == reflect.String && !value.TypeReflectEntryOf(t.Elem()).CanConvertToUnstructured()
	case atom.List != nil && t.Kind() == reflect.Slice:
		s.kind, s.elem = keyed, c.make(schema, atom.List.ElementType, t.Elem())
		s.keys, ok = keysOf(schema, atom.List, t.Elem())
		ok = ok && s.elem != nil
	default:
		ok = false
	}
	if !ok {
		if key.name != "" {
			c.known[key] = nil
		}
		return nil
	}
	return s
}

func (c *shapes) fields(schema *smdschema.Schema, m *smdschema.Map, t reflect.Type) []fieldShape {
	var out []fieldShape
	zero := reflect.New(t).Elem()
	for name, entry := range value.TypeReflectEntryOf(t).Fields() {
		ref := m.ElementType
		if f, ok := m.FindField(name); ok {
			ref = f.Type
		}
		empty := entry.GetFrom(zero)
		out = append(out, fieldShape{name: name, key: `"f:` + name + `":`, entry: entry, live: !entry.CanOmit(empty), shape: c.make(schema, ref, empty.Type())})
	}
	slices.SortFunc(out, func(a, b fieldShape) int { return strings.Compare(a.name, b.name) })
	return out
}

// keysOf a list's items; false if one is neither text nor a number.
func keysOf(schema *smdschema.Schema, list *smdschema.List, t reflect.Type) (out []keyShape, ok bool) {
	item, ok := schema.Resolve(list.ElementType)
	if !ok || item.Map == nil || t.Kind() != reflect.Struct {
		return nil, false
	}
	zero := reflect.New(t).Elem()
	for _, name := range list.Keys {
		entry := value.TypeReflectEntryOf(t).Fields()[name]
		if entry == nil {
			return nil, false
		}
		k := keyShape{name: name, entry: entry}
		kind := entry.GetFrom(zero).Type()
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch kind.Kind() {
		case reflect.String:
			k.isText = true
		case reflect.Int, reflect.Int64, reflect.Int32, reflect.Int16, reflect.Int8:
		default:
			return nil, false
		}
		if f, _ := item.Map.FindField(name); f.Default != nil {
			if k.preset, ok = presetOf(name, f.Default); !ok || k.preset.isText != k.isText {
				return nil, false
			}
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b keyShape) int { return strings.Compare(a.name, b.name) })
	return out, true
}

// presetOf a key in the schema, where numbers come as YAML has them.
func presetOf(name string, v any) (keyValue, bool) {
	switch v := v.(type) {
	case string:
		return keyValue{name: name, isText: true, text: v}, unescaped(v)
	case int:
		return keyValue{name: name, number: int64(v)}, true
	case int64:
		return keyValue{name: name, number: v}, true
	case float64:
		return keyValue{name: name, number: int64(v)}, v == float64(int64(v))
	}
	return keyValue{}, false
}
