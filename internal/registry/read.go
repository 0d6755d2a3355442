package registry

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// Get reads one object, or its scale.
func (r *Registry) Get(ctx context.Context, q *Request, o *metav1.GetOptions) (*Result, error) {
	rv := ""
	if o != nil {
		rv = o.ResourceVersion
	}
	read, err := freshness(rv)
	if err != nil {
		return nil, err
	}
	if f := r.reader(q); f != nil {
		return r.ask(ctx, q, f)
	}
	if q.Subresource == "scale" && q.Resource.Scale == nil {
		return nil, apierrors.NewNotFound(q.groupResource(), q.Name+"/scale")
	}
	e, err := r.get(ctx, q, read)
	if err != nil {
		return nil, err
	}
	if q.Subresource == "scale" {
		return scaleResult(q, e), nil
	}
	return q.result(e), nil
}

// get returns the stored entry or NotFound.
func (r *Registry) get(ctx context.Context, q *Request, read store.Read) (*store.Entry, error) {
	c, err := r.collection(q)
	if err != nil {
		return nil, err
	}
	e, err := c.Get(ctx, q.key(), read)
	if err != nil {
		return nil, err
	}
	if e == nil {
		if why := c.Unreadable(q.key()); why != nil {
			return nil, unreadable(q, why)
		}
		return nil, apierrors.NewNotFound(q.groupResource(), q.Name)
	}
	if q.Resource.Custom == nil {
		return e, nil
	}
	shown, err := q.Show(ctx, []*store.Entry{e})
	if err != nil {
		return nil, err
	}
	return shown[0], nil
}

func freshness(rv string) (store.Read, error) {
	switch rv {
	case "":
		return store.Read{Consistent: true}, nil
	case "0":
		return store.Read{}, nil
	}
	n, err := revision(rv)
	return store.Read{MinRevision: n}, err
}

func revision(rv string) (int64, error) {
	n, err := strconv.ParseInt(rv, 10, 64)
	if err != nil || n < 0 {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion: Invalid value: %q: must be a number that this API gave", rv))
	}
	return n, nil
}

// List of a namespace (or all). Selectors are checked: an unknown field selector is a BadRequest.
func (r *Registry) List(ctx context.Context, q *Request, o *metainternalversion.ListOptions) (*store.Page, error) {
	if errs := listvalidation.ValidateListOptions(o, true); len(errs) > 0 {
		return nil, invalidOptions("ListOptions", errs)
	}
	if f := r.reader(q); f != nil {
		return r.askAll(ctx, q, f, o)
	}
	c, err := r.collection(q)
	if err != nil {
		return nil, err
	}
	q.warnUnreadable(c)
	lo := store.ListOptions{Limit: o.Limit, Continue: o.Continue}
	if lo.Predicate, err = predicate(q, o); err != nil {
		return nil, err
	}
	if o.Limit < 0 {
		return nil, apierrors.NewBadRequest("limit: must not be negative")
	}
	switch o.ResourceVersionMatch {
	case "":
		lo.Read, err = freshness(o.ResourceVersion)
		if err == nil && o.Limit > 0 && lo.MinRevision > 0 && o.Continue == "" {
			lo.ExactRevision, lo.Read = lo.MinRevision, store.Read{}
		}
	case metav1.ResourceVersionMatchExact:
		lo.ExactRevision, err = revision(o.ResourceVersion)
	case metav1.ResourceVersionMatchNotOlderThan:
		lo.Read, err = freshness(o.ResourceVersion)
	}
	if err != nil {
		return nil, err
	}
	if o.Continue != "" && o.ResourceVersion != "" && o.ResourceVersion != "0" {
		return nil, apierrors.NewBadRequest("resourceVersion: specifying resource version is not allowed when using continue")
	}
	if q.selectsShown() && lo.Fields != nil {
		return listShown(ctx, q, c, lo)
	}
	return c.List(ctx, lo)
}

// listShown selects by the fields that objects are shown with, where a webhook makes them. A page may hold fewer than its limit, as the API allows.
func listShown(ctx context.Context, q *Request, c *store.Collection, lo store.ListOptions) (*store.Page, error) {
	selector := lo.Fields
	lo.Fields = nil
	page, err := c.List(ctx, lo)
	if err != nil {
		return nil, err
	}
	shown, err := q.Show(ctx, page.Entries)
	if err != nil {
		return nil, err
	}
	var kept []*store.Entry
	for i, e := range shown {
		if selector.Matches(q.Resource.FieldsOf(e.Object())) {
			kept = append(kept, page.Entries[i])
		}
	}
	out := *page // the store may keep the page for others
	out.Entries, out.Remaining = kept, nil
	return &out, nil
}

// selectsShown: a webhook makes the objects that the request sees, so that selecting by fields must wait for it.
func (q *Request) selectsShown() bool { return q.Resource.Custom != nil && q.Resource.Custom.Converts }

// SelectShown is what a watch with a field selector sees of events, for custom resources that a webhook converts; others were selected by the store.
func (q *Request) SelectShown(ctx context.Context, selector fields.Selector, events []store.Event) ([]store.Event, error) {
	if !q.selectsShown() || selector == nil || selector.Empty() {
		return events, nil
	}
	var stored []*store.Entry
	for i := range events {
		for _, e := range []*store.Entry{events[i].Entry, events[i].Prev} {
			if e != nil {
				stored = append(stored, e)
			}
		}
	}
	shown, err := q.Show(ctx, stored)
	if err != nil {
		return nil, err
	}
	matches := map[*store.Entry]bool{}
	for i, e := range shown {
		matches[stored[i]] = selector.Matches(q.Resource.FieldsOf(e.Object()))
	}
	var out []store.Event
	for i := range events {
		e := &events[i]
		if e.Type == store.Bookmark {
			out = append(out, *e)
		} else if seen, ok := e.Selected(e.Type != store.Deleted && matches[e.Entry], e.Prev != nil && matches[e.Prev]); ok {
			out = append(out, seen)
		}
	}
	return out, nil
}

// Watch follows what List lists.
func (r *Registry) Watch(ctx context.Context, q *Request, o *metainternalversion.ListOptions) (*store.Watcher, error) {
	watch := *o
	watch.Watch = true
	if errs := listvalidation.ValidateListOptions(&watch, true); len(errs) > 0 {
		return nil, invalidOptions("ListOptions", errs)
	}
	c, err := r.collection(q)
	if err != nil {
		return nil, err
	}
	w := store.WatchOptions{Bookmarks: o.AllowWatchBookmarks}
	if w.Predicate, err = predicate(q, o); err != nil {
		return nil, err
	}
	if q.selectsShown() {
		w.Predicate.Fields = nil // SelectShown does it, outside the store's lock
	}
	if o.ResourceVersion != "" {
		if w.Revision, err = revision(o.ResourceVersion); err != nil {
			return nil, err
		}
		w.Any = w.Revision == 0
	}
	if o.SendInitialEvents != nil {
		w.Initial = *o.SendInitialEvents
		w.FromNow = !w.Initial && w.Revision == 0
	}
	return c.Watch(ctx, w)
}

// predicate turns selectors into what the store filters by; an equality that an index answers goes to the index.
func predicate(q *Request, o *metainternalversion.ListOptions) (store.Predicate, error) {
	p := store.Predicate{Namespace: q.Namespace, Name: q.Name, Labels: o.LabelSelector}
	if q.Resource.Custom != nil {
		p.FieldsOf = q.Resource.FieldsOf
	}
	if o.FieldSelector == nil || o.FieldSelector.Empty() {
		return p, nil
	}
	selector, err := storedFields(q, o.FieldSelector)
	if err != nil {
		return p, err
	}
	known := KnownFields(q.Resource)
	for _, req := range selector.Requirements() {
		if !known.Has(req.Field) {
			return p, unknownField(q.Resource, req.Field)
		}
	}
	p.Fields = selector
	if name, ok := selector.RequiresExactMatch("metadata.name"); ok {
		if p.Name != "" && p.Name != name {
			p.Name = "\x00" // nothing has two names
		} else {
			p.Name = name
		}
	}
	if ns, ok := selector.RequiresExactMatch("metadata.namespace"); ok && q.Resource.Namespaced && p.Namespace == "" {
		p.Namespace = ns
	}
	for name := range q.Resource.Indexes {
		if v, ok := selector.RequiresExactMatch(name); ok {
			p.Index, p.Value = name, v
		}
	}
	return p, nil
}

// storedFields is the selector in the stored version's names.
func storedFields(q *Request, selector fields.Selector) (fields.Selector, error) {
	if q.Served == nil || q.Served.Fields == nil {
		return selector, nil
	}
	return selector.Transform(func(name, value string) (string, string, error) {
		if stored, ok := q.Served.Fields[name]; ok || strings.HasPrefix(name, "metadata.") {
			return cmp.Or(stored, name), value, nil
		}
		return "", "", unknownField(q.Resource, name)
	})
}

// unknownField is the answer to a selector of a field that cannot be selected by. Upstream has two: for kinds with fields of their own, and for the rest.
func unknownField(res *api.Resource, name string) error {
	if res.Fields != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", name))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", name))
}

// KnownFields are those that a field selector of the resource may name.
func KnownFields(res *api.Resource) fields.Fields { return res.FieldsOf(res.New()) }
