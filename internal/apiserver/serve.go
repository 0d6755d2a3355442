package apiserver

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/apiserver/fairness"
	"skiff.dev/skiff/internal/registry"
)

// enter sends people with browsers to the UI, and everybody else on.
func (s *Server) enter(w http.ResponseWriter, r *http.Request) {
	if s.ui != nil && strings.HasPrefix(r.URL.Path, "/ui") && (len(r.URL.Path) == 3 || r.URL.Path[3] == '/') {
		s.ui.ServeHTTP(w, r)
		return
	}
	_ = makeRoom(0)
	s.serve(w, r)
}

// room is how much stack most requests need.
const room = 12 << 10

// makeRoom grows the stack of a request's goroutine at once, while there is hardly anything on it to move: its own frame doesn't fit into the 2 KB that a
// goroutine begins with. Growing by doubling, deep within the request, was 6 % of what creating a pod costs.
//
//go:noinline
func makeRoom(at int) byte {
	var frame [room]byte
	return frame[at]
}

// serve takes a request through the filters: panic, who, audit, whether, when, what.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w}
	id := r.Header.Get("Audit-Id")
	if id == "" {
		id = string(uuid.NewUUID())
	}
	rec.Header().Set("Audit-Id", id)
	rec.Header().Set("Cache-Control", "no-cache, private")
	info, err := s.requests.NewRequestInfo(r)
	p := &passage{s: s, w: rec, r: r, info: info, id: types.UID(id), start: start}
	p.steps.Begin(start)
	defer p.end()
	if err != nil {
		writeError(rec, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	if err := p.hurry(); err != nil {
		writeError(rec, r, err)
		return
	}
	if err := p.admit(); err != nil {
		writeError(rec, p.r, err)
		return
	}
	p.answer()
}

// passage is one request on its way through the filters.
type passage struct {
	s     *Server
	w     *recorder
	r     *http.Request
	info  *request.RequestInfo
	id    types.UID
	start time.Time
	user  user.Info
	event *audit.Record  // nil: nothing is recorded
	seat  *fairness.Pass // nil: it needs none
	// cancel ends the time that the request asked for itself; nil: it asked for none.
	cancel context.CancelFunc
	aim    aim
	waited time.Duration // for its seat
	hooks  atomic.Int64  // nanoseconds that it waited for webhooks
	steps  registry.Steps
}

// hurry gives a request the time it asks for itself (?timeout=30s), if that is less than requestTimeout.
func (p *passage) hurry() error {
	if !strings.Contains(p.r.URL.RawQuery, "timeout=") || endless(p.info) {
		return nil
	}
	text := p.r.URL.Query().Get("timeout")
	if text == "" {
		return nil
	}
	asked, err := time.ParseDuration(text)
	if err != nil {
		return apierrors.NewBadRequest("invalid timeout specified in the request URL - " + err.Error())
	}
	if asked > 0 && asked < requestTimeout {
		ctx, cancel := context.WithTimeout(p.r.Context(), asked)
		p.r, p.cancel = p.r.WithContext(ctx), cancel
	}
	return nil
}

// admit finds out who is asking, whether they may, and waits for the request's turn.
func (p *passage) admit() error {
	u, err := p.s.authn.Authenticate(p.r)
	now := time.Now()
	p.s.metrics.authenticated(err, now.Sub(p.start))
	p.steps.Until("authenticate", now)
	if err != nil {
		p.s.remarkUnknown(p.r, err)
		p.record(attributes(p.info, nil))
		return apierrors.NewUnauthorized("Unauthorized")
	}
	p.user = u
	at := attributes(p.info, u)
	p.record(at)
	u, constraint, err := authn.Impersonate(p.r.Context(), p.r, at, p.s.authz)
	if err != nil {
		return err
	}
	if u != p.user {
		p.user, at.User = u, u
		audit.Impersonated(p.r.Context(), u, constraint)
	}
	why, err := p.s.allowed(p.r.Context(), at, &p.steps)
	audit.Decided(p.r.Context(), why, err)
	if err != nil {
		return err
	}
	return p.wait(at)
}

// remarkEvery is how far apart warnings about clients with certificates of another time are: anybody can cause them.
const remarkEvery = 10 * time.Second

// remarkUnknown logs why a request was not authenticated. A certificate that is not valid yet, or no longer, is worth a warning: a clock may be wrong.
func (s *Server) remarkUnknown(r *http.Request, err error) {
	var cert x509.CertificateInvalidError
	now, last := time.Now().UnixNano(), s.remarked.Load()
	if errors.As(err, &cert) && cert.Reason == x509.Expired && now-last > int64(remarkEvery) && s.remarked.CompareAndSwap(last, now) {
		s.log.Warn("a client's certificate is not valid at this time; are the client's clock and this host's right?", "from", r.RemoteAddr,
			"subject", cert.Cert.Subject.String(), "err", cert)
		return
	}
	s.log.Debug("a request was not authenticated", "path", r.URL.Path, "from", r.RemoteAddr, "err", err)
}

// record begins the request's audit event.
func (p *passage) record(at *authorizer.AttributesRecord) {
	if p.s.cfg.Audit == nil {
		return
	}
	p.r, p.event = p.s.cfg.Audit.Begin(p.r, p.id, at, p.start)
	if p.event != nil && endless(p.info) {
		p.w.started = p.event.Started
	}
}

// endless says that a request has no time to end in.
func endless(info *request.RequestInfo) bool {
	return info.Verb == "watch" || info.IsResourceRequest && connects(info.Subresource) || strings.HasPrefix(info.Path, "/debug/pprof/")
}

// wait takes the request's seat. Endless requests give it back at once: a watch only must not begin before its turn.
func (p *passage) wait(at *authorizer.AttributesRecord) error {
	if p.s.fair == nil || endless(p.info) && p.info.Verb != "watch" {
		return nil
	}
	pass, err := p.s.fair.Enter(p.r.Context(), at, func() int { return p.s.seats(p.info, p.r) }, requestTimeout/4)
	if pass != nil {
		p.w.Header().Set("X-Kubernetes-Pf-Flowschema-Uid", string(pass.Schema))
		p.w.Header().Set("X-Kubernetes-Pf-Prioritylevel-Uid", string(pass.Level))
	}
	if err != nil {
		p.s.metrics.endedEarly(p.route(), http.StatusTooManyRequests)
		return apierrors.NewTooManyRequests(err.Error(), 1)
	}
	p.waited = pass.Waited()
	p.steps.Done("wait for a turn")
	if p.info.Verb == "watch" {
		pass.Done()
		return nil
	}
	p.seat = pass
	return nil
}

// answer hands the request to whoever answers it.
func (p *passage) answer() {
	done := p.s.metrics.inFlight(p.info)
	defer done()
	w, end := packing(p.w, p.r, p.info)
	switch to := p.s.behind.Of(p.info.Path); {
	case to != nil:
		p.aim = behind
		to.Pass(p.w, p.r, p.user, p.info.Verb == "watch", writeError)
	case !p.info.IsResourceRequest:
		p.s.plain.ServeHTTP(w, p.r.WithContext(request.WithUser(p.r.Context(), p.user)))
	default:
		p.resource(w)
	}
	end() // a panic is answered elsewhere
}

// lastStep is what a request does after all that tells its own steps.
var lastStep = map[aim]string{here: "encode and write", behind: "API server behind this one", unknown: "answer"}

// slow is how long a request may take without being remarked upon.
const slow = time.Second

// end gives the seat back and tells what became of the request. It is deferred, for it also catches panics.
func (p *passage) end() {
	p.seat.Done()
	if p.cancel != nil {
		p.cancel()
	}
	why := recover()
	if why != nil {
		p.event.Panicked(why)
		if why == http.ErrAbortHandler {
			if p.info != nil {
				p.s.metrics.brokenOff(p.route())
			}
			panic(why)
		}
		p.s.log.Error("a request panicked", "method", p.r.Method, "path", p.r.URL.Path, "panic", why, "stack", string(debug.Stack()))
		if p.w.code == 0 {
			writeError(p.w, p.r, apierrors.NewInternalError(fmt.Errorf("this request caused a panic, which was logged")))
		}
	} else {
		p.event.Done(p.w.code)
	}
	now := time.Now()
	took := now.Sub(p.start)
	if p.info == nil {
		return
	}
	p.s.metrics.answered(p.route(), p.w, took, p.waited+time.Duration(p.hooks.Load()))
	if took >= slow && !endless(p.info) {
		p.steps.Until(lastStep[p.aim], now)
		p.s.log.Warn("a request was slow", "method", p.r.Method, "uri", p.r.URL.RequestURI(), "took", took.Round(time.Millisecond), "steps", p.steps.String(), "code", p.w.code,
			"bytes", p.w.bytes, "user", nameOf(p.user), "agent", p.r.UserAgent(), "audit", string(p.id))
	}
}

// route is what the request is counted by. Whether there is what it asks for is looked up here if it was refused before anybody had to know.
func (p *passage) route() route {
	if p.aim == unknown && p.info.IsResourceRequest && p.w.code != http.StatusNotFound {
		if _, _, err := p.s.lookUp(p.info); err == nil {
			p.aim = here
		}
	}
	return routeOf(p.r, p.info, p.aim)
}

func nameOf(u user.Info) string {
	if u == nil {
		return ""
	}
	return u.GetName()
}

// attributes of a request, as authorization, audit and fairness see them.
func attributes(info *request.RequestInfo, u user.Info) *authorizer.AttributesRecord {
	at := &authorizer.AttributesRecord{
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
	return at
}

// allowed asks whether a request may be answered, and why. When that cannot be told, it is not, but neither is it forbidden: the client may try again.
func (s *Server) allowed(ctx context.Context, at *authorizer.AttributesRecord, steps *registry.Steps) (why string, err error) {
	began := time.Now()
	decision, why, err := s.authz.Authorize(ctx, at)
	now := time.Now()
	s.metrics.authorized(decision, err, now.Sub(began))
	steps.Until("authorize", now)
	switch {
	case decision == authorizer.DecisionAllow:
		return why, nil
	case err != nil:
		s.log.Warn("authorization failed", "verb", at.Verb, "path", at.Path, "resource", at.Resource, "err", err)
		return why, apierrors.NewInternalError(err)
	}
	return why, authz.Forbidden(at, why)
}

// objectsPerSeat and mostSeats say how a list's size makes it cost more of its level.
const (
	objectsPerSeat = 1000
	mostSeats      = 10
)

// seats is what a request costs: one, or more for a long list.
func (s *Server) seats(info *request.RequestInfo, r *http.Request) int {
	if info.Verb != "list" && info.Verb != "deletecollection" || info.Name != "" {
		return 1
	}
	row := s.reg.Table().ByResource(schema.GroupResource{Group: info.APIGroup, Resource: info.Resource})
	if row == nil || row.Key == "" {
		return 1
	}
	c := s.reg.Store().Opened(row)
	if c == nil {
		return 1
	}
	n := c.Len()
	if limit, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && limit > 0 {
		n = min(n, limit)
	}
	return min(1+n/objectsPerSeat, mostSeats)
}

// recorder remembers what was answered. It can be hijacked and flushed like what it wraps.
type recorder struct {
	http.ResponseWriter
	code    int
	bytes   int64
	started func(code int) // called when the answer begins; may be nil
}

// begin notes the answer's code.
func (r *recorder) begin(code int) {
	if r.code != 0 {
		return
	}
	r.code = code
	if r.started != nil {
		r.started(code)
	}
}

func (r *recorder) WriteHeader(code int) {
	r.begin(code)
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.begin(http.StatusOK)
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r.begin(http.StatusSwitchingProtocols)
	return http.NewResponseController(r.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController reach deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
