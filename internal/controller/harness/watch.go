package harness

import (
	"context"
	"fmt"
	"reflect"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Watch says which keys a change of one kind wakes.
type Watch struct {
	kind   crclient.Object
	handle func(old, current crclient.Object) []Key
}

// On wakes the keys that a change of kind T means. old is nil for an object that appeared, current for one that went. keys is called
// for every change, in order and never concurrently for one Watch, so it may also keep a controller's own books.
func On[T crclient.Object](kind T, keys func(old, current T) []Key) Watch {
	return Watch{kind: kind, handle: func(old, current crclient.Object) []Key {
		o, _ := old.(T)
		c, _ := current.(T)
		return keys(o, c)
	}}
}

// Any is On for a kind known only at run time: the cache may hand over the kind itself or only its metadata.
func Any(kind crclient.Object, keys func(old, current crclient.Object) []Key) Watch {
	return Watch{kind: kind, handle: keys}
}

// Self wakes an object's own key on each of its changes.
func Self[T crclient.Object](kind T) Watch {
	return Watch{kind: kind, handle: func(old, current crclient.Object) []Key {
		if current == nil {
			current = old
		}
		return []Key{crclient.ObjectKeyFromObject(current)}
	}}
}

// start attaches the watch to the cache; done closes when all present objects were handed over.
func (w Watch) start(ctx context.Context, c cache.Cache, wake func(Key)) (stop func(), done toolscache.DoneChecker, err error) {
	informer, err := c.GetInformer(ctx, w.kind)
	if err != nil {
		return nil, nil, fmt.Errorf("watch %s: %w", reflect.TypeOf(w.kind).Elem().Name(), err)
	}
	deliver := func(old, current crclient.Object) {
		for _, key := range w.handle(old, current) {
			wake(key)
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { deliver(nil, obj.(crclient.Object)) },
		UpdateFunc: func(old, obj any) {
			o, n := old.(crclient.Object), obj.(crclient.Object)
			if o.GetResourceVersion() != n.GetResourceVersion() || n.GetResourceVersion() == "" {
				deliver(o, n)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, unknown := obj.(toolscache.DeletedFinalStateUnknown); unknown {
				obj = gone.Obj
			}
			if o, ok := obj.(crclient.Object); ok {
				deliver(o, nil)
			}
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("watch %s: %w", reflect.TypeOf(w.kind).Elem().Name(), err)
	}
	return func() { _ = informer.RemoveEventHandler(registration) }, registration.HasSyncedChecker(), nil
}
