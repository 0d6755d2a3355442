// Package api is the table of everything Skiff serves: one Resource row a kind, one file an API group.
//
// A row is data (names, scope, storage key, printer columns) plus the few functions that make a kind special
// (defaults, validation, preparation). There are no internal types: the stored version is k8s.io/api's Go type.
// The package does no I/O and keeps no state; registry, apiserver and the clients read the table.
package api

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is what a stored kind is: typed metadata and a runtime type.
type Object interface {
	metav1.Object
	runtime.Object
}

// Resource is one row of the table.
type Resource struct {
	Group, Version, Kind string
	Plural, Singular     string   // Singular defaults to the lower-cased Kind
	Short, Categories    []string // "po"; "all"
	Namespaced           bool

	// Key is the path below /registry/ that upstream stores the kind at ("pods", "services/specs", "minions").
	// Empty means the kind isn't stored: it is only created (SubjectAccessReview, TokenReview, Binding …), or only read (PodMetrics …).
	Key string
	// Cold kinds keep only their encoded bytes in memory and are decoded on use.
	Cold bool
	// Transient kinds go by themselves: the store has etcd take away what has not been written for a time (--event-ttl).
	Transient bool

	New     func() Object         // a zero object of the stored type
	NewList func() runtime.Object // its list

	// Verbs the main resource offers; nil means all of AllVerbs. Unstored kinds: {"create"} or {"get", "list"}.
	Verbs []string

	// Status says that the kind has a status subresource: writes to the main resource keep the old status, writes to
	// /status keep everything else (registry does both, by the fields named Spec and Status).
	Status bool
	// StatusMeta takes into an object what of the given one's metadata a write to status may change. Built-in kinds with a status have one unless
	// StatusAlone is set, which says that nothing may.
	StatusMeta  func(into, given Object)
	StatusAlone bool
	// Generation says that metadata.generation counts changes of everything but metadata and status.
	Generation bool
	// Counts, if set, says that a change counts for the generation though only metadata changed.
	Counts func(obj, old Object) bool
	// Subresources beyond status, by their names ("scale", "binding", "log").
	Subresources []Subresource
	// Scale, if set, makes /scale work.
	Scale *Scale

	Default        func(obj Object)                        // fills defaults; idempotent
	PrepareCreate  func(obj Object)                        // drops what a client may not set
	PrepareUpdate  func(obj, old Object)                   // likewise; the generic rules run before it
	PrepareStatus  func(obj, old Object)                   // likewise, on update of status
	Validate       func(obj Object) field.ErrorList        // whole object, on create; generic metadata checks run before it
	ValidateUpdate func(obj, old Object) field.ErrorList   // on update: includes whatever of Validate applies
	ValidateMain   func(obj, old Object) field.ErrorList   // on an update through no subresource, besides: refuses what only a subresource changes
	ValidateStatus func(obj, old Object) field.ErrorList   // on update of status; optional
	Warn           func(obj, old Object) []string          // deprecation and similar warnings; old is nil on create
	ValidateName   func(name string, prefix bool) []string // nil means DNS-1123 subdomain
	Fields         func(obj Object) fields.Set             // selectable fields beyond metadata.name/namespace
	Indexes        map[string]func(obj Object) []string    // in-memory indexes by name, e.g. "spec.nodeName"
	Columns        []Column                                // printer columns; nil means Name and Age
	// GracefulDelete, if set, says how long the deletion of obj may take (pods): zero means at once.
	GracefulDelete func(obj Object, opts *metav1.DeleteOptions) (seconds int64)
	// Keep, if set, says why obj may not be deleted, neither by itself nor with a collection.
	Keep func(obj Object) error
	// DefaultPropagation is what a delete without a propagationPolicy means; "" means Background.
	DefaultPropagation metav1.DeletionPropagation

	// StatusOnCreate lets a create carry a status (nodes register themselves with theirs).
	StatusOnCreate bool
	// Held, if set, says that obj may not go yet although nothing in its metadata keeps it (a namespace's spec.finalizers).
	Held func(obj Object) bool
	// Terminating, if set, marks obj once its deletion has begun (a namespace's phase).
	Terminating func(obj Object)

	// Share, if set, puts parts that many objects have alike in the place of obj's own, before anybody sees obj. old is what obj was made of, or nil.
	Share func(obj, old Object, p *Pool)

	// Deprecated, if set, is what everybody who uses the resource is warned of.
	Deprecated string

	// Decode, if set, reads a stored JSON value that New's type can't (an older version's).
	Decode func(value []byte) (Object, error)
	// CreateOnUpdate says that an update of what there is not creates it.
	CreateOnUpdate bool
	// Conditional says that an update must name the resourceVersion that it was made of.
	Conditional bool

	// Also lists further group-versions the same stored objects are served as.
	Also []Served
	// Custom is set for custom resources alone.
	Custom *Custom
}

// Served is one more version of a resource, converted at the edge.
type Served struct {
	Group, Version, Kind string
	New                  func() Object
	NewList              func() runtime.Object
	To                   func(stored Object) Object // stored → served
	From                 func(served Object) Object // served → stored
	Columns              []Column
	// Fields, if set, are those that this version's field selectors may name, beside metadata's: the stored version's name of each.
	Fields map[string]string
	// Own, if set, is the row that rules the version: requests in it are about that row, which converts for itself (custom resources).
	Own *Resource

	row *Resource
}

// Row is what the served version looks like as a resource of its own: names and constructors. The table sets it.
func (s *Served) Row() *Resource { return s.row }

// Subresource names one subresource and the kind its body has.
type Subresource struct {
	Name                 string
	Group, Version, Kind string // of the body; empty: the resource's own
	Verbs                []string
	New                  func() runtime.Object // body of a write; nil for connect-style subresources
	// Change, for a subresource whose body is the object itself, takes into the stored object what of the given one may be changed here.
	Change func(into, given Object)
}

// Scale reads and writes the replica count of an object.
type Scale struct {
	Get func(obj Object) (spec, status int32, selector string)
	Set func(obj Object, replicas int32)
}

// Column is one printer column, as `kubectl get` shows it. Priority > 0 columns appear with -o wide.
type Column struct {
	Name, Type, Format, Description string // Type: "string" (default), "integer", "date"
	Priority                        int32
	Cell                            func(obj Object, now time.Time) any
}

// GVK, GVR and GroupResource of the stored version.
// FieldsOf are the fields of obj that a selector may name: metadata's, and the row's own.
func (r *Resource) FieldsOf(obj Object) fields.Fields { return &selectable{row: r, obj: obj} }

// selectable are the fields of an object for one selector. Its row's own are gathered when the first of them is asked for: most selectors know metadata's only.
type selectable struct {
	row *Resource
	obj Object
	own fields.Set
}

// Has implements fields.Fields.
func (s *selectable) Has(name string) bool {
	switch name {
	case "metadata.name":
		return true
	case "metadata.namespace":
		return s.row.Namespaced
	}
	return s.gathered().Has(name)
}

// Get implements fields.Fields.
func (s *selectable) Get(name string) string {
	switch {
	case name == "metadata.name":
		return s.obj.GetName()
	case name == "metadata.namespace" && s.row.Namespaced:
		return s.obj.GetNamespace()
	}
	return s.gathered().Get(name)
}

func (s *selectable) gathered() fields.Set {
	if s.own == nil && s.row.Fields != nil {
		s.own = s.row.Fields(s.obj)
	}
	return s.own
}

func (r *Resource) GVK() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
}
func (r *Resource) GVR() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Plural}
}
func (r *Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Plural}
}
