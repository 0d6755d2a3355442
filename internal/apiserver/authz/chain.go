package authz

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"

	"skiff.dev/skiff/internal/apiserver/configfile"
)

// Sources are the settings of who else is asked. The zero value is nobody: nodes first, then RBAC.
type Sources struct {
	ConfigFile    string // AuthorizationConfiguration: who is asked, in order
	WebhookConfig string // kubeconfig of a service that answers SubjectAccessReviews, asked after RBAC
}

// link is one of those who are asked: the node authorizer, RBAC, or somebody else.
type link struct {
	decide          func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error)
	allowed, denied prometheus.Counter
}

// link makes one of those who are asked, of upstream's type and name.
func (a *Authorizer) link(kind, name string, decide func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error)) link {
	return link{decide, a.decisions.WithLabelValues(kind, name, "allowed"), a.decisions.WithLabelValues(kind, name, "denied")}
}

const configKey = "authorization-config"

// Use makes the authorizer ask as the settings say. Before the first request only.
func (a *Authorizer) Use(s Sources) (err error) {
	a.asks = s
	switch {
	case s.ConfigFile != "" && s.WebhookConfig != "":
		return fmt.Errorf("authorization-config and authorization-webhook-config-file exclude each other; move the webhook into the file")
	case s.ConfigFile != "":
		if a.holds, err = os.ReadFile(s.ConfigFile); err != nil {
			return fmt.Errorf("%s: %w", configKey, err)
		}
		return a.configure(a.holds)
	case s.WebhookConfig != "":
		var l link
		l, err = a.webhookLink("authorization-webhook-config-file", s.WebhookConfig, "default", &apiserver.WebhookConfiguration{
			SubjectAccessReviewVersion: "v1", FailurePolicy: apiserver.FailurePolicyNoOpinion,
			AuthorizedTTL: metav1.Duration{Duration: 5 * time.Minute}, CacheAuthorizedRequests: true,
			UnauthorizedTTL: metav1.Duration{Duration: 30 * time.Second}, CacheUnauthorizedRequests: true, Timeout: metav1.Duration{Duration: 30 * time.Second},
		})
		a.chain.Store(new(append(*a.chain.Load(), l)))
	}
	return err
}

// Follow follows the file that says who is asked; nil if there is none.
func (a *Authorizer) Follow(figures prometheus.Registerer, log *slog.Logger) *configfile.Follower {
	if a.asks.ConfigFile == "" {
		return nil
	}
	return &configfile.Follower{
		Key: configKey, File: a.asks.ConfigFile, Holds: a.holds, Figures: configfile.NewFigures(figures, "authorization_config_controller", nil), Log: log,
		Read: func(_ context.Context, raw []byte) error { return a.configure(raw) },
	}
}

// configure makes the authorizer ask as the file says.
func (a *Authorizer) configure(raw []byte) error {
	chain, err := a.readChain(raw)
	if err == nil {
		a.chain.Store(&chain)
	}
	return err
}

func (a *Authorizer) readChain(raw []byte) ([]link, error) {
	const key = configKey
	file := a.asks.ConfigFile
	c, err := configfile.Decode[apiserver.AuthorizationConfiguration](key, file, raw)
	if err != nil {
		return nil, err
	}
	known, repeatable := sets.New("Node", "RBAC", "Webhook"), sets.New("Webhook")
	if errs := validation.ValidateAuthorizationConfiguration(authorizationcel.NewDefaultCompiler(), field.NewPath(""), c, known, repeatable); len(errs) > 0 {
		return nil, fmt.Errorf("%s: %s: %w", key, file, errs.ToAggregate())
	}
	var out []link
	for i, one := range c.Authorizers {
		var l link
		switch one.Type {
		case apiserver.AuthorizerType("Node"):
			l = a.link("Node", one.Name, a.byNode)
		case apiserver.AuthorizerType("RBAC"):
			l = a.link("RBAC", one.Name, a.byRBAC)
		case apiserver.TypeWebhook:
			if one.Webhook.ConnectionInfo.KubeConfigFile == nil {
				return nil, fmt.Errorf("%s: %s: authorizers[%d].webhook.connectionInfo.type: %s is for servers that run in a pod; use KubeConfigFile",
					key, file, i, one.Webhook.ConnectionInfo.Type)
			}
			if l, err = a.webhookLink(key, *one.Webhook.ConnectionInfo.KubeConfigFile, one.Name, one.Webhook); err != nil {
				return nil, err
			}
		}
		out = append(out, l)
	}
	return out, nil
}

func (a *Authorizer) webhookLink(key, kubeconfig, name string, c *apiserver.WebhookConfiguration) (link, error) {
	config, err := webhookutil.LoadKubeconfig(kubeconfig, nil)
	if err != nil {
		return link{}, fmt.Errorf("%s: %s: %w", key, kubeconfig, err)
	}
	config.Timeout = c.Timeout.Duration
	onError := authorizer.DecisionNoOpinion
	if c.FailurePolicy == apiserver.FailurePolicyDeny {
		onError = authorizer.DecisionDeny
	}
	authorized, unauthorized := c.AuthorizedTTL.Duration, c.UnauthorizedTTL.Duration
	if !c.CacheAuthorizedRequests {
		authorized = 0
	}
	if !c.CacheUnauthorizedRequests {
		unauthorized = 0
	}
	w, err := webhook.New(config, c.SubjectAccessReviewVersion, authorized, unauthorized, *webhook.DefaultRetryBackoff(), onError, c.MatchConditions, name,
		metrics.NoopAuthorizerMetrics{}, authorizationcel.NewDefaultCompiler())
	if err != nil {
		return link{}, fmt.Errorf("%s: the webhook %s: %w", key, name, err)
	}
	return a.link("Webhook", name, w.Authorize), nil
}

// ask goes along the chain: the first that allows or denies decides.
func (a *Authorizer) ask(ctx context.Context, chain []link, at authorizer.Attributes) (authorizer.Decision, string, error) {
	var reasons string
	var failed error
	for i := range chain {
		d, why, err := chain[i].decide(ctx, at)
		if err != nil {
			failed = err
		}
		switch d {
		case authorizer.DecisionAllow:
			chain[i].allowed.Inc()
			return d, why, err
		case authorizer.DecisionDeny:
			chain[i].denied.Inc()
			return d, why, err
		}
		reasons = together(reasons, why)
	}
	return authorizer.DecisionNoOpinion, reasons, failed
}

// together are the reasons of several who have no opinion.
func together(reasons, why string) string {
	if reasons == "" || why == "" {
		return reasons + why
	}
	return reasons + "\n" + why
}
