package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// localCache hands out informers that read the store's event log. There is nothing to fill: the store is the cache.
type localCache struct {
	localReader
	log     *slog.Logger
	started chan struct{}
	stopped chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

func newLocalCache(r rows, log *slog.Logger) *localCache {
	return &localCache{localReader: localReader{rows: r}, log: log, started: make(chan struct{}), stopped: make(chan struct{})}
}

// Start lets events flow until ctx ends, and returns when no handler runs any more.
func (c *localCache) Start(ctx context.Context) error {
	c.once.Do(func() { close(c.started) })
	<-ctx.Done()
	close(c.stopped)
	c.running.Wait()
	return nil
}

func (c *localCache) WaitForCacheSync(ctx context.Context) bool {
	select {
	case <-c.started:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *localCache) GetInformer(_ context.Context, obj crclient.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	row, err := c.rows.of(obj)
	if err != nil {
		return nil, err
	}
	_, partial := obj.(*metav1.PartialObjectMetadata)
	return &localInformer{cache: c, row: row, partial: partial}, nil
}

func (c *localCache) GetInformerForKind(_ context.Context, gvk schema.GroupVersionKind, _ ...cache.InformerGetOption) (cache.Informer, error) {
	row, err := c.rows.kind(gvk)
	if err != nil {
		return nil, err
	}
	return &localInformer{cache: c, row: row}, nil
}

// RemoveInformer has nothing to do: what follows the log are the handlers.
func (c *localCache) RemoveInformer(context.Context, crclient.Object) error { return nil }

// IndexField knows the table's own indexes alone, for the store keeps them.
func (c *localCache) IndexField(_ context.Context, obj crclient.Object, name string, _ crclient.IndexerFunc) error {
	row, err := c.rows.of(obj)
	if err != nil {
		return err
	}
	if row.Indexes[name] == nil {
		return unknownField(row, name)
	}
	return nil
}

// localInformer is a resource to be followed; each handler follows it at its own pace.
type localInformer struct {
	cache   *localCache
	row     *api.Resource
	partial bool // deliver metadata alone
}

func (i *localInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, toolscache.HandlerOptions{})
}

// AddEventHandlerWithResyncPeriod never resyncs: nothing is missed that a resync could bring.
func (i *localInformer) AddEventHandlerWithResyncPeriod(h toolscache.ResourceEventHandler, _ time.Duration) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, toolscache.HandlerOptions{})
}

func (i *localInformer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, _ toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{informer: i, handler: h, stop: cancel, synced: make(chan struct{})}
	i.cache.running.Go(func() { f.run(ctx) })
	return f, nil
}

func (i *localInformer) RemoveEventHandler(r toolscache.ResourceEventHandlerRegistration) error {
	f, ok := r.(*follower)
	if !ok {
		return fmt.Errorf("%T is not a registration of this informer", r)
	}
	f.stop()
	return nil
}

func (i *localInformer) AddIndexers(toolscache.Indexers) error {
	return errors.New("indexes belong to the rows of package api")
}
func (i *localInformer) HasSynced() bool { return isClosed(i.cache.started) }
func (i *localInformer) HasSyncedChecker() toolscache.DoneChecker {
	return done{i.row.Plural, i.cache.started}
}
func (i *localInformer) IsStopped() bool { return isClosed(i.cache.stopped) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

type done struct {
	name string
	c    <-chan struct{}
}

func (d done) Name() string          { return d.name }
func (d done) Done() <-chan struct{} { return d.c }

// follower takes one handler along the event log.
type follower struct {
	informer *localInformer
	handler  toolscache.ResourceEventHandler
	stop     context.CancelFunc
	synced   chan struct{} // closed when what existed at the start has been delivered
}

func (f *follower) HasSynced() bool { return isClosed(f.synced) }
func (f *follower) HasSyncedChecker() toolscache.DoneChecker {
	return done{f.informer.row.Plural, f.synced}
}

// batch is how many events are taken from the log at a time.
const batch = 64

func (f *follower) run(ctx context.Context) {
	c := f.informer.cache
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-c.started:
	case <-c.stopped:
		return
	case <-ctx.Done():
		return
	}
	go func() {
		select {
		case <-c.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	w, err := c.rows.reg.Store().Collection(f.informer.row).Watch(ctx, store.WatchOptions{Any: true, Initial: true, Bookmarks: true, Keep: true})
	if err != nil {
		c.log.Error("cannot follow a resource", "resource", f.informer.row.Plural, "err", err)
		return
	}
	defer w.Stop()
	buf := make([]store.Event, 0, batch)
	for {
		if buf, err = w.Next(ctx, buf, batch); err != nil {
			if ctx.Err() == nil && !errors.Is(err, store.ErrOver) {
				c.log.Error("lost a resource's events", "resource", f.informer.row.Plural, "err", err)
			}
			return
		}
		for i := range buf {
			f.deliver(&buf[i])
			buf[i] = store.Event{}
		}
	}
}

func (f *follower) deliver(e *store.Event) {
	switch e.Type {
	case store.Added:
		f.handler.OnAdd(f.object(e.Entry), !isClosed(f.synced))
	case store.Modified:
		f.handler.OnUpdate(f.object(e.Prev), f.object(e.Entry))
	case store.Deleted:
		f.handler.OnDelete(f.object(e.Entry))
	case store.Bookmark:
		if e.InitialEnd {
			close(f.synced)
		}
	}
}

func (f *follower) object(e *store.Entry) runtime.Object {
	if f.informer.partial {
		return metadataOf(e.Object())
	}
	return e.Object()
}
