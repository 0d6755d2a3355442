package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/component-base/metrics/prometheus/slis"
)

// Check is one line of /readyz?verbose.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// Step is something that has to happen once before the server is whole. Its check fails until then.
type Step struct {
	Name string          // of its check
	Done <-chan struct{} // closed when it has happened
}

// Hooks are the steps by which upstream knows what one part does here. Only a part that runs may have any: nobody else would ever be done.
func Hooks(done <-chan struct{}, names ...string) (out []Step) {
	for _, name := range names {
		out = append(out, Step{"poststarthook/" + name, done})
	}
	return out
}

var errUnderWay = errors.New("not finished")

func (s Step) check() Check {
	return Check{s.Name, func(context.Context) error {
		select {
		case <-s.Done:
			return nil
		default:
			return errUnderWay
		}
	}}
}

// ownSteps are those of the server and of what is beneath it.
func (s *Server) ownSteps() []Step {
	out := Hooks(s.reg.Store().Ready(), "generic-apiserver-start-informers")
	out = append(out, Hooks(s.reg.Ready(), "start-apiserver-admission-initializer", "start-system-namespaces-controller", "bootstrap-controller",
		"start-kubernetes-service-cidr-controller", "start-service-ip-repair-controllers", "scheduling/bootstrap-system-priority-classes")...)
	out = append(out, Hooks(s.authz.Ready(), "rbac/bootstrap-roles")...)
	if s.fair != nil {
		out = append(out, Hooks(s.fair.Ready(), "priority-and-fairness-config-producer", "priority-and-fairness-config-consumer", "priority-and-fairness-filter")...)
	}
	if s.behind != nil {
		out = append(out, Hooks(s.behind.Ready(), "start-kube-aggregator-informers", "apiservice-registration-controller",
			"apiservice-status-remote-available-controller", "apiservice-discovery-controller", "apiservice-openapi-controller", "apiservice-openapiv3-controller")...)
		out = append(out, Hooks(s.behind.Registered(), "apiservice-status-local-available-controller", "kube-apiserver-autoregistration")...)
		out = append(out, Step{"autoregister-completion", s.behind.Registered()})
	}
	return out
}

// checks are those of healthz, livez or readyz, in the order in which they are told.
func (s *Server) checks(of string) []Check {
	ok := func(context.Context) error { return nil }
	out := append([]Check{{"ping", ok}, {"log", ok}}, s.cfg.Checks...)
	if of == "readyz" {
		for _, c := range s.cfg.Checks {
			if c.Name == "etcd" {
				out = append(out, Check{"etcd-readiness", c.Run})
			}
		}
		out = append(out, Step{"informer-sync", s.reg.Store().Ready()}.check())
	}
	for _, step := range slices.Concat(s.ownSteps(), s.cfg.Steps) {
		out = append(out, step.check())
	}
	if of == "readyz" {
		out = append(out, Check{"shutdown", func(context.Context) error { return s.stopping.Err() }})
	}
	return out
}

// healthRoutes returns the paths, each of which asks for all checks of a kind or for one of them.
func (s *Server) healthRoutes(m *http.ServeMux) (paths []string) {
	for _, of := range []string{"healthz", "livez", "readyz"} {
		serve := func(path string, checks []Check) {
			m.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { s.health(w, r, of, checks) })
			paths = append(paths, path)
		}
		checks := s.checks(of)
		serve("/"+of, checks)
		for i := range checks {
			serve("/"+of+"/"+checks[i].Name, checks[i:i+1])
		}
	}
	return paths
}

// health says whether checks pass, and of each when asked for it or when one fails.
func (s *Server) health(w http.ResponseWriter, r *http.Request, of string, checks []Check) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	text, passed := s.examine(ctx, of, checks, r.URL.Query()["exclude"])
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case !passed:
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "%s%s check failed\n", text, of)
	case r.URL.Query().Has("verbose"):
		fmt.Fprintf(w, "%s%s check passed\n", text, of)
	default:
		fmt.Fprint(w, "ok")
	}
}

// examine runs checks, but for those that are excluded. One that fails says why in the log, not to whoever asks: anonymous clients may ask.
func (s *Server) examine(ctx context.Context, of string, checks []Check, excluded []string) (text string, passed bool) {
	var out strings.Builder
	passed = true
	for _, c := range checks {
		if slices.Contains(excluded, c.Name) {
			fmt.Fprintf(&out, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		status := slis.Success
		if err := c.Run(ctx); err != nil {
			passed, status = false, slis.Error
			level := slog.LevelWarn
			if errors.Is(err, errUnderWay) { // whoever waits for the start asks often
				level = slog.LevelDebug
			}
			s.log.Log(ctx, level, "a health check failed", "check", c.Name, "err", err)
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.Name)
		} else {
			fmt.Fprintf(&out, "[+]%s ok\n", c.Name)
		}
		_ = slis.ObserveHealthcheck(ctx, c.Name, of, status)
	}
	var unknown []string
	for _, name := range excluded {
		if !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == name }) {
			unknown = append(unknown, fmt.Sprintf("%q", name))
		}
	}
	if len(unknown) > 0 {
		fmt.Fprintf(&out, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(unknown, ","))
	}
	return out.String(), passed
}
