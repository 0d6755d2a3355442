package client

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"skiff.dev/skiff/internal/api"
)

// remote is the client of another process's API server.
type remote struct {
	crclient.Client
	live   crclient.Client
	cache  *remoteCache
	events *events
}

// Remote is client-go over HTTPS with protobuf and WatchList, and one shared cache.
func Remote(cfg *rest.Config, log *slog.Logger) (Client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	cfg.QPS = -1 // the server says when it is too much
	http, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make an HTTP client for %s: %w", cfg.Host, err)
	}
	table := api.NewTable()
	m := mapper(table)
	share := true
	inner, err := cache.New(cfg, cache.Options{HTTPClient: http, Scheme: api.Scheme(), Mapper: m, DefaultUnsafeDisableDeepCopy: &share, DefaultTransform: cache.TransformStripManagedFields()})
	if err != nil {
		return nil, fmt.Errorf("make a cache of %s: %w", cfg.Host, err)
	}
	c := &remoteCache{Cache: inner, table: table, indexed: map[string]error{}}
	cached, err := crclient.New(cfg, crclient.Options{HTTPClient: http, Scheme: api.Scheme(), Mapper: m, Cache: &crclient.CacheOptions{Reader: c}})
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", cfg.Host, err)
	}
	live, err := crclient.New(cfg, crclient.Options{HTTPClient: http, Scheme: api.Scheme(), Mapper: m})
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", cfg.Host, err)
	}
	return &remote{Client: cached, live: live, cache: c, events: newEvents(live, log)}, nil
}

func (r *remote) Live() crclient.Reader                  { return r.live }
func (r *remote) Cache() cache.Cache                     { return r.cache }
func (r *remote) Recorder(c string) record.EventRecorder { return r.events.recorder(c) }

// Run fills the cache and lets events flow until ctx ends.
func (r *remote) Run(ctx context.Context) error {
	defer r.events.stop()
	return r.cache.Start(ctx)
}

// remoteCache has the table's indexes: each is made when it is first asked for.
type remoteCache struct {
	cache.Cache
	table *api.Table

	mu      sync.Mutex
	indexed map[string]error
}

func (c *remoteCache) List(ctx context.Context, list crclient.ObjectList, opts ...crclient.ListOption) error {
	var o crclient.ListOptions
	o.ApplyOptions(opts)
	if o.FieldSelector != nil && !o.FieldSelector.Empty() {
		if err := c.index(ctx, list, o.FieldSelector.Requirements()[0].Field); err != nil {
			return err
		}
	}
	return c.Cache.List(ctx, list, opts...)
}

func (c *remoteCache) index(ctx context.Context, list crclient.ObjectList, name string) error {
	gvk, err := apiutil.GVKForObject(list, api.Scheme())
	if err != nil {
		return err
	}
	if n := len(gvk.Kind); n > 4 && gvk.Kind[n-4:] == "List" {
		gvk.Kind = gvk.Kind[:n-4]
	}
	row := c.table.ByKind(gvk.GroupKind())
	if row == nil {
		return fmt.Errorf("%s is not in the table of resources", gvk.Kind)
	}
	values := row.Indexes[name]
	if values == nil && row.Fields != nil {
		values = func(o api.Object) []string {
			if v, ok := row.Fields(o)[name]; ok {
				return []string{v}
			}
			return nil
		}
	}
	if values == nil {
		return fmt.Errorf("%s has no field or index %s", row.Plural, name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := row.Key + " " + name
	if err, done := c.indexed[key]; done {
		return err
	}
	err = c.IndexField(ctx, row.New(), name, func(o crclient.Object) []string { return values(o) })
	c.indexed[key] = err
	return err
}
