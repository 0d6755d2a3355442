// Package registry is the API as Go calls: what a request means, between whoever speaks it (HTTP handlers, the in-process client) and the store.
//
// It owns the rules that hold for every resource (names, metadata, generation, preconditions, graceful deletion, finalizers, subresources) and runs
// the row's own functions and admission between them. It also owns what must be unique in a cluster: cluster IPs and node ports. Its invariant:
// what reaches the store has been defaulted, admitted and validated. Callers have authorized the request; they hand in objects that are theirs to
// give away, and get back objects that are shared.
package registry

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/fieldmanager"
	"skiff.dev/skiff/internal/store"
)

// Config of a registry.
type Config struct {
	Store *store.Store
	Table *api.Table
	Log   *slog.Logger

	ServiceCIDRs  []netip.Prefix // one, or one of each family, the primary first; cluster IPs are allocated here
	NodePortRange string         // "30000-32767"
	Advertise     netip.AddrPort // where pods reach the API server; the endpoints of the Service kubernetes

	Admit    []Admit    // mutating admission, in order
	Validate []Validate // validating admission, after defaults and validation
}

// Attributes is what admission sees. Object is nil on delete, Old on create. Admit may change Object only.
type Attributes struct {
	*Request
	Operation string // CREATE, UPDATE, DELETE, CONNECT
	Object    runtime.Object
	Old       runtime.Object
	DryRun    bool
	Options   runtime.Object // what the request came with; may be nil
	Registry  *Registry

	// Mutated is set by whoever changed Object in a way that the rules for the request's fields must look at again.
	Mutated bool
	// Again is set by who wants that all of mutating admission looks at the object once more, which happens at most once.
	Again bool
	// Dynamic is what dynamic admission keeps of the request between its turns.
	Dynamic any

	undo []func(ctx context.Context) error
}

// Undo registers what is to be done if the request, which admission let through, is not carried out after all.
func (a *Attributes) Undo(f func(ctx context.Context) error) { a.undo = append(a.undo, f) }

// failed undoes what admission did for a request that was not carried out.
func (r *Registry) failed(ctx context.Context, a *Attributes) {
	ctx = context.WithoutCancel(ctx)
	for _, f := range a.undo {
		if err := f(ctx); err != nil {
			r.cfg.Log.Warn("what admission did for a request that failed could not be undone", "resource", a.Resource.Plural, "namespace", a.Namespace, "err", err)
		}
	}
	a.undo = nil
}

type (
	Admit    func(ctx context.Context, a *Attributes) error
	Validate func(ctx context.Context, a *Attributes) error
)

// warmAfter is when the schemas for field ownership are made ready.
const warmAfter = 3 * time.Second

// Registry serves every resource of the table.
type Registry struct {
	cfg      Config
	services *services
	managers *fieldmanager.Managers
	virtuals sync.Map // of Virtual, by path
	readers  sync.Map // of Reader, by path
	ready    chan struct{}
}

// New makes a registry that can be called once its store is ready.
func New(cfg Config) (*Registry, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := newServices(cfg)
	if err != nil {
		return nil, err
	}
	r := &Registry{cfg: cfg, services: s, managers: fieldmanager.New(cfg.Table), ready: make(chan struct{})}
	r.Handle("pods/binding", r.bind)
	r.Handle("bindings", r.bind)
	r.Handle("pods/eviction", r.evict)
	return r, nil
}

// Ready is closed once what must exist does.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// Run takes stock of the addresses that services hold and creates what must exist, then waits for ctx to end.
func (r *Registry) Run(ctx context.Context) error {
	if err := r.takeStock(ctx); err != nil {
		return err
	}
	if err := r.bootstrap(ctx); err != nil {
		return fmt.Errorf("create what every cluster has: %w", err)
	}
	close(r.ready)
	select { // not while the cluster starts, when there is enough to do; who writes sooner waits for it
	case <-time.After(warmAfter):
		r.managers.Warm()
	case <-ctx.Done():
	}
	<-ctx.Done()
	return nil
}

// Table of all resources.
func (r *Registry) Table() *api.Table { return r.cfg.Table }

// Store beneath the registry; for reading only.
func (r *Registry) Store() *store.Store { return r.cfg.Store }

// Request names what a call is about. Authorization has happened.
type Request struct {
	Resource    *api.Resource
	Served      *api.Served // non-nil: the request speaks this version of the resource, objects in and out are of it
	Subresource string
	Namespace   string
	Name        string
	User        user.Info
	UserAgent   string
	// Warn collects warnings for the client; may be nil.
	Warn func(text string)
	// MayCreate, if set, asks whether the user may create what an apply or update finds missing; nil answers yes.
	MayCreate func(ctx context.Context) error
	// Waited gets the nanoseconds that webhooks took; may be nil.
	Waited *atomic.Int64
	// Steps are told what takes the request's time; may be nil.
	Steps *Steps

	manager          string         // the field manager that the options name
	managed          bool           // the object's managedFields are as they shall be
	options          runtime.Object // of the call
	settledAdmission bool           // admission has seen what the request is about
}

// key of the object below its resource's.
func (q *Request) key() string {
	if q.Resource.Namespaced {
		return q.Namespace + "/" + q.Name
	}
	return q.Name
}

// View is a stored entry as the request's version shows it.
func (q *Request) View(e *store.Entry) *store.Entry {
	if q.Served == nil || e == nil {
		return e
	}
	return store.NewEntry(q.Served.Row(), q.Served.To(e.Object()))
}

// stored turns an object that came with the request into one of the stored version.
func (q *Request) stored(obj runtime.Object) (api.Object, error) {
	o, ok := obj.(api.Object)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%T is not an object that can be stored", obj))
	}
	if q.Served != nil {
		return q.Served.From(o), nil
	}
	return o, nil
}

func (q *Request) warn(texts []string) {
	if q.Warn == nil {
		return
	}
	for _, t := range texts {
		q.Warn(t)
	}
}

// groupKind and groupResource name the request's kind in errors.
func (q *Request) groupKind() schema.GroupKind {
	if q.Served != nil {
		return schema.GroupKind{Group: q.Served.Group, Kind: q.Served.Kind}
	}
	return q.Resource.GVK().GroupKind()
}

func (q *Request) groupResource() schema.GroupResource {
	if q.Served != nil {
		return schema.GroupResource{Group: q.Served.Group, Resource: q.Resource.Plural}
	}
	return q.Resource.GroupResource()
}

// Result of a write or read of one object. Object is always set; Entry too where the object is (or would be) stored, so that its
// encodings are shared.
type Result struct {
	Object  runtime.Object
	Entry   *store.Entry
	Created bool // an update or patch that created
	Deleted bool // a delete that removed the object at once (false: finalizers or grace keep it)
}

func (q *Request) result(e *store.Entry) *Result {
	e = q.View(e)
	return &Result{Object: e.Object(), Entry: e}
}

// Virtual answers creates of an unstored kind or subresource.
type Virtual func(ctx context.Context, req *Request, obj runtime.Object, dryRun bool) (runtime.Object, error)

// Handle registers a Virtual for "group/plural" or "group/plural/subresource" (core group: "pods/binding"). Parts in this process may be calling already.
func (r *Registry) Handle(path string, v Virtual) { r.virtuals.Store(path, v) }

func (r *Registry) virtual(q *Request) Virtual {
	v, _ := r.virtuals.Load(q.path())
	f, _ := v.(Virtual)
	return f
}

// path names what a request is about, as Handle and HandleRead do.
func (q *Request) path() string {
	path := q.Resource.Plural
	if q.Resource.Group != "" {
		path = q.Resource.Group + "/" + path
	}
	if q.Subresource != "" {
		path += "/" + q.Subresource
	}
	return path
}

// collection of a stored resource.
func (r *Registry) collection(q *Request) (*store.Collection, error) {
	if q.Resource.Key == "" {
		return nil, apierrors.NewMethodNotSupported(q.groupResource(), "get")
	}
	return r.opened(q.Resource)
}

func (r *Registry) admit(ctx context.Context, a *Attributes) error {
	if a.settledAdmission {
		return nil
	}
	if err := r.admitOnce(ctx, a); err != nil || !a.Again {
		return err
	}
	return r.admitOnce(ctx, a)
}

func (r *Registry) admitOnce(ctx context.Context, a *Attributes) error {
	for _, f := range r.cfg.Admit {
		if err := f(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) validate(ctx context.Context, a *Attributes) error {
	if a.settledAdmission {
		return nil
	}
	for _, f := range r.cfg.Validate {
		if err := f(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// Connect asks admission about a connection to a subresource (exec, proxy …).
func (r *Registry) Connect(ctx context.Context, q *Request, options runtime.Object) error {
	a := &Attributes{Request: q, Operation: "CONNECT", Object: options, Registry: r}
	if err := r.admit(ctx, a); err != nil {
		return err
	}
	return r.validate(ctx, a)
}
