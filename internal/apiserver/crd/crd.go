// Package crd makes custom resources of CustomResourceDefinitions: it decides which names a definition gets and whether it is served, puts its
// versions into the table as rows with functions that its schema drives, and ends its objects before it goes.
//
// It owns the rows of custom resources, when their collections open and close, and the definitions' conditions and accepted names. Its invariants:
// a definition is established no sooner than requests for it are answered here; no custom resource takes a name that something else has; a
// definition's finalizer goes only when no object is left. Schemas are compiled when the first object needs them, so a definition that nobody uses
// costs little more than its bytes. On disk there are only the definitions (/registry/apiextensions.k8s.io/customresourcedefinitions/<name>) and the
// objects (/registry/<group>/<plural>/…), as upstream keeps them.
//
// Package host runs it beside the API server, whose table it fills.
package crd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

var definitions = schema.GroupResource{Group: apiextensionsv1.GroupName, Resource: "customresourcedefinitions"}

// itself is who writes the definitions' conditions and ends their objects.
var itself = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// Config of the custom resources.
type Config struct {
	Registry *registry.Registry
	Log      *slog.Logger
}

// Resources are all custom resources there are.
type Resources struct {
	reg   *registry.Registry
	row   *api.Resource // of the definitions
	log   *slog.Logger
	ready chan struct{}

	known   map[string]*definition // by name; Run's goroutine alone uses it
	endings sync.WaitGroup
}

// definition is what is kept of each: no schema.
type definition struct {
	uid        types.UID
	group      string
	names      apiextensionsv1.CustomResourceDefinitionNames // accepted
	row        *api.Resource                                 // in the table; nil if not served
	generation int64                                         // of row
	checked    int64                                         // the generation whose schemas were looked at
	closing    bool
	stopEnding context.CancelFunc // of the goroutine that ends its objects
}

// New returns the custom resources, of which none is served before Run.
func New(cfg Config) *Resources {
	return &Resources{
		reg: cfg.Registry, row: cfg.Registry.Table().ByResource(definitions), log: cfg.Log,
		ready: make(chan struct{}), known: map[string]*definition{},
	}
}

// Ready is closed once every established definition is served.
func (r *Resources) Ready() <-chan struct{} { return r.ready }

const batch = 64

// Run follows the definitions until ctx ends.
func (r *Resources) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.endings.Wait()
	defer cancel()
	w, err := r.reg.Store().Collection(r.row).Watch(ctx, store.WatchOptions{Any: true, Initial: true, Bookmarks: true, Keep: true})
	if err != nil {
		return fmt.Errorf("follow the definitions of custom resources: %w", err)
	}
	defer w.Stop()
	var later []string // until all names are known
	isReady := false
	buf := make([]store.Event, 0, batch)
	for {
		if buf, err = w.Next(ctx, buf, batch); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("follow the definitions of custom resources: %w", err)
		}
		for i := range buf {
			e := &buf[i]
			switch {
			case e.Type == store.Deleted:
				r.forget(ctx, e.Entry)
			case e.Type != store.Bookmark && isReady:
				r.reconcile(ctx, e.Entry.Object().(*apiextensionsv1.CustomResourceDefinition))
			case e.Type != store.Bookmark:
				if !r.learn(e.Entry.Object().(*apiextensionsv1.CustomResourceDefinition)) {
					later = append(later, e.Entry.Key())
				}
			case e.InitialEnd:
				close(r.ready)
				isReady = true
				r.again(ctx, later)
				later = nil
			}
			buf[i] = store.Event{}
		}
	}
}

// learn takes a definition in as it is, at the start: its names are its own, and it is served if it was. It says whether that is all there is to do.
func (r *Resources) learn(crd *apiextensionsv1.CustomResourceDefinition) (settled bool) {
	d := &definition{uid: crd.UID, group: crd.Spec.Group, names: crd.Status.AcceptedNames}
	r.known[crd.Name] = d
	r.serve(d, crd)
	if d.row != nil {
		d.checked = crd.Generation
	}
	return d.row != nil && crd.DeletionTimestamp == nil && apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.NamesAccepted) &&
		apiequality.Semantic.DeepEqual(crd.Spec.Names, crd.Status.AcceptedNames)
}

// again looks once more at definitions, by name.
func (r *Resources) again(ctx context.Context, names []string) {
	c := r.reg.Store().Collection(r.row)
	for _, name := range names {
		if e, err := c.Get(ctx, name, store.Read{}); err == nil && e != nil {
			r.reconcile(ctx, e.Object().(*apiextensionsv1.CustomResourceDefinition))
		}
	}
}

// reconcile serves a definition as far as it may be, says so in its status, and begins to end it if it shall go.
func (r *Resources) reconcile(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) {
	d := r.known[crd.Name]
	if d != nil && d.uid != crd.UID {
		r.drop(d)
		d = nil
	}
	if d == nil {
		d = &definition{uid: crd.UID, group: crd.Spec.Group}
		r.known[crd.Name] = d
	}
	released := d.names
	decided := crd.DeepCopy()
	decide(decided, r.taken(crd.Name, crd.Spec.Group), d.checked != crd.Generation)
	d.checked = crd.Generation
	d.names = decided.Status.AcceptedNames
	r.serve(d, decided)
	if !apiequality.Semantic.DeepEqual(decided.Status, crd.Status) {
		r.write(ctx, decided)
	}
	if decided.DeletionTimestamp != nil && apihelpers.CRDHasFinalizer(decided, apiextensionsv1.CustomResourceCleanupFinalizer) {
		r.beginEnding(ctx, d, decided)
	}
	if !apiequality.Semantic.DeepEqual(released, d.names) {
		r.againInGroup(ctx, d.group, crd.Name)
	}
}

// forget takes a deleted definition's rows away and lets others have its names.
func (r *Resources) forget(ctx context.Context, e *store.Entry) {
	d := r.known[e.Key()]
	if d == nil {
		return
	}
	delete(r.known, e.Key())
	r.drop(d)
	r.againInGroup(ctx, d.group, e.Key())
}

// againInGroup looks again at the definitions of a group that did not get their names.
func (r *Resources) againInGroup(ctx context.Context, group, but string) {
	var names []string
	for name, d := range r.known {
		if d.group == group && name != but && d.row == nil {
			names = append(names, name)
		}
	}
	r.again(ctx, names)
}

// taken are the names of a group that others have.
func (r *Resources) taken(name, group string) names {
	out := names{resources: map[string]bool{}, kinds: map[string]bool{}}
	for other, d := range r.known {
		if d.group == group && other != name {
			out.add(d.names)
		}
	}
	for _, row := range r.reg.Table().All() {
		if row.Group == group && row.Custom == nil {
			out.add(apiextensionsv1.CustomResourceDefinitionNames{
				Plural: row.Plural, Singular: row.Singular, ShortNames: row.Short, Kind: row.Kind, ListKind: row.Kind + "List",
			})
		}
	}
	return out
}

// serve puts an established definition's row into the table, or a new one in its place if anything has changed that shows.
func (r *Resources) serve(d *definition, crd *apiextensionsv1.CustomResourceDefinition) {
	if !apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) {
		return
	}
	closing := apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Terminating) || crd.DeletionTimestamp != nil
	if d.row != nil && d.generation == crd.Generation && d.closing == closing && sameNames(d.row, &crd.Status.AcceptedNames) {
		return
	}
	row, err := r.rowOf(crd, closing)
	if err != nil {
		r.log.Error("a definition can't be served", "definition", crd.Name, "err", err)
		return
	}
	d.row, d.generation, d.closing, d.names = row, crd.Generation, closing, crd.Status.AcceptedNames
	r.reg.Store().Renew(row)
	r.reg.Table().Add(row)
}

// drop takes a definition's row out of the table and closes its collection.
func (r *Resources) drop(d *definition) {
	if d.stopEnding != nil {
		d.stopEnding()
	}
	if d.row == nil {
		return
	}
	r.reg.Table().Remove(d.row)
	r.reg.Store().Close(d.row)
	d.row = nil
}

// request about a definition.
func (r *Resources) request(name, subresource string) *registry.Request {
	return &registry.Request{Resource: r.row, Name: name, Subresource: subresource, User: itself}
}

// write stores a definition's status. Who changed the definition in the meantime woke us again.
func (r *Resources) write(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) {
	_, err := r.reg.Update(ctx, r.request(crd.Name, "status"), crd, &metav1.UpdateOptions{})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !errors.Is(err, context.Canceled) {
		r.log.Error("a definition's status can't be written", "definition", crd.Name, "err", err)
	}
}
