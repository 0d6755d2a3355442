package dashboard

import (
	"encoding/json"
	"mime"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	maxSignIn = 1 << 20 // a kubeconfig with many clusters
	linkLife  = 2 * time.Minute
	maxLinks  = 100
)

// signInRequest is one of three ways to sign in.
type signInRequest struct {
	Token      string `json:"token,omitempty"`
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Code       string `json:"code,omitempty"` // of a one-time link
}

// signedIn is what the page knows of its session. Secret is told once, at the sign-in.
type signedIn struct {
	Cluster string    `json:"cluster"`
	User    string    `json:"user"`
	Groups  []string  `json:"groups"`
	Until   time.Time `json:"until"`
	Secret  string    `json:"secret,omitempty"`
}

func (d *dashboard) signIn(w http.ResponseWriter, r *http.Request) {
	var in signInRequest
	if err := readJSON(w, r, &in); err != nil {
		refuse(w, err)
		return
	}
	c, err := d.credentialOf(in)
	if err != nil {
		refuse(w, err)
		return
	}
	u, err := d.check(r, c)
	if err != nil {
		refuse(w, err)
		return
	}
	d.sessions.finish(cookie(r))
	value, secret, until := d.sessions.begin(c, u)
	setCookie(w, r, value)
	d.Log.Info("signed in to the dashboard", "user", u.GetName(), "from", r.RemoteAddr)
	writeJSON(w, http.StatusCreated, signedIn{d.Cluster, u.GetName(), u.GetGroups(), until, secret})
}

func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return apierrors.NewBadRequest("send application/json")
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSignIn)).Decode(into); err != nil {
		return apierrors.NewBadRequest("not the JSON that is wanted: " + firstLine(err))
	}
	return nil
}

func (d *dashboard) credentialOf(in signInRequest) (c credential, err error) {
	switch {
	case in.Code != "":
		return d.links.redeem(in.Code)
	case in.Kubeconfig != "":
		c, err = fromKubeconfig(in.Kubeconfig)
	default:
		c, err = fromToken(in.Token)
	}
	if err != nil {
		return c, apierrors.NewBadRequest(err.Error())
	}
	return c, nil
}

// whoAmI ends the session, and all that it has open, when its credential has been revoked: a watch that is under way asks nobody again.
func (d *dashboard) whoAmI(w http.ResponseWriter, r *http.Request, s *session) {
	if _, err := d.check(r, s.credential); err != nil {
		d.sessions.finish(cookie(r))
		refuse(w, err)
		return
	}
	writeJSON(w, http.StatusOK, signedIn{d.Cluster, s.user.GetName(), s.user.GetGroups(), s.until, ""})
}

func (d *dashboard) signOut(w http.ResponseWriter, r *http.Request, _ *session) {
	d.sessions.finish(cookie(r))
	setCookie(w, r, "")
	w.WriteHeader(http.StatusNoContent)
}

// Link is the answer to a request for a one-time link.
type Link struct {
	Path  string    `json:"path"` // of the API server; the code is in its fragment, which browsers send to nobody
	Until time.Time `json:"until"`
}

// makeLink gives whoever has a credential a link that signs a browser in with it, once.
func (d *dashboard) makeLink(w http.ResponseWriter, r *http.Request) {
	c := carried(r)
	if _, err := d.check(r, c); err != nil {
		refuse(w, err)
		return
	}
	code, until := d.links.add(c)
	writeJSON(w, http.StatusCreated, Link{Prefix + "/#/link/" + code, until})
}

// links are the one-time codes that have not been used.
type links struct {
	now func() time.Time
	mu  sync.Mutex
	all map[[32]byte]link
}

type link struct {
	credential credential
	until      time.Time
}

func newLinks(now func() time.Time) *links { return &links{now: now, all: map[[32]byte]link{}} }

func (l *links) add(c credential) (code string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for key, one := range l.all {
		if !now.Before(one.until) || len(l.all) >= maxLinks {
			delete(l.all, key)
		}
	}
	code, until = newSecret(), now.Add(linkLife)
	l.all[digest(code)] = link{c, until}
	return code, until
}

func (l *links) redeem(code string) (credential, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := digest(code)
	one, ok := l.all[key]
	delete(l.all, key)
	if !ok || !l.now().Before(one.until) {
		return credential{}, apierrors.NewUnauthorized("this link has been used, or is older than two minutes; 'skiff dashboard' makes another")
	}
	return one.credential, nil
}
