package api

import (
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
}

// NewTable returns a table of all built-in resources.
func NewTable() *Table {
	t := &Table{byGR: map[schema.GroupResource]*Resource{}, byGK: map[schema.GroupKind]*Resource{}}
	for _, r := range builtin() {
		t.Add(r)
	}
	return t
}

// Add puts a row into the table, under its own group and under each of Also's.
func (t *Table) Add(r *Resource) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
	t.byGR[r.GroupResource()] = r
	t.byGK[r.GVK().GroupKind()] = r
	for i := range r.Also {
		s := &r.Also[i]
		s.row = &Resource{
			Group: s.Group, Version: s.Version, Kind: s.Kind, Plural: r.Plural, Singular: r.Singular, Namespaced: r.Namespaced,
			New: s.New, NewList: s.NewList, Columns: s.Columns,
		}
		t.byGR[schema.GroupResource{Group: s.Group, Resource: r.Plural}] = r
		t.byGK[schema.GroupKind{Group: s.Group, Kind: s.Kind}] = r
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
