// Package fieldmanager knows who owns which field of an object (KEP-555): it keeps metadata.managedFields and does the merge of a server-side
// apply. It sees objects only, never the store or a request; the registry alone calls it, once for each write.
//
// The rules are apimachinery's own (package managedfields over structured-merge-diff); this package gives it types, versions and the fields
// that a subresource may own, and decides what is worth tracking. Its invariant: whatever somebody outside the process wrote or will conflict
// with is tracked as upstream tracks it. Writes of Skiff's own parts cost nothing until that matters:
//
//   - An object that a part creates begins without entries. The first write from outside gives all its fields to the part that made it,
//     by the name that upstream's part has, and from then on everybody's writes are tracked.
//   - Status that parts write is not tracked before somebody outside writes status too; that write gives what is there to the part.
//
// So a list of managedFields that nobody outside has needed yet is shorter than upstream's; no apply ends differently for it. Entries stay as
// they are stored, encoded, until a write needs them.
package fieldmanager

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"sync"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"skiff.dev/skiff/internal/api"
)

// Write is one write: by whom, to what.
type Write struct {
	Resource    *api.Resource
	Served      *api.Served // nil: the request speaks the stored version
	Subresource string
	Manager     string
	Inside      bool // by a part of Skiff that doesn't name itself a field manager
}

func (w Write) gvk() schema.GroupVersionKind {
	if w.Served != nil {
		return schema.GroupVersionKind{Group: w.Served.Group, Version: w.Served.Version, Kind: w.Served.Kind}
	}
	return w.Resource.GVK()
}

// stored is the same write in the stored version, to another subresource.
func (w Write) stored(subresource string) Write {
	w.Served, w.Subresource = nil, subresource
	return w
}

// Managers of all kinds; each is made when it is first needed.
type Managers struct {
	table *api.Table

	mu    sync.Mutex
	kinds map[kindKey]manager
	scale *managedfields.FieldManager
}

// New makes none yet: the schemas of the built-in kinds take a tenth of a second to parse and a megabyte to keep. The
// table knows the versions of custom resources.
func New(table *api.Table) *Managers { return &Managers{table: table, kinds: map[kindKey]manager{}} }

// Warm parses the schemas before somebody waits for them.
func (m *Managers) Warm() { builtin() }

// Update sets obj's managedFields after a write that was no apply. old is nil on create. obj is in its stored version and as the writer made it,
// defaulted: what admission or the server add belongs to nobody. Entries that obj brings along are heeded as upstream heeds them.
func (m *Managers) Update(w Write, old, obj api.Object) error {
	obj.GetObjectKind().SetGroupVersionKind(w.Resource.GVK())
	if w.Inside && (old == nil || !tracked(w.Subresource, old)) {
		obj.SetManagedFields(nil)
		if old != nil {
			obj.SetManagedFields(old.GetManagedFields())
		}
		return nil
	}
	if old == nil && !w.Inside && m.created(w, obj) {
		return nil
	}
	return m.compared(w, old, obj)
}

// compared is Update by comparing with what was there.
func (m *Managers) compared(w Write, old, obj api.Object) error {
	f, err := m.of(w)
	if err != nil {
		return err
	}
	live := empty(w.Resource)
	if old != nil {
		if live, err = m.claimed(w, old, resets(obj)); err != nil {
			return err
		}
	}
	if w.Inside {
		obj.SetManagedFields(nil) // whatever the part has kept; the live ones count
	}
	if _, err := f.Update(live, obj, w.Manager); err != nil {
		obj.SetManagedFields(live.GetManagedFields())
		return fmt.Errorf("track the fields of %s %s: %w", w.Resource.Kind, obj.GetName(), err)
	}
	return nil
}

// Apply merges what somebody applies into live, which is empty (no UID) to create. The result, in the stored version, is the caller's. Its
// error is a Conflict that lists the fields others own, unless forced; or whatever is wrong with the applied object.
func (m *Managers) Apply(w Write, live api.Object, applied *unstructured.Unstructured, force bool) (api.Object, error) {
	f, err := m.of(w)
	if err != nil {
		return nil, err
	}
	if live.GetUID() != "" {
		if live, err = m.claimed(w, live, false); err != nil {
			return nil, err
		}
	}
	out, err := f.Apply(live, applied, w.Manager, force)
	if err != nil {
		return nil, status(err)
	}
	return out.(api.Object), nil
}

// status makes an error one that the API can answer with. What upstream has no reason for has none here.
func status(err error) error {
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		return err
	}
	if text := err.Error(); strings.HasPrefix(text, "failed to create typed patch object") || strings.Contains(text, unfit) {
		return untyped(text)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}}
}

// unfit says that what a merge made is no object of its Go type. It is found in the text: apimachinery keeps nothing else of an error.
const unfit = "it does not fit its kind: "

// untyped: what is applied does not fit its kind's schema, which is the client's fault; upstream's words, with a cause for each field that is not of
// the kind.
func untyped(message string) error {
	refusal := apierrors.NewBadRequest(message)
	refusal.ErrStatus.Details = &metav1.StatusDetails{}
	for _, part := range unknownField.FindAllStringSubmatch(message, -1) {
		refusal.ErrStatus.Details.Causes = append(refusal.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: metav1.CauseTypeFieldValueInvalid, Field: strings.TrimPrefix(part[1], "."), Message: "field not declared in schema",
		})
	}
	return refusal
}

var unknownField = regexp.MustCompile(`(\.\S+): field not declared in schema`)

// tracked says whether a part's write to an object must be.
func tracked(subresource string, old api.Object) bool {
	entries := old.GetManagedFields()
	if subresource != "status" {
		return len(entries) > 0
	}
	return ownsStatus(entries)
}

var statusField = []byte(`"f:status"`)

// ownsStatus says whether anybody may own a field of the status. It reads no JSON: a field of that name elsewhere costs time, nothing else.
func ownsStatus(entries []metav1.ManagedFieldsEntry) bool {
	for i := range entries {
		if bytes.Contains(entries[i].FieldsV1.GetRawBytes(), statusField) {
			return true
		}
	}
	return false
}

// resets says that the writer wants the entries gone.
func resets(obj api.Object) bool {
	entries := obj.GetManagedFields()
	if len(entries) == 0 {
		return entries != nil
	}
	return len(entries) == 1 && reflect.DeepEqual(entries[0], metav1.ManagedFieldsEntry{})
}

// SameButTimes says that a write changed nothing but the time at which somebody last wrote: it need not be stored.
func SameButTimes(obj, old api.Object) bool {
	a, b := obj.GetManagedFields(), old.GetManagedFields()
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		x.Time, y.Time = nil, nil
		if !apiequality.Semantic.DeepEqual(x, y) {
			return false
		}
	}
	obj.SetManagedFields(b)
	defer obj.SetManagedFields(a)
	return apiequality.Semantic.DeepEqual(obj, old)
}

// empty is an object of the stored version with nothing in it.
func empty(r *api.Resource) api.Object {
	obj := r.New()
	obj.GetObjectKind().SetGroupVersionKind(r.GVK())
	return obj
}

// shallow is a copy whose metadata can be set; the rest is shared.
func shallow(r *api.Resource, obj api.Object) api.Object {
	if _, ok := obj.(runtime.Unstructured); ok {
		return obj.DeepCopyObject().(api.Object)
	}
	out := r.New()
	reflect.ValueOf(out).Elem().Set(reflect.ValueOf(obj).Elem())
	return out
}
