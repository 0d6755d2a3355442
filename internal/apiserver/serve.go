package apiserver

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/apiserver/authz"
)

// enter sends people with browsers to the UI, and everybody else on.
func (s *Server) enter(w http.ResponseWriter, r *http.Request) {
	if s.ui != nil && strings.HasPrefix(r.URL.Path, "/ui") && (len(r.URL.Path) == 3 || r.URL.Path[3] == '/') {
		s.ui.ServeHTTP(w, r)
		return
	}
	s.serve(w, r)
}

// serve takes a request through the filters: panic, who, whether, what.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w}
	rec.Header().Set("Audit-Id", string(uuid.NewUUID()))
	rec.Header().Set("Cache-Control", "no-cache, private")
	info, err := s.requests.NewRequestInfo(r)
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("a request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if rec.code == 0 {
				writeError(rec, r, apierrors.NewInternalError(fmt.Errorf("this request caused a panic, which was logged")))
			}
		}
		s.metrics.observe(info, rec, time.Since(start))
	}()
	if err != nil {
		writeError(rec, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	u, err := s.authn.Authenticate(r)
	if err != nil {
		s.log.Debug("a request was not authenticated", "path", r.URL.Path, "from", r.RemoteAddr, "err", err)
		writeError(rec, r, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	if u, err = authn.Impersonate(r.Context(), r, u, s.authz); err != nil {
		writeError(rec, r, err)
		return
	}
	if err := s.authorize(r.Context(), info, u, r); err != nil {
		writeError(rec, r, err)
		return
	}
	if !info.IsResourceRequest {
		s.plain.ServeHTTP(rec, r.WithContext(request.WithUser(r.Context(), u)))
		return
	}
	s.resource(rec, r, info, u)
}

func (s *Server) authorize(ctx context.Context, info *request.RequestInfo, u user.Info, r *http.Request) error {
	at := authorizer.AttributesRecord{
		User: u, Verb: info.Verb, Namespace: info.Namespace, APIGroup: info.APIGroup, APIVersion: info.APIVersion, Resource: info.Resource,
		Subresource: info.Subresource, Name: info.Name, ResourceRequest: info.IsResourceRequest, Path: info.Path,
	}
	switch info.Verb {
	case "list", "watch", "deletecollection":
		if info.FieldSelector != "" {
			if sel, err := fields.ParseSelector(info.FieldSelector); err == nil {
				at.FieldSelectorRequirements = sel.Requirements()
			}
		}
		if info.LabelSelector != "" {
			if sel, err := labels.Parse(info.LabelSelector); err == nil {
				at.LabelSelectorRequirements, _ = sel.Requirements()
			}
		}
	}
	decision, reason, err := s.authz.Authorize(ctx, at)
	if decision == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		s.log.Warn("authorization failed", "path", r.URL.Path, "err", err)
	}
	return authz.Forbidden(at, reason)
}

// recorder remembers what was answered. It can be hijacked and flushed like what it wraps.
type recorder struct {
	http.ResponseWriter
	code  int
	bytes int64
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if r.code == 0 {
		r.code = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(r.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController reach deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
