package aggregate

import (
	"context"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// Discovery is what a remote serves, and whether that is how it is now.
func (r *Remote) Discovery() apidiscoveryv2.APIVersionDiscovery {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := apidiscoveryv2.APIVersionDiscovery{Version: r.version.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent, Resources: r.state.resources}
	if !r.state.known || r.state.condition.Status != apiregistrationv1.ConditionTrue {
		out.Freshness = apidiscoveryv2.DiscoveryFreshnessStale
	}
	return out
}

// schemaPatience bounds how long a document of this server waits for a remote's share.
const schemaPatience = 3 * time.Second

// OpenAPIv2 fetches a remote's document.
func (r *Remote) OpenAPIv2(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, schemaPatience)
	defer cancel()
	return r.fetch(ctx, "/openapi/v2", "application/json")
}

// discovered turns a plain list of resources into what aggregated discovery says.
func discovered(list *metav1.APIResourceList, gv schema.GroupVersion) []apidiscoveryv2.APIResourceDiscovery {
	kind := func(r *metav1.APIResource) *metav1.GroupVersionKind {
		out := &metav1.GroupVersionKind{Group: gv.Group, Version: gv.Version, Kind: r.Kind}
		if r.Version != "" {
			out.Group, out.Version = r.Group, r.Version
		}
		return out
	}
	out, at := []apidiscoveryv2.APIResourceDiscovery{}, map[string]int{}
	for i := range list.APIResources {
		r := &list.APIResources[i]
		if strings.Contains(r.Name, "/") {
			continue
		}
		scope := apidiscoveryv2.ScopeCluster
		if r.Namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		at[r.Name] = len(out)
		out = append(out, apidiscoveryv2.APIResourceDiscovery{
			Resource: r.Name, ResponseKind: kind(r), Scope: scope, SingularResource: r.SingularName, Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		})
	}
	for i := range list.APIResources {
		r := &list.APIResources[i]
		parent, sub, ok := strings.Cut(r.Name, "/")
		if where, known := at[parent]; ok && known {
			out[where].Subresources = append(out[where].Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind(r), Verbs: r.Verbs})
		}
	}
	return out
}
