package client

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// local is the client within the process.
type local struct {
	localReader
	writer localWriter
	cache  *localCache
	events *events
	mapper meta.RESTMapper
}

// Local goes straight into the registry, as the given user, without HTTP, encoding, or authorization. Lists hand out the store's own objects.
func Local(reg *registry.Registry, u user.Info, log *slog.Logger) Client {
	rows := rows{reg}
	l := &local{
		localReader: localReader{rows: rows},
		writer:      localWriter{rows: rows, user: u},
		cache:       newLocalCache(rows, log),
		mapper:      &tableMapper{table: reg.Table()},
	}
	l.events = newEvents(l, log)
	return l
}

func (l *local) Live() crclient.Reader                  { return localReader{rows: l.rows, live: true} }
func (l *local) Cache() cache.Cache                     { return l.cache }
func (l *local) Recorder(c string) record.EventRecorder { return l.events.recorder(c) }
func (l *local) Scheme() *runtime.Scheme                { return api.Scheme() }
func (l *local) RESTMapper() meta.RESTMapper            { return l.mapper }

// Run lets informers and events flow until ctx ends.
func (l *local) Run(ctx context.Context) error {
	defer l.events.stop()
	return l.cache.Start(ctx)
}

func (l *local) GroupVersionKindFor(obj runtime.Object) (schema.GroupVersionKind, error) {
	return apiutil.GVKForObject(obj, api.Scheme())
}

func (l *local) IsObjectNamespaced(obj runtime.Object) (bool, error) {
	row, err := l.rows.of(obj)
	if err != nil {
		return false, err
	}
	return row.Namespaced, nil
}

func (l *local) Create(ctx context.Context, obj crclient.Object, opts ...crclient.CreateOption) error {
	return l.writer.create(ctx, obj, opts)
}
func (l *local) Update(ctx context.Context, obj crclient.Object, opts ...crclient.UpdateOption) error {
	return l.writer.update(ctx, obj, opts)
}
func (l *local) Patch(ctx context.Context, obj crclient.Object, p crclient.Patch, opts ...crclient.PatchOption) error {
	return l.writer.patch(ctx, obj, p, opts)
}
func (l *local) Delete(ctx context.Context, obj crclient.Object, opts ...crclient.DeleteOption) error {
	return l.writer.delete(ctx, obj, opts)
}
func (l *local) DeleteAllOf(ctx context.Context, obj crclient.Object, opts ...crclient.DeleteAllOfOption) error {
	return l.writer.deleteAllOf(ctx, obj, opts)
}
func (l *local) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...crclient.ApplyOption) error {
	return l.writer.apply(ctx, "", obj, obj, opts)
}
func (l *local) Status() crclient.SubResourceWriter { return l.SubResource("status") }
func (l *local) SubResource(name string) crclient.SubResourceClient {
	return localSubresource{l.writer, name}
}

// rows finds the table's rows of Go objects.
type rows struct{ reg *registry.Registry }

func (r rows) of(obj runtime.Object) (*api.Resource, error) {
	gvk, err := apiutil.GVKForObject(obj, api.Scheme())
	if err != nil {
		return nil, err
	}
	return r.kind(gvk)
}

func (r rows) kind(gvk schema.GroupVersionKind) (*api.Resource, error) {
	row := r.reg.Table().ByKind(gvk.GroupKind())
	if row == nil {
		return nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	return row, nil
}

// listed finds the row of a list's kind. Custom resources may call their lists what they like.
func (r rows) listed(gvk schema.GroupVersionKind) (*api.Resource, error) {
	one := gvk
	one.Kind = strings.TrimSuffix(gvk.Kind, "List")
	row, err := r.kind(one)
	if err == nil {
		return row, nil
	}
	for _, row := range r.reg.Table().All() {
		if row.Custom != nil && row.NewList().GetObjectKind().GroupVersionKind().GroupKind() == gvk.GroupKind() {
			return row, nil
		}
	}
	return nil, err
}

// request for a kind, in the version that the caller speaks.
func (r rows) request(obj runtime.Object, u user.Info) (*registry.Request, error) {
	gvk, err := apiutil.GVKForObject(obj, api.Scheme())
	if err != nil {
		return nil, err
	}
	row, err := r.kind(gvk)
	if err != nil {
		return nil, err
	}
	q := served(row, gvk)
	q.User = u
	return q, nil
}

// localReader reads the store's memory; live waits until that is as new as etcd.
type localReader struct {
	rows rows
	live bool
}

func (l localReader) Get(ctx context.Context, key crclient.ObjectKey, obj crclient.Object, _ ...crclient.GetOption) error {
	q, err := l.rows.request(obj, nil)
	if err != nil {
		return err
	}
	q.Name = key.Name
	if q.Resource.Namespaced {
		q.Namespace = key.Namespace
	}
	o := &metav1.GetOptions{ResourceVersion: "0"}
	if l.live {
		o.ResourceVersion = ""
	}
	out, err := l.rows.reg.Get(ctx, q, o)
	if err != nil {
		return err
	}
	return assign(obj, out.Object)
}

// assign makes *to the object that from is, or its metadata. They share what they point at.
func assign(to, from runtime.Object) error {
	if partial, ok := to.(*metav1.PartialObjectMetadata); ok {
		*partial = *metadataOf(from.(api.Object))
		return nil
	}
	a, b := reflect.ValueOf(to), reflect.ValueOf(from)
	if a.Type() != b.Type() {
		return fmt.Errorf("the API answered with a %s where a %s was wanted", b.Type(), a.Type())
	}
	a.Elem().Set(b.Elem())
	return nil
}

// metadataOf is an object without spec and status.
func metadataOf(obj api.Object) *metav1.PartialObjectMetadata {
	gvk := obj.GetObjectKind().GroupVersionKind()
	out := &metav1.PartialObjectMetadata{ObjectMeta: api.MetaOf(obj)}
	out.SetGroupVersionKind(gvk)
	return out
}

func (l localReader) List(ctx context.Context, list crclient.ObjectList, opts ...crclient.ListOption) error {
	var o crclient.ListOptions
	o.ApplyOptions(opts)
	gvk, err := apiutil.GVKForObject(list, api.Scheme())
	if err != nil {
		return err
	}
	row, err := l.rows.listed(gvk)
	if err != nil {
		return err
	}
	options, err := l.options(row, &o)
	if err != nil {
		return err
	}
	page, err := l.page(ctx, row, options, &o)
	if err != nil {
		return err
	}
	list.SetResourceVersion(fmt.Sprint(page.Revision))
	list.SetContinue(page.Continue)
	list.SetRemainingItemCount(page.Remaining)
	entries, err := served(row, gvk).Show(ctx, page.Entries)
	if err != nil {
		return err
	}
	return fillItems(list, entries)
}

// page reads the store's memory; what is not stored is asked for.
func (l localReader) page(ctx context.Context, row *api.Resource, options store.ListOptions, o *crclient.ListOptions) (*store.Page, error) {
	if row.Key != "" {
		return l.rows.reg.Store().Collection(row).List(ctx, options)
	}
	return l.rows.reg.List(ctx, &registry.Request{Resource: row, Namespace: options.Namespace},
		&metainternalversion.ListOptions{LabelSelector: o.LabelSelector, FieldSelector: o.FieldSelector})
}

// served is a request in the version that is spoken; in the stored one where that is not served.
func served(row *api.Resource, gvk schema.GroupVersionKind) *registry.Request {
	q := &registry.Request{}
	if q.Resource, q.Served = row.Serving(gvk.Group, gvk.Version); q.Resource == nil {
		q.Resource = row
	}
	return q
}

// options of a list in the store's terms. A field that is one of the row's indexes need not be a selectable field.
func (l localReader) options(row *api.Resource, o *crclient.ListOptions) (store.ListOptions, error) {
	out := store.ListOptions{
		Predicate: store.Predicate{Labels: o.LabelSelector}, Read: store.Read{Consistent: l.live}, Limit: o.Limit, Continue: o.Continue,
	}
	if row.Namespaced {
		out.Namespace = o.Namespace
	}
	if o.FieldSelector == nil || o.FieldSelector.Empty() {
		return out, nil
	}
	known := registry.KnownFields(row)
	var rest []fields.Selector
	for _, r := range o.FieldSelector.Requirements() {
		indexed := row.Indexes[r.Field] != nil && r.Operator != selection.NotEquals
		switch {
		case indexed && (out.Index == "" || !known.Has(r.Field)):
			if out.Index != "" { // one index is walked, a field can also be looked at
				rest = append(rest, fields.OneTermEqualSelector(out.Index, out.Value))
			}
			out.Index, out.Value = r.Field, r.Value
		case known.Has(r.Field) && r.Operator == selection.NotEquals:
			rest = append(rest, fields.OneTermNotEqualSelector(r.Field, r.Value))
		case known.Has(r.Field):
			rest = append(rest, fields.OneTermEqualSelector(r.Field, r.Value))
		default:
			return out, unknownField(row, r.Field)
		}
	}
	if len(rest) > 0 {
		out.Fields = fields.AndSelectors(rest...)
	}
	return out, nil
}

func unknownField(row *api.Resource, name string) error {
	return fmt.Errorf("%s cannot be listed by %s: it is neither a selectable field nor an index of its row in package api", row.Plural, name)
}

// fillItems puts the entries' objects into a typed list, or their metadata into a PartialObjectMetadataList.
func fillItems(list crclient.ObjectList, entries []*store.Entry) error {
	if partial, ok := list.(*metav1.PartialObjectMetadataList); ok {
		partial.Items = make([]metav1.PartialObjectMetadata, len(entries))
		for i, e := range entries {
			partial.Items[i] = *metadataOf(e.Object())
		}
		return nil
	}
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	if !items.IsValid() {
		return fmt.Errorf("%T has no items", list)
	}
	out := reflect.MakeSlice(items.Type(), len(entries), len(entries))
	for i, e := range entries {
		out.Index(i).Set(reflect.ValueOf(e.Object()).Elem())
	}
	items.Set(out)
	return nil
}
