// Package registrytest starts a real registry over a real store and embedded etcd for tests, and ends them with the test.
package registrytest

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/etcd"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// Admin may do everything.
var Admin = &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// ClientsFault checks that an error, if there is one, is the client's, with a reason.
func ClientsFault(t testing.TB, err error) {
	t.Helper()
	var s apierrors.APIStatus
	if err != nil && (!errors.As(err, &s) || s.Status().Code < 400 || s.Status().Code >= 500 || s.Status().Reason == "" || s.Status().Message == "") {
		t.Fatalf("refused as %v", err)
	}
}

// Registry is a running registry, and short ways to fill it.
type Registry struct {
	*registry.Registry
	t    testing.TB
	Etcd *etcd.Client // beneath it, for what others write; nil if the test has started the registry itself
}

// Start returns once the registry is ready: its namespaces exist, nothing else does. change may alter its configuration.
func Start(t testing.TB, admit []registry.Admit, validate []registry.Validate, change ...func(*registry.Config)) *Registry {
	t.Helper()
	return StartServing(t, nil, admit, validate, change...)
}

// StartServing does the same with optional group-versions.
func StartServing(t testing.TB, also []string, admit []registry.Admit, validate []registry.Validate, change ...func(*registry.Config)) *Registry {
	t.Helper()
	m, err := etcd.New(etcd.Config{Dir: filepath.Join(t.TempDir(), "etcd"), Name: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	Run(t, m)
	s := store.New(store.Config{Client: m.Client(), Prefix: "/registry/", Sole: true, DetectMutation: true})
	table := api.NewTable(also...)
	for _, r := range table.All() {
		if r.Key != "" {
			s.Collection(r)
		}
	}
	Run(t, s)
	cfg := registry.Config{Store: s, Table: table, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, NodePortRange: "30000-32767", Admit: admit, Validate: validate}
	for _, f := range change {
		f(&cfg)
	}
	r, err := registry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	Run(t, r)
	return &Registry{r, t, m.Client()}
}

// Over is a registry that the test started itself.
func Over(t testing.TB, r *registry.Registry) *Registry { return &Registry{r, t, nil} }

// Run runs a part until the test ends, and waits until it is ready.
func Run(t testing.TB, p interface {
	Run(context.Context) error
	Ready() <-chan struct{}
}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%T: %v", p, err)
		}
	})
	select {
	case <-p.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("%T ended before it was ready: %v", p, err)
	}
}

// Request about a resource ("group/plural", or the plural alone for the core group).
func (r *Registry) Request(u user.Info, group, plural, sub, namespace, name string) *registry.Request {
	row := r.Table().ByResource(schema.GroupResource{Group: group, Resource: plural})
	if row == nil {
		r.t.Fatalf("no resource %s in group %q", plural, group)
	}
	return &registry.Request{Resource: row, Subresource: sub, Namespace: namespace, Name: name, User: u}
}

// About is a request for an object, or a subresource of it.
func (r *Registry) About(u user.Info, obj api.Object, sub string) *registry.Request {
	r.t.Helper()
	return &registry.Request{Resource: r.rowOf(obj), Subresource: sub, Namespace: obj.GetNamespace(), Name: obj.GetName(), User: u}
}

// Create creates as the given user.
func (r *Registry) Create(u user.Info, obj api.Object) (api.Object, error) {
	row := r.rowOf(obj)
	res, err := r.Registry.Create(context.Background(), &registry.Request{Resource: row, Namespace: obj.GetNamespace(), User: u}, obj, &metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return res.Object.(api.Object), nil
}

// Update updates as the given user; sub is "" or a subresource.
func (r *Registry) Update(u user.Info, obj api.Object, sub string) error {
	req := &registry.Request{Resource: r.rowOf(obj), Subresource: sub, Namespace: obj.GetNamespace(), Name: obj.GetName(), User: u}
	_, err := r.Registry.Update(context.Background(), req, obj, &metav1.UpdateOptions{})
	return err
}

// Delete deletes at once, as the given user.
func (r *Registry) Delete(u user.Info, obj api.Object) error {
	now := int64(0)
	req := &registry.Request{Resource: r.rowOf(obj), Namespace: obj.GetNamespace(), Name: obj.GetName(), User: u}
	_, err := r.Registry.Delete(context.Background(), req, &metav1.DeleteOptions{GracePeriodSeconds: &now})
	return err
}

// Must creates as Admin, or fails the test.
func (r *Registry) Must(objs ...api.Object) {
	r.t.Helper()
	for _, o := range objs {
		if _, err := r.Create(Admin, o); err != nil {
			r.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

func (r *Registry) rowOf(obj api.Object) *api.Resource {
	kinds, _, err := api.Scheme().ObjectKinds(obj)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.Table().ByKind(kinds[0].GroupKind())
}

// Pod is a small valid pod in the namespace default.
func Pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "skiff/web"}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// Account is a service account in the namespace default.
func Account(name string, change ...func(*corev1.ServiceAccount)) *corev1.ServiceAccount {
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	for _, f := range change {
		f(a)
	}
	return a
}

// Node is a user that is a node.
func Node(name string) user.Info {
	return &user.DefaultInfo{Name: "system:node:" + name, Groups: []string{user.NodesGroup, user.AllAuthenticated}}
}
