// Package dynamic asks the webhooks and policies that users configured about every request, in upstream's order: mutating policies, mutating
// webhooks, and, once the object is final, validating policies and validating webhooks.
//
// What decides is upstream's own code: its webhook dispatchers, CEL compilers and policy evaluators. This package feeds them from the store's memory,
// where they expect informers, and speaks for the table where they expect a scheme. It owns the compiled policies, one a generation. Its invariants:
// a configuration holds for every request that begins after its write was answered; while nothing is configured a request costs one atomic load,
// and neither CEL nor a client has been set up; the objects of this API group, and reviews of access, pass by unseen.
//
// Package host hands Admit and Validate to the registry behind the built-in plug-ins, and calls Start once the registry is there.
package dynamic

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/generic"
	"k8s.io/apiserver/pkg/admission/plugin/policy/matching"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	corelisters "k8s.io/client-go/listers/core/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// Plugins are all of dynamic admission.
type Plugins struct {
	reg     *registry.Registry
	authz   authorizer.UnconditionalAuthorizer
	changes atomic.Int64 // of any configuration; zero: there has never been one
	now     atomic.Pointer[configured]

	mutating   *mutatingwebhook.Plugin // the webhook plug-ins, if they were configured
	validating *validatingwebhook.Plugin

	mu               sync.Mutex // guards what follows: whoever finds that now is old makes it anew
	mutatingHooks    *hooks
	validatingHooks  *hooks
	mutatingPolicies *policies[*mutatingpolicy.Policy, *mutatingpolicy.PolicyBinding, mutatingpolicy.PolicyEvaluator]
	validatePolicies *policies[*validatingpolicy.Policy, *validatingpolicy.PolicyBinding, validatingpolicy.Validator]
	mutateByPolicies generic.Dispatcher[mutatingpolicy.PolicyHook]
	decideByPolicies generic.Dispatcher[validatingpolicy.PolicyHook]
	policiesAreThere bool
}

// configured is what is configured at one moment. Read-only.
type configured struct {
	changes              int64
	table                <-chan struct{} // closed when kinds have come or gone: parameters may be of them
	mutate               []mutatingpolicy.PolicyHook
	validate             []validatingpolicy.PolicyHook
	mutating, validating *hooks // nil without any
}

// New returns plug-ins that let everything through until Start.
func New() *Plugins { return &Plugins{} }

// Start makes the plug-ins heed what is configured. Before the first request.
func (p *Plugins) Start(reg *registry.Registry, authz authorizer.UnconditionalAuthorizer) {
	p.reg, p.authz = reg, authz
	for _, plural := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "mutatingadmissionpolicies",
		"mutatingadmissionpolicybindings", "validatingadmissionpolicies", "validatingadmissionpolicybindings"} {
		reg.Store().Collection(p.row(plural)).Observe(&p.changes)
	}
}

func (p *Plugins) row(plural string) *api.Resource {
	return p.reg.Table().ByResource(schema.GroupResource{Group: admissionv1.GroupName, Resource: plural})
}

// Admit runs the mutating half.
func (p *Plugins) Admit(ctx context.Context, a *registry.Attributes) error {
	for _, f := range []registry.Admit{p.MutateByPolicies, p.MutateByWebhooks, p.Settle} {
		if err := f(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// MutateByPolicies is the plug-in MutatingAdmissionPolicy.
func (p *Plugins) MutateByPolicies(ctx context.Context, a *registry.Attributes) error {
	c, err := p.configured(a)
	if c == nil || err != nil || len(c.mutate) == 0 || a.Operation == string(admission.Delete) { // a deletion has nothing to change
		return err
	}
	r := requestOf(ctx, a)
	return p.mutateByPolicies.Dispatch(r.warnings(ctx), r, r, c.mutate)
}

// MutateByWebhooks is the plug-in MutatingAdmissionWebhook.
func (p *Plugins) MutateByWebhooks(ctx context.Context, a *registry.Attributes) error {
	c, err := p.configured(a)
	if c == nil || err != nil || c.mutating == nil {
		return err
	}
	r := requestOf(ctx, a)
	defer waiting(a)()
	return c.mutating.mutate(r.warnings(ctx), r)
}

// Settle comes after both of them: what they changed makes the registry run mutating admission once more.
func (p *Plugins) Settle(ctx context.Context, a *registry.Attributes) error {
	if a.Dynamic == nil {
		return nil // neither was asked
	}
	again := requestOf(ctx, a).GetReinvocationContext()
	if again.ShouldReinvoke() {
		a.Mutated = true
		a.Again = !again.IsReinvoke()
		again.SetIsReinvoke()
	}
	return nil
}

// Validate runs the validating half.
func (p *Plugins) Validate(ctx context.Context, a *registry.Attributes) error {
	if err := p.ValidateByPolicies(ctx, a); err != nil {
		return err
	}
	return p.ValidateByWebhooks(ctx, a)
}

// ValidateByPolicies is the plug-in ValidatingAdmissionPolicy.
func (p *Plugins) ValidateByPolicies(ctx context.Context, a *registry.Attributes) error {
	c, err := p.configured(a)
	if c == nil || err != nil || len(c.validate) == 0 {
		return err
	}
	r := requestOf(ctx, a)
	return p.decideByPolicies.Dispatch(r.warnings(ctx), r, r, c.validate)
}

// ValidateByWebhooks is the plug-in ValidatingAdmissionWebhook.
func (p *Plugins) ValidateByWebhooks(ctx context.Context, a *registry.Attributes) error {
	c, err := p.configured(a)
	if c == nil || err != nil || c.validating == nil {
		return err
	}
	r := requestOf(ctx, a)
	defer waiting(a)()
	return c.validating.validate(r.warnings(ctx), r)
}

// waiting counts how long a request waits for webhooks, until done is called.
func waiting(a *registry.Attributes) (done func()) {
	began := time.Now()
	return func() {
		if a.Waited != nil {
			a.Waited.Add(int64(time.Since(began)))
		}
	}
}

// configured is what is to be asked about a request; nil for nothing.
func (p *Plugins) configured(a *registry.Attributes) (*configured, error) {
	n := p.changes.Load()
	if n == 0 {
		return nil, nil
	}
	switch a.Resource.Group {
	case admissionv1.GroupName, authenticationv1.GroupName, authorizationv1.GroupName:
		return nil, nil // nothing may lock a cluster out of its way to repair it
	}
	c := p.now.Load()
	if c == nil || c.changes < n || c.outdated() {
		var err error
		if c, err = p.renew(n); err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("set up admission: %w", err))
		}
	}
	if c.mutating == nil && c.validating == nil && len(c.mutate) == 0 && len(c.validate) == 0 {
		return nil, nil
	}
	return c, nil
}

func (c *configured) outdated() bool {
	select {
	case <-c.table:
		return len(c.mutate) > 0 || len(c.validate) > 0
	default:
		return false
	}
}

// renew reads what is configured now, as of n changes or later.
func (p *Plugins) renew(n int64) (*configured, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.now.Load(); c != nil && c.changes >= n && !c.outdated() {
		return c, nil
	}
	c := &configured{changes: p.changes.Load(), table: p.reg.Table().Changed()}
	if err := p.renewWebhooks(c); err != nil {
		return nil, err
	}
	p.renewPolicies(c)
	p.now.Store(c)
	return c, nil
}

func (p *Plugins) renewWebhooks(c *configured) error {
	mutating, validating := memoryOf(p.reg, p.row("mutatingwebhookconfigurations")), memoryOf(p.reg, p.row("validatingwebhookconfigurations"))
	for _, of := range []struct {
		memory memory
		make   func(*Plugins, memory) (*hooks, error)
		kept   **hooks
		into   **hooks
	}{
		{mutating, newMutating, &p.mutatingHooks, &c.mutating},
		{validating, newValidating, &p.validatingHooks, &c.validating},
	} {
		found := of.memory.List()
		if *of.kept == nil && len(found) > 0 {
			var err error
			if *of.kept, err = of.make(p, of.memory); err != nil {
				return err
			}
		}
		if *of.kept != nil {
			(*of.kept).source.tell(found)
		}
		if len(found) > 0 {
			*of.into = *of.kept
		}
	}
	return nil
}

func (p *Plugins) renewPolicies(c *configured) {
	mutating, validating := memoryOf(p.reg, p.row("mutatingadmissionpolicybindings")).List(), memoryOf(p.reg, p.row("validatingadmissionpolicybindings")).List()
	if len(mutating) == 0 && len(validating) == 0 {
		return
	}
	if !p.policiesAreThere {
		p.makePolicies()
		p.policiesAreThere = true
	}
	c.mutate = p.mutatingPolicies.hooks(memoryOf(p.reg, p.row("mutatingadmissionpolicies")).List(), mutating)
	c.validate = p.validatePolicies.hooks(memoryOf(p.reg, p.row("validatingadmissionpolicies")).List(), validating)
}

func (p *Plugins) makePolicies() {
	matcher := matching.NewMatcher(corelisters.NewNamespaceLister(p.namespaces()), namespaceClient{reg: p.reg})
	p.mutateByPolicies = mutatingpolicy.NewDispatcher(p.authz, matcher, converters{p.reg.Table()})
	p.decideByPolicies = validatingpolicy.NewDispatcher(p.authz, generic.NewPolicyMatcher(matcher))
	p.mutatingPolicies, p.validatePolicies = newMutatingPolicies(p.reg), newValidatingPolicies(p.reg)
}
