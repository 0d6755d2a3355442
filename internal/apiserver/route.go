package apiserver

import (
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// route is what requests are counted by: upstream's labels.
type route struct{ verb, dryRun, group, version, resource, subresource, scope, component string }

// aim says how far it is known what a request is for. Names that clients make up become no series.
type aim int

const (
	unknown aim = iota
	here        // a resource that there is
	behind      // one of a server behind this one
)

// routeOf is the route of a request.
func routeOf(r *http.Request, info *request.RequestInfo, t aim) route {
	to := route{dryRun: dryRunOf(r), component: "apiserver"}
	switch {
	case !info.IsResourceRequest:
		switch info.Path {
		case "/healthz", "/livez", "/readyz":
			to.subresource, to.component = info.Path, ""
		case "/api", "/apis":
			to.subresource = info.Path
		}
	case t == here:
		to.group, to.version, to.resource, to.subresource, to.scope = info.APIGroup, info.APIVersion, info.Resource, info.Subresource, scopeOf(r, info)
	case t == behind:
		to.group, to.version, to.component = info.APIGroup, info.APIVersion, "aggregator"
	}
	to.verb = verbOf(r, info, &to)
	return to
}

// longRouteOf is the route of a watch or connection that is open. One that a field selector holds to one object is for that object.
func longRouteOf(r *http.Request, info *request.RequestInfo) route {
	to := routeOf(r, info, here)
	if info.Name != "" {
		to.scope = "resource"
	}
	return to
}

// scopeOf says whether a request is for one object, those of a namespace, or all.
func scopeOf(r *http.Request, info *request.RequestInfo) string {
	switch {
	case r.Method == http.MethodPost || len(info.Parts) > 1:
		return "resource"
	case info.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

// verbOf is the method, but that lists, watches, applies and connections have names of their own.
func verbOf(r *http.Request, info *request.RequestInfo, to *route) string {
	switch {
	case to.resource != "" && connects(to.subresource):
		return request.MethodConnect
	case info.IsResourceRequest && info.Verb == "watch":
		return request.MethodWatch
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if to.scope == "namespace" || to.scope == "cluster" {
			return request.MethodList
		}
		return request.MethodGet
	case http.MethodPatch:
		if r.Header.Get("Content-Type") == string(types.ApplyPatchType) {
			return request.MethodApply
		}
		return r.Method
	case http.MethodPost, http.MethodPut, http.MethodDelete:
		return r.Method
	}
	return "other"
}

// connects says whether a subresource goes through to somebody else.
func connects(subresource string) bool {
	switch subresource {
	case "attach", "exec", "log", "portforward", "proxy":
		return true
	}
	return false
}

func dryRunOf(r *http.Request) string {
	if !strings.Contains(r.URL.RawQuery, "dryRun") {
		return ""
	}
	values := r.URL.Query()["dryRun"]
	for _, v := range values {
		if v != metav1.DryRunAll {
			return "invalid"
		}
	}
	if len(values) == 0 {
		return ""
	}
	return metav1.DryRunAll
}
