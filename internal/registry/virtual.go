package registry

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// Reader answers reads of a kind that is not stored: the objects that a predicate selects, in the order they are shown. It has nothing that could be
// watched or paged through.
type Reader func(ctx context.Context, p store.Predicate) ([]api.Object, error)

// HandleRead registers a Reader for "group/plural". Parts in this process may be calling already.
func (r *Registry) HandleRead(path string, f Reader) { r.readers.Store(path, f) }

func (r *Registry) reader(q *Request) Reader {
	if q.Resource.Key != "" || q.Subresource != "" {
		return nil
	}
	v, _ := r.readers.Load(q.path())
	f, _ := v.(Reader)
	return f
}

// ask reads one object.
func (r *Registry) ask(ctx context.Context, q *Request, f Reader) (*Result, error) {
	found, err := f(ctx, store.Predicate{Namespace: q.Namespace, Name: q.Name})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, apierrors.NewNotFound(q.groupResource(), q.Name)
	}
	return q.result(store.NewEntry(q.Resource, found[0])), nil
}

// askAll lists what selectors let through.
func (r *Registry) askAll(ctx context.Context, q *Request, f Reader, o *metainternalversion.ListOptions) (*store.Page, error) {
	p, err := predicate(q, o)
	if err != nil {
		return nil, err
	}
	found, err := f(ctx, p)
	if err != nil {
		return nil, err
	}
	page := &store.Page{Entries: make([]*store.Entry, len(found))}
	for i, obj := range found {
		page.Entries[i] = store.NewEntry(q.Resource, obj)
	}
	return page, nil
}
