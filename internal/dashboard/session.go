package dashboard

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
)

const (
	sessionLife = 12 * time.Hour   // from signing in, whatever happens
	idleLife    = 60 * time.Minute // without any request; a page that is open watches, which counts
	maxSessions = 1000             // the one that was idle longest makes room
	secretBytes = 32
)

// Secret is a header of every request to the API, or the part after secretProtocol in the protocols that a WebSocket offers, for which browsers
// set no headers.
const (
	secretHeader   = "X-Skiff-Secret"
	secretProtocol = "skiff.secret."
)

// session is one browser that has signed in.
type session struct {
	credential credential
	user       user.Info
	secret     [sha256.Size]byte // of the second secret
	until      time.Time
	ctx        context.Context // ends when the user signs out, and all that the session has open with it
	end        context.CancelFunc

	mu   sync.Mutex
	last time.Time // that it was used
	open int       // requests under way
}

// sessions are kept by the digest of their cookie, so that memory holds nothing to sign in with but the credentials themselves.
type sessions struct {
	now func() time.Time
	mu  sync.Mutex
	all map[[sha256.Size]byte]*session
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, all: map[[sha256.Size]byte]*session{}}
}

func newSecret() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func digest(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

// begin makes a session and returns its two secrets.
func (s *sessions) begin(c credential, u user.Info) (cookie, secret string, until time.Time) {
	cookie, secret = newSecret(), newSecret()
	now := s.now()
	until = now.Add(sessionLife)
	if end := c.expires(); !end.IsZero() && end.Before(until) {
		until = end
	}
	one := &session{credential: c, user: u, secret: digest(secret), until: until, last: now}
	one.ctx, one.end = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune(now)
	s.all[digest(cookie)] = one
	return cookie, secret, until
}

// prune ends what is over, and makes room for one more.
func (s *sessions) prune(now time.Time) {
	var oldest [sha256.Size]byte
	var since time.Time
	for key, one := range s.all {
		last, over := one.state(now)
		if over {
			s.drop(key)
		} else if since.IsZero() || last.Before(since) {
			oldest, since = key, last
		}
	}
	if len(s.all) >= maxSessions {
		s.drop(oldest)
	}
}

// drop is called with the lock held.
func (s *sessions) drop(key [sha256.Size]byte) {
	if one := s.all[key]; one != nil {
		one.end()
		delete(s.all, key)
	}
}

func (s *session) state(now time.Time) (last time.Time, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open > 0 {
		return now, !now.Before(s.until)
	}
	return s.last, !now.Before(s.until) || now.Sub(s.last) > idleLife
}

// use marks the session as used until the function it returns is called.
func (s *session) use(now func() time.Time) (done func()) {
	mark := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last = now()
		s.open += n
	}
	mark(1)
	return func() { mark(-1) }
}

// find returns the session of a cookie if it has that secret and is not over.
func (s *sessions) find(cookie, secret string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := digest(cookie)
	one := s.all[key]
	if one == nil {
		return nil
	}
	if _, over := one.state(s.now()); over {
		s.drop(key)
		return nil
	}
	if given := digest(secret); subtle.ConstantTimeCompare(given[:], one.secret[:]) != 1 {
		return nil
	}
	return one
}

func (s *sessions) finish(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(digest(cookie))
}

// cookieName carries the port, because cookies are shared between all ports of a host, and so between clusters on one host.
func cookieName(r *http.Request) string {
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		port = "443"
	}
	return "__Secure-skiff-" + port
}

func cookie(r *http.Request) string {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

func setCookie(w http.ResponseWriter, r *http.Request, value string) {
	age := 0 // until the browser ends
	if value == "" {
		age = -1
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: value, Path: Prefix, MaxAge: age, HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode,
	})
}

type inSession func(w http.ResponseWriter, r *http.Request, s *session)

// within lets a request of a session through, with a context that ends with the session.
func (d *dashboard) within(next inSession) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := d.sessions.find(cookie(r), takeSecret(r))
		if s == nil {
			refuse(w, apierrors.NewUnauthorized("the session has ended; sign in again"))
			return
		}
		defer s.use(d.now)()
		ctx, cancel := context.WithDeadline(r.Context(), s.until)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		next(w, r.WithContext(ctx), s)
	}
}
