package apiserver

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery"

	"skiff.dev/skiff/internal/api"
)

// served is a resource under one of the versions it is served in.
type served struct {
	row  *api.Resource
	kind schema.GroupVersionKind
}

// groupVersions lists what is served, in the table's order within each.
func (s *Server) groupVersions() map[schema.GroupVersion][]served {
	out := map[schema.GroupVersion][]served{}
	add := func(row *api.Resource, gvk schema.GroupVersionKind) {
		out[gvk.GroupVersion()] = append(out[gvk.GroupVersion()], served{row, gvk})
	}
	for _, row := range s.reg.Table().All() {
		if row.Custom == nil || !row.Custom.Hidden {
			add(row, row.GVK())
		}
		for i := range row.Also {
			s := &row.Also[i]
			switch {
			case s.Own == nil:
				add(row, s.Row().GVK())
			case !s.Own.Custom.Hidden:
				add(s.Own, s.Own.GVK())
			}
		}
	}
	return out
}

// localVersions says of what is served here whether a definition is why.
func (s *Server) localVersions() map[schema.GroupVersion]bool {
	out := map[schema.GroupVersion]bool{}
	for gv, list := range s.groupVersions() {
		out[gv] = list[0].row.Custom != nil
	}
	return out
}

// groups are the names of the API groups but the core one, in order, with their versions.
func (s *Server) groups() []metav1.APIGroup {
	versions := map[string][]string{}
	own := s.groupVersions()
	for gv := range own {
		versions[gv.Group] = append(versions[gv.Group], gv.Version)
	}
	for gv := range s.behind.Remotes() {
		if own[gv] == nil {
			versions[gv.Group] = append(versions[gv.Group], gv.Version)
		}
	}
	var out []metav1.APIGroup
	for group, list := range versions {
		slices.SortFunc(list, func(a, b string) int { return apiversion.CompareKubeAwareVersionStrings(b, a) })
		g := metav1.APIGroup{Name: group}
		for _, v := range list {
			g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: schema.GroupVersion{Group: group, Version: v}.String(), Version: v})
		}
		g.PreferredVersion = g.Versions[0]
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b metav1.APIGroup) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// wantsAggregated says whether the client asks for all of discovery in one answer (KEP-3352).
func wantsAggregated(r *http.Request) bool {
	for _, c := range clauses(strings.Join(r.Header.Values("Accept"), ",")) {
		if c.params["as"] == "APIGroupDiscoveryList" && c.params["g"] == apidiscoveryv2.GroupName && c.params["v"] == "v2" {
			return c.media == mediaJSON
		}
	}
	return false
}

func (s *Server) discoverCore(w http.ResponseWriter, r *http.Request) {
	if wantsAggregated(r) {
		s.aggregated(w, r, func(g string) bool { return g == "" })
		return
	}
	writeJSON(w, r, &metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: strings.TrimPrefix(s.cfg.ExternalURL, "https://")}},
	})
}

func (s *Server) discoverGroups(w http.ResponseWriter, r *http.Request) {
	if wantsAggregated(r) {
		s.aggregated(w, r, func(g string) bool { return g != "" })
		return
	}
	list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, g := range s.groups() {
		if g.Name != "" {
			list.Groups = append(list.Groups, g)
		}
	}
	writeJSON(w, r, list)
}

func (s *Server) discoverGroup(w http.ResponseWriter, r *http.Request) {
	for _, g := range s.groups() {
		if g.Name != "" && g.Name == r.PathValue("group") {
			g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			writeJSON(w, r, &g)
			return
		}
	}
	writeError(w, r, notFound())
}

func (s *Server) discoverVersion(w http.ResponseWriter, r *http.Request) {
	gv := schema.GroupVersion{Group: r.PathValue("group"), Version: r.PathValue("version")}
	list, found := s.groupVersions()[gv]
	if !found {
		writeError(w, r, notFound())
		return
	}
	out := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, e := range list {
		out.APIResources = append(out.APIResources, metav1.APIResource{
			Name: e.row.Plural, SingularName: e.row.Singular, Namespaced: e.row.Namespaced, Kind: e.kind.Kind,
			Verbs: verbsOf(e.row), ShortNames: e.row.Short, Categories: e.row.Categories, StorageVersionHash: storageHash(e.row),
		})
		for _, sub := range subresources(e) {
			r := metav1.APIResource{Name: e.row.Plural + "/" + sub.name, Namespaced: e.row.Namespaced, Kind: sub.kind.Kind, Verbs: sub.verbs}
			if sub.kind.GroupVersion() != gv {
				r.Group, r.Version = sub.kind.Group, sub.kind.Version
			}
			out.APIResources = append(out.APIResources, r)
		}
	}
	slices.SortFunc(out.APIResources, func(a, b metav1.APIResource) int { return strings.Compare(a.Name, b.Name) })
	writeJSON(w, r, out)
}

// storageHash tells clients that migrate what is stored when that is to be written anew.
func storageHash(row *api.Resource) string {
	stored := row.GVK()
	switch {
	case row.Key == "":
		return "" // nothing is stored
	case row.Custom != nil:
		stored.Version = row.Custom.Stored
	}
	return discovery.StorageVersionHash(stored.Group, stored.Version, stored.Kind)
}

type servedSub struct {
	name  string
	kind  schema.GroupVersionKind
	verbs []string
}

func subresources(e served) (out []servedSub) {
	if e.row.Status {
		out = append(out, servedSub{"status", e.kind, []string{"get", "patch", "update"}})
	}
	for _, sub := range e.row.Subresources {
		kind := schema.GroupVersionKind{Group: sub.Group, Version: sub.Version, Kind: sub.Kind}
		if kind.Version == "" {
			kind.Group, kind.Version = e.kind.Group, e.kind.Version
		}
		out = append(out, servedSub{sub.Name, kind, sub.Verbs})
	}
	return out
}

// aggregated is all of discovery for the groups that are wanted.
func (s *Server) aggregated(w http.ResponseWriter, r *http.Request, want func(group string) bool) {
	list := &apidiscoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}}
	all := s.groupVersions()
	for _, g := range s.groups() {
		if !want(g.Name) {
			continue
		}
		item := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.Name}}
		for _, v := range g.Versions {
			if r := s.behind.Remotes()[schema.GroupVersion{Group: g.Name, Version: v.Version}]; r != nil {
				item.Versions = append(item.Versions, r.Discovery())
				continue
			}
			version := apidiscoveryv2.APIVersionDiscovery{Version: v.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
			for _, e := range all[schema.GroupVersion{Group: g.Name, Version: v.Version}] {
				version.Resources = append(version.Resources, discovered(e))
			}
			slices.SortFunc(version.Resources, func(a, b apidiscoveryv2.APIResourceDiscovery) int { return strings.Compare(a.Resource, b.Resource) })
			item.Versions = append(item.Versions, version)
		}
		list.Items = append(list.Items, item)
	}
	body, err := json.Marshal(list)
	writeTagged(w, r, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", body, err)
}

func discovered(e served) apidiscoveryv2.APIResourceDiscovery {
	out := apidiscoveryv2.APIResourceDiscovery{
		Resource: e.row.Plural, ResponseKind: kindOf(e.kind), Scope: apidiscoveryv2.ScopeCluster, SingularResource: e.row.Singular,
		Verbs: verbsOf(e.row), ShortNames: e.row.Short, Categories: e.row.Categories,
	}
	if e.row.Namespaced {
		out.Scope = apidiscoveryv2.ScopeNamespace
	}
	for _, sub := range subresources(e) {
		out.Subresources = append(out.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub.name, ResponseKind: kindOf(sub.kind), Verbs: sub.verbs})
	}
	return out
}

func kindOf(gvk schema.GroupVersionKind) *metav1.GroupVersionKind {
	return &metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}
}

// writeJSON answers with what has no other encoding.
func writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeError(w, r, err)
		return
	}
	writeBody(w, http.StatusOK, format{media: mediaJSON, pretty: wantsPretty(r)}, body)
}
