package store

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/btree"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/api"
)

// Collection is the memory of one resource: its entries in the order of their keys, its indexes, its event log. Its store's lock guards it.
type Collection struct {
	s         *Store
	res       atomic.Pointer[api.Resource] // of a custom resource another may take its place at any time
	prefix    string                       // of full keys: "/registry/pods/"
	tree      *btree.BTreeG[*Entry]
	indexes   map[string]index
	log       eventLog
	snapshots []snapshot
	listed    atomic.Pointer[listed] // the last long list; nil once something has changed. Set with the lock held for reading
	over      chan struct{}          // closed when watches must end: the resource is another now, or no more
	closed    bool
	changes   *atomic.Int64 // counts changes for an observer; may be nil
}

// index finds entries by a value: name of the index → value → key.
type index map[string]map[string]*Entry

// treeDegree makes nodes of a few cache lines.
const treeDegree = 32

func newCollection(s *Store, r *api.Resource) *Collection {
	c := &Collection{
		s:      s,
		prefix: s.cfg.Prefix + r.Key + "/",
		tree:   btree.NewG(treeDegree, func(a, b *Entry) bool { return a.key < b.key }),
		log:    eventLog{budget: s.cfg.EventBytes},
		over:   make(chan struct{}),
	}
	c.res.Store(r)
	c.log.reset(s.revision)
	if len(r.Indexes) > 0 {
		c.indexes = make(map[string]index, len(r.Indexes))
		for name := range r.Indexes {
			c.indexes[name] = index{}
		}
	}
	return c
}

// Resource is the row that the collection belongs to.
func (c *Collection) Resource() *api.Resource { return c.res.Load() }

func (c *Collection) get(key string) *Entry {
	probe := probes.Get().(*Entry)
	probe.key = key
	e, _ := c.tree.Get(probe)
	probe.key = ""
	probes.Put(probe)
	return e
}

// probes are entries with nothing but a key, which the tree compares with its own.
var probes = sync.Pool{New: func() any { return new(Entry) }}

// insert puts an entry in the place of the one with its key. Called with the store's lock held.
func (c *Collection) insert(e *Entry) {
	old, replaced := c.tree.ReplaceOrInsert(e)
	c.listed.Store(nil)
	if c.changes != nil {
		c.changes.Add(1)
	}
	for name, idx := range c.indexes {
		values := c.Resource().Indexes[name]
		if replaced {
			idx.remove(values(old.Object()), old.key)
		}
		for _, v := range values(e.Object()) {
			if idx[v] == nil {
				idx[v] = map[string]*Entry{}
			}
			idx[v][e.key] = e
		}
	}
}

// remove takes an entry out. Called with the store's lock held.
func (c *Collection) remove(e *Entry) {
	c.tree.Delete(e)
	c.listed.Store(nil)
	if c.changes != nil {
		c.changes.Add(1)
	}
	for name, idx := range c.indexes {
		idx.remove(c.Resource().Indexes[name](e.Object()), e.key)
	}
}

func (i index) remove(values []string, key string) {
	for _, v := range values {
		delete(i[v], key)
		if len(i[v]) == 0 {
			delete(i, v)
		}
	}
}

// Observe counts into n what the collection holds and how often it changes from now on: as long as n is zero, nothing has ever been there, and who
// has seen n and read the collection has read nothing older. There is one observer.
func (c *Collection) Observe(n *atomic.Int64) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.changes = n
	n.Add(int64(c.tree.Len()))
}

// Len is the number of entries in memory.
func (c *Collection) Len() int {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	return c.tree.Len()
}

// Read says how fresh a read must be.
type Read struct {
	// Consistent: as of now (resourceVersion=""). Otherwise whatever memory holds, at least MinRevision.
	Consistent  bool
	MinRevision int64
}

// settle waits until memory is as fresh as r demands.
func (s *Store) settle(ctx context.Context, r Read) error {
	if r.Consistent {
		if _, err := s.Wait(ctx); err != nil {
			return err
		}
	}
	return s.waitFor(ctx, r.MinRevision)
}

// Get returns nil, nil when there is no such key.
func (c *Collection) Get(ctx context.Context, key string, read Read) (*Entry, error) {
	if err := c.s.settle(ctx, read); err != nil {
		return nil, err
	}
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	return c.get(key), nil
}

// Predicate selects entries. The zero value selects everything.
type Predicate struct {
	Namespace string          // "" = all
	Name      string          // "" = all
	Labels    labels.Selector // nil = all
	Fields    fields.Selector // nil = all
	// Index narrows the search to entries with Value in the row's index of that name.
	Index, Value string
	// FieldsOf, if set, are the selectable fields in the place of the collection's row's (another version of a custom resource).
	FieldsOf func(obj api.Object) fields.Fields
}

// within says whether the key lies in the predicate's namespace and has its name.
func (p *Predicate) within(key string) bool {
	ns, name := "", key
	if i := strings.IndexByte(key, '/'); i >= 0 {
		ns, name = key[:i], key[i+1:]
	}
	return (p.Namespace == "" || p.Namespace == ns) && (p.Name == "" || p.Name == name)
}

// selects says whether there is more to look at than the key.
func (p *Predicate) selects() bool {
	return p.Labels != nil && !p.Labels.Empty() || p.Fields != nil && !p.Fields.Empty() || p.Index != ""
}

func (p *Predicate) match(c *Collection, e *Entry) bool {
	if !p.within(e.key) {
		return false
	}
	if !p.selects() {
		return true
	}
	obj := e.Object()
	if p.Index != "" && !slices.Contains(c.Resource().Indexes[p.Index](obj), p.Value) {
		return false
	}
	if p.Labels != nil && !p.Labels.Empty() && !p.Labels.Matches(labels.Set(obj.GetLabels())) {
		return false
	}
	return p.Fields == nil || p.Fields.Empty() || p.Fields.Matches(c.fieldsOf(p, obj))
}

// fieldsOf are the fields that a selector may name.
func (c *Collection) fieldsOf(p *Predicate, obj api.Object) fields.Fields {
	if p.FieldsOf != nil {
		return p.FieldsOf(obj)
	}
	return c.Resource().FieldsOf(obj)
}

// each calls f with the selected entries in key order, from key `from` on, until f returns false. Called with the store's lock held for reading;
// tree is the collection's own or a snapshot's.
func (c *Collection) each(tree *btree.BTreeG[*Entry], p *Predicate, from string, f func(*Entry) bool) {
	if p.Index != "" && tree == c.tree {
		c.eachIndexed(p, from, f)
		return
	}
	if p.Namespace != "" && p.Name != "" || p.Name != "" && !c.Resource().Namespaced {
		key := p.Name
		if c.Resource().Namespaced {
			key = p.Namespace + "/" + p.Name
		}
		if e, ok := tree.Get(&Entry{key: key}); ok && e.key >= from && p.match(c, e) {
			f(e)
		}
		return
	}
	low, ns := from, ""
	if p.Namespace != "" {
		ns = p.Namespace + "/"
		low = max(low, ns)
	}
	every := p.Name == "" && !p.selects()
	tree.AscendGreaterOrEqual(&Entry{key: low}, func(e *Entry) bool {
		if !strings.HasPrefix(e.key, ns) {
			return false
		}
		return !every && !p.match(c, e) || f(e)
	})
}

// snapshot is the tree at one revision, kept for the next pages of a list.
type snapshot struct {
	revision int64
	tree     *btree.BTreeG[*Entry]
}
