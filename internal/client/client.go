// Package client gives every part of Skiff one way to the API: controller-runtime's client.Client and cache.Cache, over two transports that
// a part cannot tell apart.
//
// Local goes straight into the registry and reads the store's memory; Remote is client-go over HTTPS with a cache of its own. Both keep one
// contract, which package clienttest spells out as a suite: reads are of the cache and hand out shared objects (never change them, copy first);
// writes return the object as it was stored, which is the caller's; informers deliver every object once and every change in order.
package client

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
)

// Client is what a part gets. Reads through Client go to the cache (List and Get of objects that are shared: never change them, DeepCopy first);
// writes go to the API. Live reads past the cache.
type Client interface {
	crclient.Client        // cached reads, writes, SubResource("status"|"binding"|"eviction"|"scale"|"token"|…)
	Live() crclient.Reader // consistent reads
	Cache() cache.Cache    // informers; the table's own indexes answer MatchingFields at once
	Recorder(component string) record.EventRecorder
	Run(ctx context.Context) error // ends with ctx; informers and events flow only while it runs
}

// mapper knows the table's kinds and plurals.
func mapper(t *api.Table) meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	for _, r := range t.All() {
		scope := meta.RESTScopeRoot
		if r.Namespaced {
			scope = meta.RESTScopeNamespace
		}
		add := func(r *api.Resource) {
			if r.Custom != nil && r.Custom.Hidden {
				return
			}
			plural := r.GVR()
			m.AddSpecific(r.GVK(), plural, plural.GroupVersion().WithResource(r.Singular), scope)
		}
		add(r)
		for i := range r.Also {
			add(r.Also[i].Row())
		}
	}
	return m
}
