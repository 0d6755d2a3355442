package dynamic

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// memory is the store's memory of one resource, as client-go's listers want to see it. The embedded interface is nil: they call no more than this.
type memory struct {
	cache.Indexer
	reg     *registry.Registry
	row     *api.Resource
	served  *api.Served
	version string // of reads: "0" takes what is there, "" asks whether it is current
}

func memoryOf(reg *registry.Registry, row *api.Resource) memory {
	return memory{reg: reg, row: row, version: "0"}
}

func (m memory) List() []any { return m.in("") }

// Index lists a namespace, the only index there is.
func (m memory) Index(_ string, of any) ([]any, error) {
	return m.in(of.(metav1.Object).GetNamespace()), nil
}

func (m memory) in(namespace string) (out []any) {
	ctx, q := context.Background(), &registry.Request{Resource: m.row, Served: m.served, Namespace: namespace}
	page, err := m.reg.List(ctx, q, &metainternalversion.ListOptions{ResourceVersion: m.version})
	if err != nil {
		return nil
	}
	entries, err := q.Show(ctx, page.Entries)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		out = append(out, e.Object())
	}
	return out
}

// GetByKey finds "name" or "namespace/name".
func (m memory) GetByKey(key string) (any, bool, error) {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil, false, err
	}
	q := &registry.Request{Resource: m.row, Served: m.served, Namespace: namespace, Name: name}
	found, err := m.reg.Get(context.Background(), q, &metav1.GetOptions{ResourceVersion: m.version})
	switch {
	case apierrors.IsNotFound(err):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	return found.Object, true, nil
}

func (p *Plugins) namespaces() memory { return memoryOf(p.reg, namespaceRow(p.reg)) }

func namespaceRow(reg *registry.Registry) *api.Resource {
	return reg.Table().ByResource(schema.GroupResource{Resource: "namespaces"})
}

// namespaceClient reads namespaces that memory does not have yet: another server may have made them a moment ago. It can do nothing else.
type namespaceClient struct {
	kubernetes.Interface
	reg *registry.Registry
}

func (c namespaceClient) CoreV1() coreclient.CoreV1Interface { return namespaceGetter{reg: c.reg} }

type namespaceGetter struct {
	coreclient.CoreV1Interface
	reg *registry.Registry
}

func (g namespaceGetter) Namespaces() coreclient.NamespaceInterface { return oneNamespace{reg: g.reg} }

type oneNamespace struct {
	coreclient.NamespaceInterface
	reg *registry.Registry
}

func (n oneNamespace) Get(ctx context.Context, name string, _ metav1.GetOptions) (*corev1.Namespace, error) {
	found, err := n.reg.Get(ctx, &registry.Request{Resource: namespaceRow(n.reg), Name: name}, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return found.Object.(*corev1.Namespace), nil
}
