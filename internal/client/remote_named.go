package client

import (
	"context"
	"errors"
	"reflect"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
)

// named caches kinds of which this client may see single objects only. An object is followed, by a watch of its own, from when it is first
// read until the server does not allow it any more: a node may read a secret for as long as one of its pods uses it.
type named struct {
	live crclient.WithWatch

	mu       sync.Mutex
	ctx      context.Context // while the client runs
	objects  map[namedKey]*followed
	handlers map[schema.GroupVersionKind]map[*namedRegistration]struct{}
	running  sync.WaitGroup
}

type namedKey struct {
	kind schema.GroupVersionKind
	crclient.ObjectKey
}

type followed struct {
	informer toolscache.SharedIndexInformer
	synced   <-chan struct{}
	gone     context.Context // ends when the object is followed no more
	stop     context.CancelFunc
}

func newNamed(live crclient.WithWatch) *named {
	return &named{live: live, objects: map[namedKey]*followed{}, handlers: map[schema.GroupVersionKind]map[*namedRegistration]struct{}{}}
}

// run lets objects be followed until ctx ends, and waits for those that are.
func (n *named) run(ctx context.Context) {
	n.mu.Lock()
	n.ctx = ctx
	n.mu.Unlock()
	<-ctx.Done()
	n.running.Wait()
}

// get reads an object, following it from now on.
func (n *named) get(ctx context.Context, row *api.Resource, key crclient.ObjectKey, out crclient.Object) error {
	f, err := n.follow(row, key)
	if err != nil {
		return err
	}
	if f == nil {
		return n.live.Get(ctx, key, out)
	}
	select {
	case <-f.synced:
	case <-f.gone.Done():
		return n.live.Get(ctx, key, out) // its error says why the object cannot be followed
	case <-ctx.Done():
		return ctx.Err()
	}
	name := key.Name
	if key.Namespace != "" {
		name = key.Namespace + "/" + name
	}
	obj, there, err := f.informer.GetStore().GetByKey(name)
	if err != nil {
		return err
	}
	if !there {
		return apierrors.NewNotFound(row.GroupResource(), key.Name)
	}
	to, from := reflect.ValueOf(out), reflect.ValueOf(obj)
	if to.Type() != from.Type() {
		return errors.New("the object to read into is of another type than what is cached")
	}
	to.Elem().Set(from.Elem())
	return nil
}

// follow starts to follow an object unless it is followed; nil while the client does not run.
func (n *named) follow(row *api.Resource, key crclient.ObjectKey) (*followed, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx == nil || n.ctx.Err() != nil {
		return nil, nil
	}
	k := namedKey{row.GVK(), key}
	if f := n.objects[k]; f != nil {
		return f, nil
	}
	f := &followed{informer: toolscache.NewSharedIndexInformer(n.listWatch(row, key), row.New(), 0, toolscache.Indexers{})}
	f.gone, f.stop = context.WithCancel(n.ctx)
	err := errors.Join(
		f.informer.SetTransform(cache.TransformStripManagedFields()),
		f.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *toolscache.Reflector, err error) {
			if apierrors.IsForbidden(err) {
				n.forget(k, f)
				return
			}
			toolscache.DefaultWatchErrorHandler(ctx, r, err)
		}))
	if err != nil {
		f.stop()
		return nil, err
	}
	registration, err := f.informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{})
	if err != nil {
		f.stop()
		return nil, err
	}
	f.synced = registration.HasSyncedChecker().Done()
	for h := range n.handlers[k.kind] {
		if err := h.attach(k, f); err != nil {
			f.stop()
			return nil, err
		}
	}
	n.objects[k] = f
	n.running.Go(func() { f.informer.RunWithContext(f.gone) })
	return f, nil
}

func (n *named) forget(k namedKey, f *followed) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f.stop()
	if n.objects[k] == f {
		delete(n.objects, k)
		for h := range n.handlers[k.kind] {
			delete(h.on, k)
		}
	}
}

// listWatch sees one object.
func (n *named) listWatch(row *api.Resource, key crclient.ObjectKey) toolscache.ListerWatcher {
	options := func(o metav1.ListOptions) *crclient.ListOptions {
		return &crclient.ListOptions{Namespace: key.Namespace, FieldSelector: fields.OneTermEqualSelector("metadata.name", key.Name), Raw: &o}
	}
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := row.NewList().(crclient.ObjectList)
			return list, n.live.List(ctx, list, options(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return n.live.Watch(ctx, row.NewList().(crclient.ObjectList), options(o))
		},
	}
}

// informer of a kind tells of the objects that are followed.
func (n *named) informer(row *api.Resource) cache.Informer {
	return &namedInformer{n: n, kind: row.GVK()}
}

type namedInformer struct {
	cache.Informer // the rest of the interface is for caches that hold whole kinds
	n              *named
	kind           schema.GroupVersionKind
}

// namedRegistration is one handler, on every object of a kind that is followed.
type namedRegistration struct {
	kind    schema.GroupVersionKind
	handler toolscache.ResourceEventHandler
	on      map[namedKey]toolscache.ResourceEventHandlerRegistration
}

func (h *namedRegistration) attach(k namedKey, f *followed) error {
	r, err := f.informer.AddEventHandler(h.handler)
	if err == nil {
		h.on[k] = r
	}
	return err
}

func (i *namedInformer) AddEventHandler(handler toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	h := &namedRegistration{kind: i.kind, handler: handler, on: map[namedKey]toolscache.ResourceEventHandlerRegistration{}}
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	for k, f := range i.n.objects {
		if k.kind != i.kind {
			continue
		}
		if err := h.attach(k, f); err != nil {
			return nil, err
		}
	}
	if i.n.handlers[i.kind] == nil {
		i.n.handlers[i.kind] = map[*namedRegistration]struct{}{}
	}
	i.n.handlers[i.kind][h] = struct{}{}
	return h, nil
}

func (i *namedInformer) RemoveEventHandler(registration toolscache.ResourceEventHandlerRegistration) error {
	h, ok := registration.(*namedRegistration)
	if !ok {
		return errors.New("this handler is not one of this informer's")
	}
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	delete(i.n.handlers[i.kind], h)
	var errs []error
	for k, r := range h.on {
		if f := i.n.objects[k]; f != nil {
			errs = append(errs, f.informer.RemoveEventHandler(r))
		}
	}
	return errors.Join(errs...)
}

func (i *namedInformer) HasSynced() bool                              { return true }
func (i *namedInformer) HasSyncedChecker() toolscache.DoneChecker     { return nothingToWaitFor{} }
func (i *namedInformer) IsStopped() bool                              { return false }
func (h *namedRegistration) HasSynced() bool                          { return true }
func (h *namedRegistration) HasSyncedChecker() toolscache.DoneChecker { return nothingToWaitFor{} }

// nothingToWaitFor: no object is there from the start.
type nothingToWaitFor struct{}

var alreadyDone = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (nothingToWaitFor) Name() string          { return "objects followed by name" }
func (nothingToWaitFor) Done() <-chan struct{} { return alreadyDone }
