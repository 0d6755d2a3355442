package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// Rewrite stores every object of a resource anew: in the version that is stored now, encrypted as what is stored now. An object that
// somebody else writes or removes meanwhile needs no more.
func (r *Registry) Rewrite(ctx context.Context, of schema.GroupResource) error {
	row := r.cfg.Table.ByResource(of)
	if row == nil || row.Key == "" {
		return apierrors.NewNotFound(schema.GroupResource{Group: "", Resource: "resources"}, of.String())
	}
	c, err := r.opened(row)
	if err != nil {
		return err
	}
	page, err := c.List(ctx, store.ListOptions{Read: store.Read{Consistent: true}})
	if err != nil {
		return fmt.Errorf("list %s: %w", of, err)
	}
	q := &Request{Resource: row, User: self}
	for _, e := range page.Entries {
		if err := r.rewrite(ctx, q, e); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("store %s %s anew: %w", of, e.Key(), err)
		}
	}
	return nil
}

func (r *Registry) rewrite(ctx context.Context, q *Request, e *store.Entry) error {
	obj := e.Own()
	if custom := q.Resource.Custom; custom != nil {
		loaded, err := custom.Load(ctx, []api.Object{obj})
		if err != nil {
			return err
		}
		obj = loaded[0]
	}
	_, err := r.put(ctx, q, e, obj)
	return err
}
