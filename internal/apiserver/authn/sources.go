package authn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"

	"skiff.dev/skiff/internal/apiserver/configfile"
)

// Sources are the settings of everybody else who may say whose a token is. The zero value is nobody.
type Sources struct {
	TokenFile     string // "token,user,uid,"group,…"" a line
	ConfigFile    string // AuthenticationConfiguration
	OIDC          OIDC   // the same for one issuer, as flags
	WebhookConfig string // kubeconfig of a service that answers TokenReviews
}

// OIDC is one issuer of identity tokens.
type OIDC struct {
	Issuer, ClientID              string
	UsernameClaim, UsernamePrefix string
	GroupsClaim, GroupsPrefix     string
	CAFile                        string
	RequiredClaims                []string // "key=value"
	Algorithms                    []string
}

// External is what Sources came to.
type External struct {
	sources    Sources
	issuer     string // the cluster's own
	audiences  []string
	serverID   string
	holds      []byte // what the file held when it was first read
	first      []authenticator.Token
	configured atomic.Pointer[configured]
	last       []authenticator.Token
}

// configured is what the file, or the flags for one issuer, came to. Read-only.
type configured struct {
	tokens    []authenticator.Token
	learning  []interface{ HealthCheck() error } // issuers, whose keys are to be fetched first
	anonymous *apiserver.AnonymousAuthConfig
	end       context.CancelFunc // ends what asks the issuers
}

const (
	// webhookMemory is how long a service's yes is believed without asking again.
	webhookMemory = 2 * time.Minute
	// learnPatience is how long issuers that come with a change of the file may take to show their keys, before the change is given up.
	learnPatience = time.Minute
	// requestPatience is how long issuers that go with it are still there for requests under way.
	requestPatience = time.Minute
)

const configKey = "authentication-config"

// Open reads the files and begins to learn the issuers' keys, until ctx ends. issuer is the cluster's own, audiences are what tokens must be for.
func (s *Sources) Open(ctx context.Context, issuer string, audiences []string, serverID string) (*External, error) {
	x := &External{sources: *s, issuer: issuer, audiences: audiences, serverID: serverID}
	if s.TokenFile != "" {
		t, err := tokenfile.NewCSV(s.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("token-auth-file: %s: %w", s.TokenFile, err)
		}
		x.first = append(x.first, authenticator.WrapAudienceAgnosticToken(audiences, t))
	}
	if s.ConfigFile != "" && s.OIDC.Issuer == "" { // jwt refuses both
		var err error
		if x.holds, err = os.ReadFile(s.ConfigFile); err != nil {
			return nil, fmt.Errorf("%s: %w", configKey, err)
		}
	}
	c, err := x.configure(ctx, x.holds)
	if err != nil {
		return nil, err
	}
	x.configured.Store(c)
	if s.WebhookConfig == "" {
		return x, nil
	}
	config, err := webhookutil.LoadKubeconfig(s.WebhookConfig, nil)
	if err != nil {
		return nil, fmt.Errorf("authentication-token-webhook-config-file: %s: %w", s.WebhookConfig, err)
	}
	t, err := webhook.New(config, "v1", audiences, *webhook.DefaultRetryBackoff())
	if err != nil {
		return nil, fmt.Errorf("authentication-token-webhook-config-file: %s: %w", s.WebhookConfig, err)
	}
	x.last = append(x.last, cache.New(t, false, webhookMemory, webhookMemory))
	return x, nil
}

// known are all that know tokens, in the order in which they are asked.
func (x *External) known() []authenticator.Token {
	return slices.Concat(x.first, x.configured.Load().tokens, x.last)
}

// Follow follows the file with the issuers; nil if there is none.
func (x *External) Follow(figures prometheus.Registerer, log *slog.Logger) *configfile.Follower {
	if x.sources.ConfigFile == "" {
		return nil
	}
	return &configfile.Follower{
		Key: configKey, File: x.sources.ConfigFile, Holds: x.holds, Read: x.change, Log: log,
		Figures: configfile.NewFigures(figures, "authentication_config_controller", nil),
	}
}

// change puts another content of the file in force, once its issuers have shown their keys.
func (x *External) change(ctx context.Context, raw []byte) error {
	next, err := x.configure(ctx, raw)
	if err != nil {
		return err
	}
	if err := next.learn(ctx); err != nil {
		next.end()
		return err
	}
	time.AfterFunc(requestPatience, x.configured.Swap(next).end)
	return nil
}

// learn returns once every issuer's keys are known.
func (c *configured) learn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, learnPatience)
	defer cancel()
	for _, l := range c.learning {
		for err := l.HealthCheck(); err != nil; err = l.HealthCheck() {
			select {
			case <-ctx.Done():
				return err
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// configure makes what the file's content says, or the flags for one issuer.
func (x *External) configure(ctx context.Context, raw []byte) (*configured, error) {
	anonymous, jwt, algorithms, err := x.sources.jwt(raw, x.issuer)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	c := &configured{anonymous: anonymous, end: end}
	for i := range jwt {
		o := oidc.Options{JWTAuthenticator: jwt[i], SupportedSigningAlgs: algorithms, DisallowedIssuers: []string{x.issuer}, APIServerID: x.serverID}
		if ca := jwt[i].Issuer.CertificateAuthority; ca != "" {
			o.CAContentProvider = bundle(ca)
		}
		t, err := oidc.New(ctx, o)
		if err != nil {
			end()
			return nil, fmt.Errorf("set up the issuer %s: %w", jwt[i].Issuer.URL, err)
		}
		c.learning = append(c.learning, t)
		c.tokens = append(c.tokens, authenticator.WrapAudienceAgnosticToken(x.audiences, t))
	}
	return c, nil
}

// jwt are the issuers that the file's content or the flags name, and what it says of requests without a credential.
func (s *Sources) jwt(raw []byte, issuer string) (*apiserver.AnonymousAuthConfig, []apiserver.JWTAuthenticator, []string, error) {
	const key = configKey
	c, algorithms := &apiserver.AuthenticationConfiguration{}, oidc.AllValidSigningAlgorithms()
	switch {
	case s.ConfigFile != "" && s.OIDC.Issuer != "":
		return nil, nil, nil, errors.New("authentication-config and oidc-issuer-url exclude each other; move the issuer into the file")
	case s.ConfigFile != "":
		var err error
		if c, err = configfile.Decode[apiserver.AuthenticationConfiguration](key, s.ConfigFile, raw); err != nil {
			return nil, nil, nil, err
		}
	case s.OIDC.Issuer != "":
		one, err := s.OIDC.authenticator()
		if err != nil {
			return nil, nil, nil, err
		}
		c.JWT, algorithms = []apiserver.JWTAuthenticator{one}, s.OIDC.Algorithms
	case s.OIDC.ClientID != "":
		return nil, nil, nil, errors.New("oidc-client-id: oidc-issuer-url is missing")
	default:
		return nil, nil, nil, nil
	}
	if errs := validation.ValidateAuthenticationConfiguration(authenticationcel.NewDefaultCompiler(), c, []string{issuer}); len(errs) > 0 {
		if s.ConfigFile != "" {
			return nil, nil, nil, fmt.Errorf("%s: %s: %w", key, s.ConfigFile, errs.ToAggregate())
		}
		return nil, nil, nil, fmt.Errorf("oidc-issuer-url: %w", errs.ToAggregate())
	}
	return c.Anonymous, c.JWT, algorithms, nil
}

// authenticator says in the file's terms what the flags mean.
func (o *OIDC) authenticator() (apiserver.JWTAuthenticator, error) {
	if o.ClientID == "" {
		return apiserver.JWTAuthenticator{}, errors.New("oidc-client-id: is missing; it is the audience that the issuer's tokens must have")
	}
	out := apiserver.JWTAuthenticator{Issuer: apiserver.Issuer{URL: o.Issuer, Audiences: []string{o.ClientID}}}
	prefix := o.UsernamePrefix
	switch {
	case prefix == "-":
		prefix = ""
	case prefix == "" && o.UsernameClaim != "email":
		prefix = o.Issuer + "#" // names from elsewhere must not be taken for the cluster's own
	}
	out.ClaimMappings.Username = apiserver.PrefixedClaimOrExpression{Claim: o.UsernameClaim, Prefix: &prefix}
	if o.GroupsClaim != "" {
		groups := o.GroupsPrefix
		out.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: o.GroupsClaim, Prefix: &groups}
	}
	for _, c := range o.RequiredClaims {
		claim, value, ok := strings.Cut(c, "=")
		if !ok {
			return out, fmt.Errorf("oidc-required-claim: %q is not of the form claim=value", c)
		}
		out.ClaimValidationRules = append(out.ClaimValidationRules, apiserver.ClaimValidationRule{Claim: claim, RequiredValue: value})
	}
	if o.CAFile != "" {
		ca, err := os.ReadFile(o.CAFile)
		if err != nil {
			return out, fmt.Errorf("oidc-ca-file: %w", err)
		}
		out.Issuer.CertificateAuthority = string(ca)
	}
	return out, nil
}

// bundle is a list of authorities that doesn't change.
type bundle string

func (b bundle) CurrentCABundleContent() []byte { return []byte(b) }

// mayBeAnonymous says whether a request may come without a credential.
func (x *External) mayBeAnonymous(r *http.Request) bool {
	if x == nil {
		return true
	}
	a := x.configured.Load().anonymous
	if a == nil {
		return true
	}
	for _, c := range a.Conditions {
		if c.Path == r.URL.Path {
			return a.Enabled
		}
	}
	return a.Enabled && len(a.Conditions) == 0
}
