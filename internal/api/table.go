package api

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Table holds the rows. Built-in rows are there from New on; rows of custom resources come and go at run time.
type Table struct {
	mu   sync.RWMutex
	rows []*Resource
	byGR map[schema.GroupResource]*Resource
	byGK map[schema.GroupKind]*Resource
	// changed is closed, and replaced, when rows come or go.
	changed chan struct{}
}

// NewTable returns a table of all built-in resources, with those of the optional group-versions that are named.
func NewTable(also ...string) *Table {
	t := &Table{byGR: map[schema.GroupResource]*Resource{}, byGK: map[schema.GroupKind]*Resource{}, changed: make(chan struct{})}
	grouped := slices.Contains(also, PodGroupAPI)
	for _, r := range builtin() {
		if !grouped {
			withoutGroups(r)
		}
		t.Add(r)
	}
	for _, name := range also {
		for _, r := range optional[name]() {
			t.Add(r)
		}
	}
	return t
}

// Serves says whether the table has a resource whose stored version is of a group-version.
func (t *Table) Serves(groupVersion string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.ContainsFunc(t.rows, func(r *Resource) bool { return r.GVK().GroupVersion().String() == groupVersion })
}

// Add puts a row into the table, under its own group and under each of Also's, in the place of one of the same group and plural if there is one.
func (t *Table) Add(r *Resource) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.byGR[r.GroupResource()]; old != nil {
		t.unlist(old)
		t.rows[slices.Index(t.rows, old)] = r
	} else {
		t.rows = append(t.rows, r)
	}
	t.list(r)
	t.announce()
}

// Remove takes a row out again; what is not in the table (any more) stays out.
func (t *Table) Remove(r *Resource) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.Index(t.rows, r)
	if at < 0 {
		return
	}
	t.unlist(r)
	t.rows = slices.Delete(t.rows, at, at+1)
	t.announce()
}

// Changed is closed when rows have come or gone. Who follows the table asks for it first, then reads the rows.
func (t *Table) Changed() <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.changed
}

// announce tells those who wait for Changed. Called with mu held.
func (t *Table) announce() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// list makes a row findable. Called with mu held.
func (t *Table) list(r *Resource) {
	t.byGR[r.GroupResource()] = r
	t.byGK[r.GVK().GroupKind()] = r
	for i := range r.Also {
		s := &r.Also[i]
		if s.row = s.Own; s.row == nil {
			s.row = &Resource{
				Group: s.Group, Version: s.Version, Kind: s.Kind, Plural: r.Plural, Singular: r.Singular, Namespaced: r.Namespaced,
				New: s.New, NewList: s.NewList, Columns: s.Columns,
			}
		}
		t.byGR[schema.GroupResource{Group: s.Group, Resource: r.Plural}] = r
		t.byGK[schema.GroupKind{Group: s.Group, Kind: s.Kind}] = r
	}
}

// unlist is list's opposite. Called with mu held.
func (t *Table) unlist(r *Resource) {
	delete(t.byGR, r.GroupResource())
	delete(t.byGK, r.GVK().GroupKind())
	for i := range r.Also {
		s := &r.Also[i]
		delete(t.byGR, schema.GroupResource{Group: s.Group, Resource: r.Plural})
		delete(t.byGK, schema.GroupKind{Group: s.Group, Kind: s.Kind})
	}
}

// ByResource and ByKind find a row; nil if there is none. ByKind does not find list kinds.
func (t *Table) ByResource(gr schema.GroupResource) *Resource {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byGR[gr]
}
func (t *Table) ByKind(gk schema.GroupKind) *Resource {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byGK[gk]
}

// All returns the rows in the order they were added. The slice is the caller's.
func (t *Table) All() []*Resource {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return append([]*Resource(nil), t.rows...)
}

// Scheme knows every Go type the table serves, and nothing else. Built once, read-only afterwards.
func Scheme() *runtime.Scheme { return scheme }
