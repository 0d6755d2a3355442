package aggregate

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"skiff.dev/skiff/internal/apiserver/authn"
)

// patience is for a request that is neither a watch nor a connection.
const patience = 60 * time.Second

// Pass passes a request on as u's. fail answers what can't be passed on; endless says that the request has no time to end in.
func (r *Remote) Pass(w http.ResponseWriter, req *http.Request, u user.Info, endless bool, fail func(http.ResponseWriter, *http.Request, error)) {
	if why := r.unavailable(); why != "" {
		fail(w, req, apierrors.NewServiceUnavailable("the API service "+r.name+" is not available: "+why))
		return
	}
	ctx, upgrade := req.Context(), httpstream.IsUpgradeRequest(req)
	if !endless && !upgrade {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	out := req.Clone(ctx)
	forget(out.Header)
	speakFor(out.Header, u)
	to := &url.URL{Scheme: "https", Host: r.ref.ServerName() + ":" + strconv.Itoa(int(r.ref.Port)), Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery}
	h := proxy.NewUpgradeAwareHandler(to, r.transport, false, upgrade, responder{req, fail})
	h.UseLocationHost = true
	h.ServeHTTP(w, out)
}

// unavailable says why a remote can't be asked. One that was not looked at yet is tried.
func (r *Remote) unavailable() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.state.condition; r.state.known && c.Status != apiregistrationv1.ConditionTrue {
		return c.Reason + ": " + c.Message
	}
	return ""
}

type responder struct {
	req  *http.Request
	fail func(http.ResponseWriter, *http.Request, error)
}

func (e responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	e.fail(w, e.req, apierrors.NewServiceUnavailable("error trying to reach service: "+err.Error()))
}

// forget takes away what the client proved itself with, and what it says of itself that only this server may say.
func forget(h http.Header) {
	h.Del("Authorization")
	for key := range h {
		if name := strings.ToLower(key); strings.HasPrefix(name, "impersonate-") || strings.HasPrefix(name, "x-remote-") {
			delete(h, key)
		}
	}
}

// speakFor says in headers who is asking.
func speakFor(h http.Header, u user.Info) {
	h.Set(authn.RemoteUser, u.GetName())
	if uid := u.GetUID(); uid != "" {
		h.Set(authn.RemoteUID, uid)
	}
	for _, g := range u.GetGroups() {
		h.Add(authn.RemoteGroup, g)
	}
	for key, values := range u.GetExtra() {
		for _, v := range values {
			h.Add(authn.RemoteExtraPrefix+escaped(key), v)
		}
	}
}

// escaped makes a header's name of any key, as the API servers that read it expect.
func escaped(key string) string {
	const legal = "!#$&'*+-.^_`|~"
	var b strings.Builder
	for _, c := range []byte(key) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(legal, c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteString(strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:]))
		}
	}
	return b.String()
}
