// Package dashboard serves the web UI at /ui of the API server, and gives browsers sessions there.
//
// It owns the built assets (dist, made from the folder ui), who is signed in, and the way from a browser to the API. Its invariant: a browser does
// nothing that its user could not do with kubectl. A session holds the credential that was signed in with, and every request under
// /ui/api/ goes through all of the API server's filters with that credential, so a token that was revoked ends the session's rights at once.
//
// What keeps others out: the session cookie is HttpOnly and SameSite=Strict, but cookies don't know ports, and pods may serve on other ports of
// the same host. So each request carries a second secret besides, which the page keeps in its origin's storage and sends as a header; a cookie alone opens
// nothing, and neither a link nor a form of another site can send that header.
//
// Nothing runs until somebody asks for a page: no goroutine, no timer.
package dashboard

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Config of the dashboard.
type Config struct {
	Cluster string                                   // its name, for the page's title
	API     http.Handler                             // the API server with all its filters
	Who     func(r *http.Request) (user.Info, error) // the API server's authentication
	Log     *slog.Logger
}

// Prefix is the path below which all of the dashboard lies.
const Prefix = "/ui"

type dashboard struct {
	Config
	sessions *sessions
	links    *links
	now      func() time.Time
}

// New returns what answers Prefix and everything below it.
func New(cfg Config) http.Handler {
	d := &dashboard{Config: cfg, now: time.Now}
	return d.handler()
}

func (d *dashboard) handler() http.Handler {
	d.sessions, d.links = newSessions(d.now), newLinks(d.now)
	m := http.NewServeMux()
	m.HandleFunc("GET "+Prefix, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, Prefix+"/", http.StatusMovedPermanently)
	})
	m.HandleFunc("GET "+Prefix+"/{$}", d.index)
	m.HandleFunc("GET "+Prefix+"/{file}", asset)
	m.HandleFunc("POST "+Prefix+"/session", d.signIn)
	m.HandleFunc("GET "+Prefix+"/session", d.within(d.whoAmI))
	m.HandleFunc("DELETE "+Prefix+"/session", d.within(d.signOut))
	m.HandleFunc("POST "+Prefix+"/link", d.makeLink)
	m.HandleFunc(Prefix+"/api/", d.within(d.api))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		if foreign(r) {
			refuse(w, apierrors.NewForbidden(resource, "", errors.New("the request comes from another site")))
			return
		}
		m.ServeHTTP(w, r)
	})
}

// closedPolicy is for everything but the page itself: nothing in it may run or load anything.
const closedPolicy = "default-src 'none'; frame-ancestors 'none'; sandbox"

// protect sets what every answer carries.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", closedPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// resource is what errors of the dashboard's own are about.
var resource = metav1.SchemeGroupVersion.WithResource("dashboard").GroupResource()

// refuse answers with an error in the API's own form, which is all that the page has to understand.
func refuse(w http.ResponseWriter, err error) {
	status := apierrors.NewInternalError(err).Status()
	if known := apierrors.APIStatus(nil); errors.As(err, &known) {
		status = known.Status()
	}
	status.Kind, status.APIVersion = "Status", "v1"
	writeJSON(w, int(status.Code), status)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}
