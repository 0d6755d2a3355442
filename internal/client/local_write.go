package client

import (
	"context"
	"reflect"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// localWriter writes through the registry. Objects are copied on the way in and on the way out: the caller keeps what is its own.
type localWriter struct {
	rows rows
	user user.Info
}

func (w localWriter) request(obj crclient.Object) (*registry.Request, error) {
	q, err := w.rows.request(obj, w.user)
	if err != nil {
		return nil, err
	}
	q.Name = obj.GetName()
	if q.Resource.Namespaced {
		q.Namespace = obj.GetNamespace()
	}
	return q, nil
}

// taken is a copy of what the caller hands in, as it would be had it come over the wire.
func taken(obj runtime.Object) runtime.Object {
	out := obj.DeepCopyObject()
	api.WholeSeconds(out)
	return out
}

// give makes *obj a copy of what was stored.
func give(obj, stored runtime.Object) error { return assign(obj, stored.DeepCopyObject()) }

func (w localWriter) create(ctx context.Context, obj crclient.Object, opts []crclient.CreateOption) error {
	var o crclient.CreateOptions
	o.ApplyOptions(opts)
	q, err := w.request(obj)
	if err != nil {
		return err
	}
	q.Name = ""
	out, err := w.rows.reg.Create(ctx, q, taken(obj), o.AsCreateOptions())
	if err != nil {
		return err
	}
	return give(obj, out.Object)
}

func (w localWriter) update(ctx context.Context, obj crclient.Object, opts []crclient.UpdateOption) error {
	var o crclient.UpdateOptions
	o.ApplyOptions(opts)
	q, err := w.request(obj)
	if err != nil {
		return err
	}
	out, err := w.rows.reg.Update(ctx, q, taken(obj), o.AsUpdateOptions())
	if err != nil {
		return err
	}
	return give(obj, out.Object)
}

func (w localWriter) patch(ctx context.Context, obj crclient.Object, p crclient.Patch, opts []crclient.PatchOption) error {
	var o crclient.PatchOptions
	o.ApplyOptions(opts)
	return w.patchAs(ctx, "", obj, obj, p, o.AsPatchOptions())
}

func (w localWriter) patchAs(ctx context.Context, subresource string, obj, body crclient.Object, p crclient.Patch, o *metav1.PatchOptions) error {
	q, err := w.request(obj)
	if err != nil {
		return err
	}
	q.Subresource = subresource
	data, err := p.Data(body)
	if err != nil {
		return err
	}
	out, err := w.rows.reg.Patch(ctx, q, p.Type(), data, o)
	if err != nil {
		return err
	}
	return give(body, out.Object)
}

func (w localWriter) delete(ctx context.Context, obj crclient.Object, opts []crclient.DeleteOption) error {
	var o crclient.DeleteOptions
	o.ApplyOptions(opts)
	q, err := w.request(obj)
	if err != nil {
		return err
	}
	_, err = w.rows.reg.Delete(ctx, q, o.AsDeleteOptions())
	return err
}

func (w localWriter) deleteAllOf(ctx context.Context, obj crclient.Object, opts []crclient.DeleteAllOfOption) error {
	var o crclient.DeleteAllOfOptions
	o.ApplyOptions(opts)
	q, err := w.request(obj)
	if err != nil {
		return err
	}
	q.Name, q.Namespace = "", o.Namespace
	list := &metainternalversion.ListOptions{LabelSelector: o.LabelSelector, FieldSelector: o.FieldSelector, Limit: o.Limit}
	_, err = w.rows.reg.DeleteCollection(ctx, q, o.AsDeleteOptions(), list)
	return err
}

// localSubresource is one subresource of whatever object it is asked about.
type localSubresource struct {
	writer localWriter
	name   string
}

func (s localSubresource) Get(ctx context.Context, obj, body crclient.Object, _ ...crclient.SubResourceGetOption) error {
	q, err := s.writer.request(obj)
	if err != nil {
		return err
	}
	q.Subresource = s.name
	out, err := s.writer.rows.reg.Get(ctx, q, &metav1.GetOptions{})
	if err != nil {
		return err
	}
	return give(body, out.Object)
}

func (s localSubresource) Create(ctx context.Context, obj, body crclient.Object, opts ...crclient.SubResourceCreateOption) error {
	var o crclient.SubResourceCreateOptions
	for _, opt := range opts {
		opt.ApplyToSubResourceCreate(&o)
	}
	q, err := s.writer.request(obj)
	if err != nil {
		return err
	}
	q.Subresource = s.name
	out, err := s.writer.rows.reg.Create(ctx, q, taken(body), o.AsCreateOptions())
	if err != nil {
		return err
	}
	if reflect.TypeOf(out.Object) != reflect.TypeOf(body) {
		return nil // a Status: the write has happened, there is nothing to show for it
	}
	return give(body, out.Object)
}

func (s localSubresource) Update(ctx context.Context, obj crclient.Object, opts ...crclient.SubResourceUpdateOption) error {
	var o crclient.SubResourceUpdateOptions
	o.ApplyOptions(opts)
	q, err := s.writer.request(obj)
	if err != nil {
		return err
	}
	q.Subresource = s.name
	body := obj
	if o.SubResourceBody != nil {
		body = o.SubResourceBody
	}
	out, err := s.writer.rows.reg.Update(ctx, q, taken(body), o.AsUpdateOptions())
	if err != nil {
		return err
	}
	return give(body, out.Object)
}

func (s localSubresource) Patch(ctx context.Context, obj crclient.Object, p crclient.Patch, opts ...crclient.SubResourcePatchOption) error {
	var o crclient.SubResourcePatchOptions
	o.ApplyOptions(opts)
	body := obj
	if o.SubResourceBody != nil {
		body = o.SubResourceBody
	}
	return s.writer.patchAs(ctx, s.name, obj, body, p, o.AsPatchOptions())
}

func (s localSubresource) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...crclient.SubResourceApplyOption) error {
	var o crclient.SubResourceApplyOptions
	o.ApplyOpts(opts)
	body := obj
	if o.SubResourceBody != nil {
		body = o.SubResourceBody
	}
	return s.writer.apply(ctx, s.name, obj, body, []crclient.ApplyOption{&o.ApplyOptions})
}
