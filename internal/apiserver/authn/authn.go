// Package authn says who a request is from: a client certificate, a service account's token, a bootstrap token, an impersonated user, or nobody in particular.
//
// A credential is either right or the request fails; only a request without any is anonymous. Signatures and certificate chains are checked once and
// remembered in a bounded cache; whether the service account, pod, secret or node that a token is bound to still exists is looked up in memory every time,
// so a deleted pod's token dies with it. The package also issues tokens and serves the keys that others verify them with.
//
// Package apiserver calls it for every request and registers its virtual resources.
package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/registry"
)

// Config of an authenticator.
type Config struct {
	ClientCA *x509.CertPool
	Signing  []byte   // PEM: the private key that signs service-account tokens
	Verify   [][]byte // PEM: public keys that verify them, the signing key's own and older ones
	Issuer   string   // "https://kubernetes.default.svc.cluster.local"
	// Audiences of tokens that ask for none, and of which one must be in a token that is used here. Empty means the issuer.
	Audiences []string
	// FrontProxy signs certificates of those who may say in headers who is asking; nil: nobody may.
	FrontProxy *x509.CertPool
	External   *External // who else knows tokens; may be nil
	Registry   *registry.Registry
	Log        *slog.Logger
}

// remembered is how many certificates, and how many tokens, are not checked again.
const remembered = 4096

// Authenticator is safe for concurrent use.
type Authenticator struct {
	cfg    Config
	keys   *keys
	certs  *lru.Cache[[sha256.Size]byte, *checkedCert]
	tokens *lru.Cache[[sha256.Size]byte, *claims]
	proxy  authenticator.Request // nil: there is none
	now    func() time.Time
}

// New parses the keys. Its errors say which one is broken.
func New(cfg Config) (*Authenticator, error) {
	k, err := parseKeys(cfg.Signing, cfg.Verify)
	if err != nil {
		return nil, err
	}
	if len(cfg.Audiences) == 0 {
		cfg.Audiences = []string{cfg.Issuer}
	}
	a := &Authenticator{cfg: cfg, keys: k, now: time.Now}
	if a.certs, err = lru.New[[sha256.Size]byte, *checkedCert](remembered); err != nil {
		return nil, fmt.Errorf("make the cache of certificates: %w", err)
	}
	if a.tokens, err = lru.New[[sha256.Size]byte, *claims](remembered); err != nil {
		return nil, fmt.Errorf("make the cache of tokens: %w", err)
	}
	if cfg.FrontProxy != nil {
		a.proxy = frontProxy(cfg.FrontProxy)
	}
	return a, nil
}

var (
	errUnknownToken = errors.New("invalid bearer token")
	anonymous       = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
)

// Authenticate returns the request's user. An error means that a credential was given and is wrong: the answer is 401. As upstream, a certificate comes
// before a token, and a token that WebSocket clients hide in the protocol list counts as one.
func (a *Authenticator) Authenticate(r *http.Request) (user.Info, error) {
	if u := a.spokenFor(r); u != nil {
		return u, nil
	}
	var certErr error
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		u, err := a.certificate(r.TLS.PeerCertificates)
		if err == nil {
			return u, nil
		}
		certErr = err
	}
	if token := bearer(r); token != "" {
		u, _, err := a.token(r.Context(), token, a.cfg.Audiences)
		if err != nil {
			return nil, errors.Join(certErr, err)
		}
		return u, nil
	}
	if certErr != nil {
		return nil, certErr
	}
	if !a.cfg.External.mayBeAnonymous(r) {
		return nil, errors.New("anonymous requests are not allowed here")
	}
	return anonymous, nil
}

// bearer is the request's token, or "".
func bearer(r *http.Request) string {
	if kind, token, ok := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " "); ok && strings.EqualFold(kind, "bearer") {
		return strings.TrimSpace(token)
	}
	return webSocketToken(r)
}

// token verifies one token and returns its user and which of the wanted audiences it is for.
func (a *Authenticator) token(ctx context.Context, token string, audiences []string) (user.Info, []string, error) {
	if u, is, err := a.bootstrapUser(ctx, token); is {
		return u, a.cfg.Audiences, err
	}
	c, err := a.verified(token)
	if errors.Is(err, errUnknownToken) {
		return a.foreign(ctx, token, audiences)
	}
	if err != nil {
		return nil, nil, err
	}
	matching := intersect(c.Audience, audiences)
	if len(matching) == 0 {
		return nil, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", []string(c.Audience), audiences)
	}
	u, err := a.account(ctx, c)
	return u, matching, err
}

func intersect(a, b []string) []string {
	var out []string
	for _, s := range a {
		if slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// checkedCert is a certificate whose chain was found good, until the first certificate of the chain ends.
type checkedCert struct {
	user        user.Info
	from, until time.Time
}

// certificate is the user that a client certificate names. TLS has proved possession of the key; the chain is checked here.
func (a *Authenticator) certificate(chain []*x509.Certificate) (user.Info, error) {
	leaf, now := chain[0], a.now()
	sum := sha256.Sum256(leaf.Raw)
	if c, ok := a.certs.Get(sum); ok && now.After(c.from) && now.Before(c.until) {
		return c.user, nil
	}
	if a.cfg.ClientCA == nil {
		return nil, errors.New("x509: no authority for client certificates is configured")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.cfg.ClientCA, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("verifying certificate SN=%s, SKID=%s, AKID=%s failed: %w", leaf.SerialNumber, hex.EncodeToString(leaf.SubjectKeyId),
			hex.EncodeToString(leaf.AuthorityKeyId), err)
	}
	if leaf.Subject.CommonName == "" {
		return nil, errors.New("x509: subject common name is empty, so the certificate names no user")
	}
	checked := &checkedCert{from: leaf.NotBefore, until: leaf.NotAfter, user: &user.DefaultInfo{
		Name:   leaf.Subject.CommonName,
		Groups: withAuthenticated(leaf.Subject.Organization),
		Extra:  map[string][]string{user.CredentialIDKey: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
	}}
	for _, c := range chains[0] {
		if c.NotAfter.Before(checked.until) {
			checked.until = c.NotAfter
		}
	}
	a.certs.Add(sum, checked)
	return checked.user, nil
}

// withAuthenticated adds the group of everybody who isn't anonymous.
func withAuthenticated(groups []string) []string {
	if slices.Contains(groups, user.AllAuthenticated) || slices.Contains(groups, user.AllUnauthenticated) {
		return groups
	}
	return append(slices.Clone(groups), user.AllAuthenticated)
}
