package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"slices"
	"strings"
	"time"

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
	for _, name := range []string{"healthz", "livez", "readyz"} {
		m.HandleFunc("GET /"+name, s.health(name))
		m.HandleFunc("GET /"+name+"/{check}", s.health(name))
	}
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
	m.HandleFunc("GET /{$}", s.paths)
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

func (s *Server) version(w http.ResponseWriter, r *http.Request) {
	major, minor, _ := strings.Cut(strings.TrimPrefix(version.Kubernetes, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	writeJSON(w, r, apiversion.Info{
		Major: major, Minor: minor, GitVersion: version.Kubernetes, GitCommit: version.Skiff, GitTreeState: "clean", BuildDate: "1970-01-01T00:00:00Z",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	})
}

// paths lists what there is, for people with curl.
func (s *Server) paths(w http.ResponseWriter, r *http.Request) {
	out := []string{"/.well-known/openid-configuration", "/api", "/apis", "/healthz", "/livez", "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"}
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

// health runs the checks. One that fails says why in the log, not to whoever asks: anonymous clients may ask.
func (s *Server) health(name string) http.HandlerFunc {
	checks := append([]Check{{"ping", func(context.Context) error { return nil }}, {"log", func(context.Context) error { return nil }}}, s.cfg.Checks...)
	if name == "readyz" {
		checks = append(checks, Check{"shutdown", func(context.Context) error { return s.stopping.Err() }})
	}
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		only, excluded := r.PathValue("check"), r.URL.Query()["exclude"]
		var text strings.Builder
		failed, found := false, only == ""
		for _, c := range checks {
			if only != "" && c.Name != only {
				continue
			}
			found = true
			if slices.Contains(excluded, c.Name) {
				fmt.Fprintf(&text, "[+]%s excluded: ok\n", c.Name)
				continue
			}
			status := slis.Success
			if err := c.Run(ctx); err != nil {
				failed, status = true, slis.Error
				s.log.Warn("a health check failed", "check", c.Name, "err", err)
				fmt.Fprintf(&text, "[-]%s failed: reason withheld\n", c.Name)
			} else {
				fmt.Fprintf(&text, "[+]%s ok\n", c.Name)
			}
			_ = slis.ObserveHealthcheck(ctx, c.Name, name, status)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case !found:
			writeError(w, r, notFound())
		case failed:
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, "%s%s check failed\n", text.String(), name)
		case r.URL.Query().Has("verbose"):
			fmt.Fprintf(w, "%s%s check passed\n", text.String(), name)
		default:
			fmt.Fprint(w, "ok")
		}
	}
}
