package authn

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

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
	tokens    []authenticator.Token
	anonymous *apiserver.AnonymousAuthConfig
}

// webhookMemory is how long a service's yes is believed without asking again.
const webhookMemory = 2 * time.Minute

// Open reads the files and begins to learn the issuers' keys, until ctx ends. issuer is the cluster's own, audiences are what tokens must be for.
func (s *Sources) Open(ctx context.Context, issuer string, audiences []string, serverID string) (*External, error) {
	x := &External{}
	agnostic := func(t authenticator.Token) {
		x.tokens = append(x.tokens, authenticator.WrapAudienceAgnosticToken(audiences, t))
	}
	if s.TokenFile != "" {
		t, err := tokenfile.NewCSV(s.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("token-auth-file: %s: %w", s.TokenFile, err)
		}
		agnostic(t)
	}
	jwt, algorithms, err := s.jwt(x, issuer)
	if err != nil {
		return nil, err
	}
	for i := range jwt {
		o := oidc.Options{JWTAuthenticator: jwt[i], SupportedSigningAlgs: algorithms, DisallowedIssuers: []string{issuer}, APIServerID: serverID}
		if ca := jwt[i].Issuer.CertificateAuthority; ca != "" {
			o.CAContentProvider = bundle(ca)
		}
		t, err := oidc.New(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("set up the issuer %s: %w", jwt[i].Issuer.URL, err)
		}
		agnostic(t)
	}
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
	x.tokens = append(x.tokens, cache.New(t, false, webhookMemory, webhookMemory))
	return x, nil
}

// jwt are the issuers that the file or the flags name.
func (s *Sources) jwt(x *External, issuer string) ([]apiserver.JWTAuthenticator, []string, error) {
	const key = "authentication-config"
	c, algorithms := &apiserver.AuthenticationConfiguration{}, oidc.AllValidSigningAlgorithms()
	switch {
	case s.ConfigFile != "" && s.OIDC.Issuer != "":
		return nil, nil, errors.New("authentication-config and oidc-issuer-url exclude each other; move the issuer into the file")
	case s.ConfigFile != "":
		var err error
		if c, err = configfile.Read[apiserver.AuthenticationConfiguration](key, s.ConfigFile); err != nil {
			return nil, nil, err
		}
		x.anonymous = c.Anonymous
	case s.OIDC.Issuer != "":
		one, err := s.OIDC.authenticator()
		if err != nil {
			return nil, nil, err
		}
		c.JWT, algorithms = []apiserver.JWTAuthenticator{one}, s.OIDC.Algorithms
	case s.OIDC.ClientID != "":
		return nil, nil, errors.New("oidc-client-id: oidc-issuer-url is missing")
	default:
		return nil, nil, nil
	}
	if errs := validation.ValidateAuthenticationConfiguration(authenticationcel.NewDefaultCompiler(), c, []string{issuer}); len(errs) > 0 {
		if s.ConfigFile != "" {
			return nil, nil, fmt.Errorf("%s: %s: %w", key, s.ConfigFile, errs.ToAggregate())
		}
		return nil, nil, fmt.Errorf("oidc-issuer-url: %w", errs.ToAggregate())
	}
	return c.JWT, algorithms, nil
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
	if x == nil || x.anonymous == nil {
		return true
	}
	for _, c := range x.anonymous.Conditions {
		if c.Path == r.URL.Path {
			return x.anonymous.Enabled
		}
	}
	return x.anonymous.Enabled && len(x.anonymous.Conditions) == 0
}
