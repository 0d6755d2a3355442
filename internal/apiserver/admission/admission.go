// Package admission holds the built-in admission plug-ins, one file each, under upstream's names, with upstream's behaviour and messages.
//
// A plug-in is a function that looks at one request and, if it mutates, changes only the request's own object. What it needs to know of the cluster it
// reads from the store's memory; but for ImagePolicyWebhook, which asks a service, and EventRateLimit, which counts, none writes, waits on the network or keeps
// state. What is configured of them is read once, at the start (configuration.go). Which run, in upstream's order, is in chain.go: package host
// names those that the user wants, adds those that live elsewhere, and hands the two lists to the registry.
package admission

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// The operations of registry.Attributes.
const (
	create = "CREATE"
	update = "UPDATE"
	remove = "DELETE"
)

// is says whether the request is about the resource itself ("" for the core group), not one of its subresources.
func is(a *registry.Attributes, group, plural string) bool {
	return a.Resource.Group == group && a.Resource.Plural == plural && a.Subresource == ""
}

// isResize says whether a request changes the resources of a pod that runs.
func isResize(a *registry.Attributes) bool {
	return a.Resource.Group == "" && a.Resource.Plural == "pods" && a.Subresource == "resize"
}

// forbid refuses a request in upstream's words.
func forbid(a *registry.Attributes, err error) *apierrors.StatusError {
	return apierrors.NewForbidden(a.Resource.GroupResource(), nameOf(a), err)
}

// nameOf is what the request's object is called in messages: names are generated only after admission.
func nameOf(a *registry.Attributes) string {
	if a.Name != "" {
		return a.Name
	}
	if a.Object != nil {
		if m, err := meta.Accessor(a.Object); err == nil {
			if m.GetName() != "" {
				return m.GetName()
			}
			if m.GetGenerateName() != "" {
				return m.GetGenerateName()
			}
		}
	}
	return "Unknown"
}

func collection(a *registry.Attributes, group, plural string) *store.Collection {
	row := a.Registry.Table().ByResource(schema.GroupResource{Group: group, Resource: plural})
	if row == nil || row.Key == "" {
		return nil
	}
	return a.Registry.Store().Collection(row)
}

// find reads one object; the zero T says that it isn't there. Memory answers; only before "isn't there" is believed is etcd asked
// whether memory is current, because another server may have created the object a moment ago.
func find[T api.Object](ctx context.Context, a *registry.Attributes, group, plural, key string) (found T, err error) {
	c := collection(a, group, plural)
	if c == nil {
		return found, nil
	}
	e, err := c.Get(ctx, key, store.Read{})
	if err == nil && e == nil {
		e, err = c.Get(ctx, key, store.Read{Consistent: true})
	}
	if err != nil || e == nil {
		return found, err
	}
	found, _ = e.Object().(T)
	return found, nil
}

// all reads what memory holds of a resource, of one namespace or with "" everywhere.
func all[T api.Object](ctx context.Context, a *registry.Attributes, group, plural, namespace string) ([]T, error) {
	c := collection(a, group, plural)
	if c == nil {
		return nil, nil
	}
	page, err := c.List(ctx, store.ListOptions{Predicate: store.Predicate{Namespace: namespace}})
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(page.Entries))
	for _, e := range page.Entries {
		if obj, ok := e.Object().(T); ok {
			out = append(out, obj)
		}
	}
	return out, nil
}
