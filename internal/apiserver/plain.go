package apiserver

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/metrics/prometheus/slis"

	"skiff.dev/skiff/internal/apiserver/admission"
	"skiff.dev/skiff/internal/version"
)

// plainRoutes are all paths that are not resources. They have been authorized like everything else.
func (s *Server) plainRoutes() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("GET /version", s.version)
	health := s.healthRoutes(m)
	slis.SLIMetrics{}.Install(metricsRoute{m})
	if s.cfg.Metrics != nil {
		m.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{s.cfg.Metrics, admission.Dynamic{}}, promhttp.HandlerOpts{}))
	}
	for _, end := range []string{"", "/{$}"} { // upstream's e2e and older clients write the slash
		m.HandleFunc("GET /api"+end, s.discoverCore)
		m.HandleFunc("GET /apis"+end, s.discoverGroups)
		m.HandleFunc("GET /apis/{group}"+end, s.discoverGroup)
		m.HandleFunc("GET /api/{version}"+end, s.discoverVersion)
		m.HandleFunc("GET /apis/{group}/{version}"+end, s.discoverVersion)
	}
	m.HandleFunc("GET /openapi/v2", s.openAPIv2)
	m.HandleFunc("GET /openapi/v3", s.openAPIIndex)
	m.HandleFunc("GET /openapi/v3/api/{version}", s.openAPIDocument)
	m.HandleFunc("GET /openapi/v3/apis/{group}/{version}", s.openAPIDocument)
	m.HandleFunc("GET /openid/v1/jwks", func(w http.ResponseWriter, r *http.Request) {
		body, err := s.authn.JWKS()
		writeDocument(w, r, "application/jwk-set+json", body, err)
	})
	m.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		body, err := s.authn.Discovery(s.cfg.ExternalURL)
		writeDocument(w, r, mediaJSON, body, err)
	})
	m.HandleFunc("/debug/pprof/", pprof.Index)
	m.HandleFunc("/debug/pprof/profile", pprof.Profile)
	m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	m.HandleFunc("/debug/pprof/trace", pprof.Trace)
	if s.fair != nil {
		s.fair.Install(m)
	}
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { s.paths(w, r, health) })
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		read := r.Clone(r.Context())
		read.Method = http.MethodGet
		if _, pattern := m.Handler(read); pattern != "/" {
			writeError(w, r, methodNotAllowed(r))
			return
		}
		writeError(w, r, notFound())
	})
	return m
}

// metricsRoute takes routes that are only read.
type metricsRoute struct{ mux *http.ServeMux }

func (m metricsRoute) Handle(path string, h http.Handler) { m.mux.Handle("GET "+path, h) }

func writeDocument(w http.ResponseWriter, r *http.Request, media string, body []byte, err error) {
	if err != nil {
		writeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", media)
	_, _ = w.Write(body)
}

// writeTagged is writeDocument for what clients keep: they are told a tag of the content, and are spared the content if they have it.
func writeTagged(w http.ResponseWriter, r *http.Request, media string, body []byte, err error) {
	if err != nil {
		writeError(w, r, err)
		return
	}
	tag := fmt.Sprintf(`"%X"`, sha256.Sum256(body))
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "public")
	h.Add("Vary", "Accept")
	if has(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeDocument(w, r, media, body, nil)
}

// has says whether a client has the content with that tag: it names it among others, or takes any.
func has(headers []string, tag string) bool {
	for _, h := range headers {
		for one := range strings.SplitSeq(h, ",") {
			if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == tag || one == "*" {
				return true
			}
		}
	}
	return false
}

func (s *Server) version(w http.ResponseWriter, r *http.Request) {
	major, minor, _ := strings.Cut(strings.TrimPrefix(version.Kubernetes, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	writeJSON(w, r, apiversion.Info{
		Major: major, Minor: minor, GitVersion: version.Kubernetes, GitCommit: version.Skiff, GitTreeState: "clean", BuildDate: "1970-01-01T00:00:00Z",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	})
}

// paths lists what there is, for people with curl.
func (s *Server) paths(w http.ResponseWriter, r *http.Request, health []string) {
	out := append([]string{"/.well-known/openid-configuration", "/api", "/apis", "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/version"}, health...)
	for gv := range s.groupVersions() {
		path := "/apis/" + gv.String()
		if gv.Group == "" {
			path = "/api/" + gv.Version
		} else {
			out = append(out, "/apis/"+gv.Group)
		}
		out = append(out, path)
	}
	slices.Sort(out)
	writeJSON(w, r, map[string]any{"paths": slices.Compact(out)})
}
