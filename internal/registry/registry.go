// Package registry is the API as Go calls: what a request means, between whoever speaks it (HTTP handlers, the in-process client) and the store.
// SKELETON: signatures agreed with apiserver and client; the registry's author replaces the bodies.
package registry

import (
	"context"
	"log/slog"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

type Config struct {
	Store *store.Store
	Table *api.Table
	Log   *slog.Logger

	ServiceCIDRs  []string // "10.96.0.0/16"; cluster IPs are allocated here
	NodePortRange string   // "30000-32767"

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
	Registry  *Registry
}
type (
	Admit    func(ctx context.Context, a *Attributes) error
	Validate func(ctx context.Context, a *Attributes) error
)

// Registry serves every resource of the table.
type Registry struct{}

func New(cfg Config) *Registry { panic("skeleton") }

// Run keeps allocators repaired and creates what must exist (namespaces default, kube-system, kube-public, kube-node-lease; the kubernetes Service).
func (r *Registry) Run(ctx context.Context) error { panic("skeleton") }
func (r *Registry) Table() *api.Table             { panic("skeleton") }
func (r *Registry) Store() *store.Store           { panic("skeleton") }

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
}

// Result of a write or read of one object. Object is always set; Entry too where the object is (or would be) stored, so that its
// encodings are shared.
type Result struct {
	Object  runtime.Object
	Entry   *store.Entry
	Created bool // an update or patch that created
	Deleted bool // a delete that removed the object at once (false: finalizers or grace keep it)
}

func (r *Registry) Get(ctx context.Context, req *Request, o *metav1.GetOptions) (*Result, error) {
	panic("skeleton")
}

// List of a namespace (or all). Selectors are checked: an unknown field selector is a BadRequest.
func (r *Registry) List(ctx context.Context, req *Request, o *metainternalversion.ListOptions) (*store.Page, error) {
	panic("skeleton")
}
func (r *Registry) Watch(ctx context.Context, req *Request, o *metainternalversion.ListOptions) (*store.Watcher, error) {
	panic("skeleton")
}

// Create also serves POSTs to subresources (pods/binding, pods/eviction, serviceaccounts/token) and unstored kinds.
func (r *Registry) Create(ctx context.Context, req *Request, obj runtime.Object, o *metav1.CreateOptions) (*Result, error) {
	panic("skeleton")
}

// Update replaces the object (subresources "", status, scale, …).
func (r *Registry) Update(ctx context.Context, req *Request, obj runtime.Object, o *metav1.UpdateOptions) (*Result, error) {
	panic("skeleton")
}

// Patch applies a JSON, merge, strategic-merge or (server-side) apply patch, retrying on conflict unless the patch names a resourceVersion.
func (r *Registry) Patch(ctx context.Context, req *Request, kind types.PatchType, body []byte, o *metav1.PatchOptions) (*Result, error) {
	panic("skeleton")
}
func (r *Registry) Delete(ctx context.Context, req *Request, o *metav1.DeleteOptions) (*Result, error) {
	panic("skeleton")
}
func (r *Registry) DeleteCollection(ctx context.Context, req *Request, o *metav1.DeleteOptions, l *metainternalversion.ListOptions) ([]*store.Entry, error) {
	panic("skeleton")
}

// Virtual answers creates of an unstored kind or subresource.
type Virtual func(ctx context.Context, req *Request, obj runtime.Object, dryRun bool) (runtime.Object, error)

// Handle registers a Virtual for "group/plural" or "group/plural/subresource" (core group: "pods/binding"). Before Run only. The registry itself
// has pods/binding, pods/eviction; apiserver registers the reviews and serviceaccounts/token.
func (r *Registry) Handle(path string, v Virtual) { panic("skeleton") }
