package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metascheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/registry"
)

const (
	// requestTimeout bounds what is neither a watch nor a connection.
	requestTimeout = 60 * time.Second
	// answerPatience is how long a client may take to hear that its request's time is over, or to take the rest of its answer.
	answerPatience = 5 * time.Second
)

// resource answers a request for a resource.
func (p *passage) resource(w http.ResponseWriter) {
	s, r, info := p.s, p.r, p.info
	q, sub, err := s.lookUp(info)
	if err != nil {
		writeError(w, r, err)
		return
	}
	p.aim = here
	q.User, q.UserAgent, q.Waited, q.Steps = p.user, cmp.Or(r.UserAgent(), "unknown"), &p.hooks, &p.steps
	q.Warn = func(text string) { w.Header().Add("Warning", fmt.Sprintf("299 - %q", text)) }
	if warnings := deprecations(q.Resource); len(warnings) > 0 {
		for _, text := range warnings {
			q.Warn(text)
		}
		s.metrics.deprecated.WithLabelValues(info.APIGroup, info.APIVersion, info.Resource, info.Subresource, "").Set(1)
		audit.Deprecated(r.Context())
	}
	connection := sub != nil && sub.New == nil && sub.Name != "status" && sub.Name != "scale"
	if connection && sub.Name == "proxy" && r.Method == http.MethodOptions { // upstream has no verb for it
		s.connect(w, r, q, info)
		return
	}
	if err := allowedVerb(q, sub, info.Verb, r); err != nil {
		writeError(w, r, err)
		return
	}
	if connection {
		s.connect(w, r, q, info)
		return
	}
	if info.Verb == "patch" || info.Verb == "update" {
		q.MayCreate = func(ctx context.Context) error {
			also := *info
			also.Verb = "create"
			_, err := s.allowed(ctx, attributes(&also, p.user), nil)
			return err
		}
	}
	if info.Verb == "watch" {
		s.watch(w, r, q, p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	defer p.cutOff(ctx, w)()
	c := &call{s, w, r.WithContext(ctx), q, sub, info}
	switch info.Verb {
	case "get":
		c.get()
	case "list":
		c.list()
	case "create":
		c.create()
	case "update":
		c.update()
	case "patch":
		c.patch()
	case "delete":
		c.delete()
	case "deletecollection":
		c.deleteCollection()
	default:
		writeError(w, r, methodNotAllowed(r))
	}
}

// deprecations are what whoever uses a resource is warned of.
func deprecations(row *api.Resource) []string {
	switch {
	case row.Custom != nil:
		return row.Custom.Warnings
	case row.Deprecated != "":
		return []string{row.Deprecated}
	}
	return nil
}

// cutOff ends the reading of a request whose time is over, and soon the writing: it is answered by 504, and a client which doesn't take its answer holds nothing
// for ever.
func (p *passage) cutOff(ctx context.Context, w http.ResponseWriter) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			p.s.metrics.endedEarly(routeOf(p.r, p.info, here), http.StatusGatewayTimeout)
			conn, now := http.NewResponseController(w), time.Now()
			_, _ = conn.SetReadDeadline(now), conn.SetWriteDeadline(now.Add(answerPatience))
		}
	})
}

// lookUp finds what a path names.
func (s *Server) lookUp(info *request.RequestInfo) (*registry.Request, *api.Subresource, error) {
	row := s.reg.Table().ByResource(schema.GroupResource{Group: info.APIGroup, Resource: info.Resource})
	if row == nil {
		return nil, nil, notFound()
	}
	q := &registry.Request{Name: info.Name, Subresource: info.Subresource}
	if q.Resource, q.Served = row.Serving(info.APIGroup, info.APIVersion); q.Resource == nil {
		return nil, nil, notFound()
	}
	row = q.Resource
	if row.Namespaced {
		q.Namespace = info.Namespace
	} else if info.Namespace != "" && row.Plural != "namespaces" {
		return nil, nil, notFound()
	}
	if info.Subresource == "" {
		return q, nil, nil
	}
	if info.Subresource == "status" && row.Status {
		return q, &api.Subresource{Name: "status", Verbs: []string{"get", "patch", "update"}}, nil
	}
	for i := range row.Subresources {
		if row.Subresources[i].Name == info.Subresource {
			return q, &row.Subresources[i], nil
		}
	}
	return nil, nil, notFound()
}

func allowedVerb(q *registry.Request, sub *api.Subresource, verb string, r *http.Request) error {
	verbs := q.Resource.Verbs
	if sub != nil {
		verbs = sub.Verbs
	}
	collection := verb == "list" || verb == "watch" || verb == "deletecollection"
	switch {
	case !slices.Contains(verbs, verb):
		return methodNotAllowed(r)
	case q.Resource.Namespaced && q.Namespace == "" && (!collection || verb == "deletecollection"):
		return methodNotAllowed(r)
	case sub == nil && verb == "create" && q.Name != "", (verb == "update" || verb == "patch") && q.Name == "":
		return methodNotAllowed(r)
	}
	return nil
}

// call is one request for a resource on its way.
type call struct {
	s   *Server
	w   http.ResponseWriter
	r   *http.Request
	q   *registry.Request
	sub *api.Subresource
	of  *request.RequestInfo
}

// fail answers with what is wrong: first of all that the request's time was over, if it was.
func (c *call) fail(err error) {
	if late := c.r.Context().Err(); errors.Is(late, context.DeadlineExceeded) {
		if !apierrors.IsTimeout(err) && !apierrors.IsTooManyRequests(err) {
			err = apierrors.NewTimeoutError(fmt.Sprintf("request did not complete within requested timeout - %v: %v", late, err), 0)
		}
		if c.r.ProtoMajor == 1 {
			c.w.Header().Set("Connection", "close") // it can be written to for a moment only
		}
	}
	writeError(c.w, c.r, err)
}

// wants is the kind that a body must have, and an empty object of it.
func (c *call) wants() (schema.GroupVersionKind, runtime.Object) {
	switch {
	case c.sub != nil && c.sub.New != nil:
		gvk := schema.GroupVersionKind{Group: c.sub.Group, Version: c.sub.Version, Kind: c.sub.Kind}
		if gvk.Version == "" {
			gvk.Group, gvk.Version = c.q.Resource.Group, c.q.Resource.Version
		}
		return gvk, c.sub.New()
	case c.q.Served != nil:
		return c.q.Served.Row().GVK(), c.q.Served.New()
	}
	return c.q.Resource.GVK(), c.q.Resource.New()
}

func (c *call) body(validation string) (runtime.Object, error) {
	defer c.q.Steps.Done("read and decode")
	raw, err := readBody(c.w, c.r)
	if err != nil {
		return nil, err
	}
	want, obj := c.wants()
	var row *api.Resource
	if c.q.Resource.Custom != nil && c.q.Subresource != "scale" {
		row = c.q.Resource
	}
	if err := decode(raw, c.r.Header.Get("Content-Type"), obj, row, want, validation, c.q.Warn); err != nil {
		return nil, err
	}
	audit.Request(c.r.Context(), obj, want.GroupVersion(), c.q.Resource.GVR(), c.q.Subresource)
	return obj, nil
}

// parameters decodes the query into options.
func parameters[T any, P interface {
	*T
	runtime.Object
}](r *http.Request) (P, error) {
	o := P(new(T))
	if r.URL.RawQuery == "" {
		return o, nil
	}
	if err := metascheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, o); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return o, nil
}

func (c *call) get() {
	o, err := parameters[metav1.GetOptions](c.r)
	if err != nil {
		c.fail(err)
		return
	}
	out, err := c.s.reg.Get(c.r.Context(), c.q, o)
	c.q.Steps.Done("read")
	if err != nil {
		c.fail(err)
		return
	}
	c.s.writeResult(c.w, c.r, http.StatusOK, c.q, out)
}

func (c *call) create() {
	o, err := parameters[metav1.CreateOptions](c.r)
	if err != nil {
		c.fail(err)
		return
	}
	obj, err := c.body(o.FieldValidation)
	if err != nil {
		c.fail(err)
		return
	}
	out, err := c.s.reg.Create(c.r.Context(), c.q, obj, o)
	c.q.Steps.Done("store")
	if err != nil {
		c.fail(err)
		return
	}
	c.s.writeResult(c.w, c.r, http.StatusCreated, c.q, out)
}

func (c *call) update() {
	o, err := parameters[metav1.UpdateOptions](c.r)
	if err != nil {
		c.fail(err)
		return
	}
	obj, err := c.body(o.FieldValidation)
	if err != nil {
		c.fail(err)
		return
	}
	out, err := c.s.reg.Update(c.r.Context(), c.q, obj, o)
	c.q.Steps.Done("store")
	if err != nil {
		c.fail(err)
		return
	}
	c.s.writeResult(c.w, c.r, writtenAs(out), c.q, out)
}

// writtenAs is the code for an update or patch.
func writtenAs(out *registry.Result) int {
	if out.Created {
		return http.StatusCreated
	}
	return http.StatusOK
}

func (c *call) patch() {
	o, err := parameters[metav1.PatchOptions](c.r)
	if err != nil {
		c.fail(err)
		return
	}
	media, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil {
		c.fail(unsupportedMedia())
		return
	}
	raw, err := readBody(c.w, c.r)
	if err != nil {
		c.fail(err)
		return
	}
	c.q.Steps.Done("read and decode")
	audit.Patch(c.r.Context(), raw)
	out, err := c.s.reg.Patch(c.r.Context(), c.q, types.PatchType(media), raw, o)
	c.q.Steps.Done("store")
	if err != nil {
		c.fail(err)
		return
	}
	c.s.writeResult(c.w, c.r, writtenAs(out), c.q, out)
}

// deleteOptions come in the body or, from simple clients, in the query.
func (c *call) deleteOptions() (*metav1.DeleteOptions, error) {
	defer c.q.Steps.Done("read and decode")
	raw, err := readBody(c.w, c.r)
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 {
		return parameters[metav1.DeleteOptions](c.r)
	}
	o := &metav1.DeleteOptions{}
	bad := func(err error) error {
		return apierrors.NewBadRequest(fmt.Sprintf("the DeleteOptions in the body cannot be decoded: %v", err))
	}
	media, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if media == mediaProtobuf {
		if _, _, err := protobufSerializer.Decode(raw, nil, o); err != nil {
			return nil, bad(err)
		}
	} else if err := decodeJSON(raw, o, metav1.FieldValidationIgnore, nil, c.q.Warn, bad); err != nil {
		return nil, err
	}
	audit.Request(c.r.Context(), o, corev1.SchemeGroupVersion, c.q.Resource.GVR(), c.q.Subresource)
	return o, nil
}

func (c *call) delete() {
	o, err := c.deleteOptions()
	if err != nil {
		c.fail(err)
		return
	}
	if unsafe := o.IgnoreStoreReadErrorWithClusterBreakingPotential; unsafe != nil && *unsafe {
		audit.Unsafe(c.r.Context())
		if err := c.mayDeleteUnreadable(); err != nil {
			c.fail(err)
			return
		}
	}
	out, err := c.s.reg.Delete(c.r.Context(), c.q, o)
	c.q.Steps.Done("store")
	if err != nil {
		c.fail(err)
		return
	}
	if !out.Deleted {
		c.s.writeResult(c.w, c.r, http.StatusOK, c.q, out)
		return
	}
	group := c.q.Resource.Group
	if c.q.Served != nil {
		group = c.q.Served.Group
	}
	done := &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess, Code: http.StatusOK,
		Details: &metav1.StatusDetails{Name: c.q.Name, Group: group, Kind: c.q.Resource.Plural},
	}
	if out.Object != nil { // it could be read
		done.Details.UID = out.Object.(api.Object).GetUID()
	}
	audit.Response(c.r.Context(), done)
	writeObject(c.w, c.r, http.StatusOK, done)
}

// mayDeleteUnreadable says whether the user may remove what cannot be read, which takes a verb of its own (KEP-3926).
func (c *call) mayDeleteUnreadable() error {
	const verb = "unsafe-delete-ignore-read-errors"
	at := attributes(c.of, c.q.User)
	at.Verb = verb
	decision, why, err := c.s.authz.Authorize(c.r.Context(), at)
	switch {
	case err != nil && decision != authorizer.DecisionAllow:
		return apierrors.NewInternalError(err)
	case decision == authorizer.DecisionAllow:
		return nil
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: at.APIGroup, Resource: at.Resource}, at.Name, fmt.Errorf("not permitted to do %q, reason: %s", verb, why))
}

func (c *call) deleteCollection() {
	o, err := c.deleteOptions()
	if err != nil {
		c.fail(err)
		return
	}
	l, err := parameters[metainternalversion.ListOptions](c.r)
	if err != nil {
		c.fail(err)
		return
	}
	f, err := negotiateFor(c.r, c.q)
	if err != nil {
		c.fail(err)
		return
	}
	gone, err := c.s.reg.DeleteCollection(c.r.Context(), c.q, o, l)
	c.q.Steps.Done("list and delete")
	if err != nil {
		c.fail(err)
		return
	}
	c.writeList(f, gone, metav1.ListMeta{})
}
