package dashboard

import (
	"bufio"
	"net"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// foreign says whether a browser sends r for another site's page. Browsers say so themselves; for a WebSocket the origin is compared besides, because
// it is a GET that does something.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		// A link from elsewhere may open the page, which is the same for everybody.
		return !(r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && strings.TrimSuffix(r.URL.Path, "/") == Prefix)
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host != r.Host
}

// takeSecret finds the session's second secret and removes it, so that it goes no further.
func takeSecret(r *http.Request) string {
	if s := r.Header.Get(secretHeader); s != "" {
		r.Header.Del(secretHeader)
		return s
	}
	secret := ""
	var rest []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			p = strings.TrimSpace(p)
			if s, ok := strings.CutPrefix(p, secretProtocol); ok {
				secret = s
			} else if p != "" {
				rest = append(rest, p)
			}
		}
	}
	if secret != "" && len(rest) > 0 {
		r.Header.Set("Sec-WebSocket-Protocol", strings.Join(rest, ", "))
	}
	return secret
}

var requests = &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// api passes a session's request on to the API server, as the session's user.
func (d *dashboard) api(w http.ResponseWriter, r *http.Request, s *session) {
	out := r.Clone(r.Context())
	prefix := Prefix + "/api"
	out.URL.Path, out.URL.RawPath = strings.TrimPrefix(r.URL.Path, prefix), strings.TrimPrefix(r.URL.RawPath, prefix)
	out.RequestURI = out.URL.RequestURI()
	for name := range out.Header {
		if name == "Cookie" || strings.HasPrefix(name, "Impersonate-") || strings.HasPrefix(name, "X-Remote-") {
			out.Header.Del(name)
		}
	}
	info, err := requests.NewRequestInfo(out)
	if err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	if info.Subresource == "proxy" && !isHistory(info) {
		// What a pod serves must never look as if it came from here.
		refuse(w, apierrors.NewForbidden(resource, "", errProxy))
		return
	}
	s.credential.put(out)
	d.API.ServeHTTP(&closed{ResponseWriter: w}, out)
}

type constError string

func (e constError) Error() string { return string(e) }

// isHistory: the last hour's figures are the kubelet's own, not a pod's. A name with a colon would mean another port of the node, where anybody may listen.
func isHistory(info *request.RequestInfo) bool {
	return info.Verb == "get" && info.APIGroup == "" && info.Resource == "nodes" && !strings.Contains(info.Name, ":") && strings.Join(info.Parts[2:], "/") == "proxy/stats/history"
}

const errProxy = constError("the dashboard does not pass pages of pods, services or nodes on; use 'kubectl port-forward' or 'kubectl proxy'")

// closed keeps the protecting headers as they are, whatever the answer says, and lets nobody set a cookie.
type closed struct {
	http.ResponseWriter
	begun bool
}

func (c *closed) WriteHeader(code int) {
	if code >= http.StatusOK && !c.begun {
		c.begun = true
		cache := c.Header().Get("Cache-Control")
		protect(c.Header())
		if cache != "" {
			c.Header().Set("Cache-Control", cache+", no-store")
		}
		c.Header().Del("Set-Cookie")
	}
	c.ResponseWriter.WriteHeader(code)
}

func (c *closed) Write(b []byte) (int, error) {
	if !c.begun {
		c.WriteHeader(http.StatusOK)
	}
	return c.ResponseWriter.Write(b)
}

func (c *closed) Flush() { _ = http.NewResponseController(c.ResponseWriter).Flush() }

func (c *closed) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(c.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController reach deadlines.
func (c *closed) Unwrap() http.ResponseWriter { return c.ResponseWriter }
