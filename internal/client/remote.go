package client

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/connrotation"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/registry"
)

// remote is the client of another process's API server.
type remote struct {
	crclient.Client
	live   crclient.Client
	cache  *remoteCache
	events *events
	hangUp func() // closes the connections
	pods   func() (cache.Cache, error)
}

// RemoteOptions say what a client may not read as a whole, or need not.
type RemoteOptions struct {
	Only   map[crclient.Object]fields.Selector // of these kinds the cache holds what the selector selects
	Marked map[crclient.Object]labels.Selector // likewise, by labels
	Named  []crclient.Object                   // of these, single objects that were read once, for as long as they may be read
	Direct []crclient.Object                   // and these are never cached
}

// NodeOptions are those of a node: it reads its own pods and what they refer to.
func NodeOptions(node string) RemoteOptions {
	return RemoteOptions{
		Only: map[crclient.Object]fields.Selector{
			&corev1.Pod{}:                           fields.OneTermEqualSelector("spec.nodeName", node),
			&certificatesv1.PodCertificateRequest{}: fields.OneTermEqualSelector("spec.nodeName", node),
		},
		// Of volumes it follows those whose directories it keeps; any other it reads when a pod of it needs it.
		Marked: map[crclient.Object]labels.Selector{&corev1.PersistentVolume{}: labels.SelectorFromSet(labels.Set{localvolume.NodeLabel: node})},
		Named:  []crclient.Object{&corev1.Secret{}, &corev1.ConfigMap{}, &corev1.PersistentVolumeClaim{}},
		Direct: []crclient.Object{
			&corev1.PersistentVolume{}, &corev1.ServiceAccount{}, &coordinationv1.Lease{},
			&storagev1.VolumeAttachment{}, &storagev1.CSINode{}, &certificatesv1.CertificateSigningRequest{},
		},
	}
}

// Remote is client-go over HTTPS with protobuf and WatchList, and one shared cache.
func Remote(cfg *rest.Config, o RemoteOptions, log *slog.Logger) (Client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	cfg.QPS = -1 // the server says when it is too much
	dialer := connrotation.NewDialer(connrotation.DialFunc(dialOf(cfg)))
	cfg.Dial = dialer.DialContext
	http, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make an HTTP client for %s: %w", cfg.Host, err)
	}
	table := api.NewTable(api.Optional()...) // which of them the server serves, it says itself
	m := mapper(table)
	share := true
	only := map[crclient.Object]cache.ByObject{}
	for kind, selector := range o.Only {
		only[kind] = cache.ByObject{Field: selector}
	}
	for kind, selector := range o.Marked {
		only[kind] = cache.ByObject{Label: selector}
	}
	inner, err := cache.New(cfg, cache.Options{
		HTTPClient: http, Scheme: api.Scheme(), Mapper: m, ByObject: only,
		DefaultUnsafeDisableDeepCopy: &share, DefaultTransform: cache.TransformStripManagedFields(),
	})
	if err != nil {
		return nil, fmt.Errorf("make a cache of %s: %w", cfg.Host, err)
	}
	live, err := crclient.NewWithWatch(cfg, crclient.Options{HTTPClient: http, Scheme: api.Scheme(), Mapper: m})
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", cfg.Host, err)
	}
	c := &remoteCache{Cache: inner, table: table, indexed: map[string]error{}, named: newNamed(live), byName: map[*api.Resource]bool{}}
	for _, kind := range o.Named {
		row, err := c.row(kind)
		if err != nil {
			return nil, err
		}
		c.byName[row] = true
	}
	cached, err := crclient.New(cfg, crclient.Options{
		HTTPClient: http, Scheme: api.Scheme(), Mapper: m, Cache: &crclient.CacheOptions{Reader: c, DisableFor: o.Direct},
	})
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", cfg.Host, err)
	}
	everyPod := func() (cache.Cache, error) {
		return cache.New(cfg, cache.Options{
			HTTPClient: http, Scheme: api.Scheme(), Mapper: m, DefaultUnsafeDisableDeepCopy: &share, DefaultTransform: reducePod,
		})
	}
	return &remote{
		Client: cached, live: live, cache: c, events: newEvents(live, log), pods: everyPod,
		hangUp: dialer.CloseAll,
	}, nil
}

// dialOf is how a config's connections are made.
func dialOf(cfg *rest.Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	if cfg.Dial != nil {
		return cfg.Dial
	}
	return (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
}

func (r *remote) Live() crclient.Reader                  { return r.live }
func (r *remote) Cache() cache.Cache                     { return r.cache }
func (r *remote) Recorder(c string) record.EventRecorder { return r.events.recorder(c) }

// Run fills the cache and lets events flow until ctx ends.
func (r *remote) Run(ctx context.Context) error {
	defer r.hangUp()
	defer r.events.stop()
	var followed sync.WaitGroup
	defer followed.Wait()
	followed.Go(func() { r.cache.named.run(ctx) })
	return r.cache.Start(ctx)
}

// remoteCache has the table's indexes: each is made when it is first asked for.
type remoteCache struct {
	cache.Cache
	table  *api.Table
	named  *named
	byName map[*api.Resource]bool

	mu      sync.Mutex
	indexed map[string]error
}

func (c *remoteCache) List(ctx context.Context, list crclient.ObjectList, opts ...crclient.ListOption) error {
	var o crclient.ListOptions
	o.ApplyOptions(opts)
	if o.FieldSelector != nil && !o.FieldSelector.Empty() {
		row, err := c.row(list)
		if err != nil {
			return err
		}
		for _, r := range o.FieldSelector.Requirements() {
			if err := c.index(ctx, row, r.Field); err != nil {
				return err
			}
		}
	}
	return c.Cache.List(ctx, list, opts...)
}

// IndexField knows the table's own indexes alone, as the cache within the API server's process does.
func (c *remoteCache) IndexField(ctx context.Context, obj crclient.Object, name string, _ crclient.IndexerFunc) error {
	row, err := c.row(obj)
	if err != nil {
		return err
	}
	if row.Indexes[name] == nil {
		return unknownField(row, name)
	}
	return c.index(ctx, row, name)
}

// index makes the index of a field that the row knows, once.
func (c *remoteCache) index(ctx context.Context, row *api.Resource, name string) error {
	values := row.Indexes[name]
	switch {
	case values != nil:
	case name == "metadata.name":
		values = func(o api.Object) []string { return []string{o.GetName()} }
	case name == "metadata.namespace":
		values = func(o api.Object) []string { return []string{o.GetNamespace()} }
	case registry.KnownFields(row).Has(name):
		values = func(o api.Object) []string { return []string{row.Fields(o)[name]} }
	default:
		return unknownField(row, name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := row.Key + " " + name
	if err, done := c.indexed[key]; done {
		return err
	}
	err := c.Cache.IndexField(ctx, row.New(), name, func(o crclient.Object) []string { return values(o) })
	c.indexed[key] = err
	return err
}

// row of an object or of a list.
func (c *remoteCache) row(obj runtime.Object) (*api.Resource, error) {
	gvk, err := apiutil.GVKForObject(obj, api.Scheme())
	if err != nil {
		return nil, err
	}
	row := c.table.ByKind(gvk.GroupKind())
	if row == nil {
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
		row = c.table.ByKind(gvk.GroupKind())
	}
	if row == nil {
		return nil, fmt.Errorf("%s is not in the table of resources", gvk.Kind)
	}
	return row, nil
}

func (c *remoteCache) Get(ctx context.Context, key crclient.ObjectKey, obj crclient.Object, opts ...crclient.GetOption) error {
	if row, err := c.row(obj); err == nil && c.byName[row] {
		return c.named.get(ctx, row, key, obj)
	}
	return c.Cache.Get(ctx, key, obj, opts...)
}

func (c *remoteCache) GetInformer(ctx context.Context, obj crclient.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	if row, err := c.row(obj); err == nil && c.byName[row] {
		return c.named.informer(row), nil
	}
	return c.Cache.GetInformer(ctx, obj, opts...)
}
