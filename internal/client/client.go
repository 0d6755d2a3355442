// Package client gives every part of Skiff one way to the API: controller-runtime's client.Client and cache.Cache, over two transports that
// a part cannot tell apart.
// SKELETON: signatures agreed with all parts; the client's author replaces the bodies.
package client

import (
	"context"
	"log/slog"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/registry"
)

// Client is what a part gets. Reads through Client go to the cache (List and Get of objects that are shared: never change them, DeepCopy first);
// writes go to the API. Live reads past the cache.
type Client interface {
	crclient.Client        // cached reads, writes, SubResource("status"|"binding"|"eviction"|"scale"|"token"|…)
	Live() crclient.Reader // consistent reads
	Cache() cache.Cache    // informers (GetInformer, GetInformerForKind incl. PartialObjectMetadata), IndexField before Run; built-in indexes of the table answer MatchingFields at once
	Recorder(component string) record.EventRecorder
	Run(ctx context.Context) error // ends with ctx; informers and events flow only while it runs
}

// Local goes straight into the registry, as the given user, without HTTP, encoding, or authorization. Lists hand out the store's own objects.
func Local(reg *registry.Registry, u user.Info, log *slog.Logger) Client { panic("skeleton") }

// Remote is client-go over HTTPS with protobuf and WatchList, and one shared cache.
func Remote(cfg *rest.Config, log *slog.Logger) (Client, error) { panic("skeleton") }
