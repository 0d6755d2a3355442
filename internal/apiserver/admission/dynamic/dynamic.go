// Package dynamic asks the webhooks and policies that users configured about every request, in upstream's order: mutating policies, mutating
// webhooks, and, once the object is final, validating policies and validating webhooks.
//
// What decides is upstream's own code: its webhook dispatchers, CEL compilers and policy evaluators. This package feeds them from the store's memory,
// where they expect informers, and speaks for the table where they expect a scheme. It owns the compiled policies, one a generation. Its invariants:
// a configuration holds for every request that begins after its write was answered; while nothing is configured a request costs one atomic load,
// and neither CEL nor a client has been set up; the objects of this API group are seen by what comes from files (files.go) alone, and reviews of access by
// nobody.
//
// Package host hands Admit and Validate to the registry behind the built-in plug-ins, and calls Start once the registry is there.
package dynamic

import (
	"context"
	"fmt"
	"slices"
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

// The plug-ins' names.
const (
	mutatingPolicies   = "MutatingAdmissionPolicy"
	mutatingWebhooks   = "MutatingAdmissionWebhook"
	validatingPolicies = "ValidatingAdmissionPolicy"
	validatingWebhooks = "ValidatingAdmissionWebhook"
)

// Plugins are all of dynamic admission.
type Plugins struct {
	reg     *registry.Registry
	authz   authorizer.UnconditionalAuthorizer
	changes atomic.Int64 // of any configuration; zero: there has never been one
	now     atomic.Pointer[configured]

	mutating   *mutatingwebhook.Plugin // the webhook plug-ins, if they were configured
	validating *validatingwebhook.Plugin
	folders    map[string]*folder // by plug-in: those that have files

	mu               sync.Mutex // guards what follows: whoever finds that now is old makes it anew
	mutatingHooks    *hooks
	validatingHooks  *hooks
	ofAPI, ofFiles   *compiled // nil until there is a binding
	mutateByPolicies generic.Dispatcher[mutatingpolicy.PolicyHook]
	decideByPolicies generic.Dispatcher[validatingpolicy.PolicyHook]
}

// compiled are the policies of one source. Those of another may have the same names, and are not theirs.
type compiled struct {
	mutating   *policies[*mutatingpolicy.Policy, *mutatingpolicy.PolicyBinding, mutatingpolicy.PolicyEvaluator]
	validating *policies[*validatingpolicy.Policy, *validatingpolicy.PolicyBinding, validatingpolicy.Validator]
}

// asked is what is to be asked about a request. Read-only.
type asked struct {
	mutate               []mutatingpolicy.PolicyHook
	validate             []validatingpolicy.PolicyHook
	mutating, validating *hooks // nil without any
}

func (a *asked) nobody() bool {
	return a.mutating == nil && a.validating == nil && len(a.mutate) == 0 && len(a.validate) == 0
}

// configured is what is configured at one moment. Read-only.
type configured struct {
	changes int64
	table   <-chan struct{} // closed when kinds have come or gone: parameters may be of them
	all     asked
	files   asked // those of all that come from files
}

// New returns plug-ins that let everything through until Start.
func New() *Plugins { return &Plugins{folders: map[string]*folder{}} }

// Start makes the plug-ins heed what is configured. Before the first request.
func (p *Plugins) Start(reg *registry.Registry, authz authorizer.UnconditionalAuthorizer) {
	p.reg, p.authz = reg, authz
	for _, plural := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "mutatingadmissionpolicies",
		"mutatingadmissionpolicybindings", "validatingadmissionpolicies", "validatingadmissionpolicybindings"} {
		reg.Store().Collection(p.row(plural)).Observe(&p.changes)
	}
	p.changes.Add(int64(len(p.folders)))
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
	c, err := p.asked(a)
	if c == nil || err != nil || len(c.mutate) == 0 || a.Operation == string(admission.Delete) { // a deletion has nothing to change
		return err
	}
	r := requestOf(ctx, a)
	return p.mutateByPolicies.Dispatch(r.warnings(ctx), r, r, c.mutate)
}

// MutateByWebhooks is the plug-in MutatingAdmissionWebhook.
func (p *Plugins) MutateByWebhooks(ctx context.Context, a *registry.Attributes) error {
	c, err := p.asked(a)
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
	c, err := p.asked(a)
	if c == nil || err != nil || len(c.validate) == 0 {
		return err
	}
	r := requestOf(ctx, a)
	return p.decideByPolicies.Dispatch(r.warnings(ctx), r, r, c.validate)
}

// ValidateByWebhooks is the plug-in ValidatingAdmissionWebhook.
func (p *Plugins) ValidateByWebhooks(ctx context.Context, a *registry.Attributes) error {
	c, err := p.asked(a)
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

// asked is what is to be asked about a request; nil for nothing.
func (p *Plugins) asked(a *registry.Attributes) (*asked, error) {
	n := p.changes.Load()
	if n == 0 {
		return nil, nil
	}
	switch a.Resource.Group {
	case authenticationv1.GroupName, authorizationv1.GroupName:
		return nil, nil // nothing may lock a cluster out of its way to repair it
	}
	c := p.now.Load()
	if c == nil || c.changes < n || c.outdated() {
		var err error
		if c, err = p.renew(n); err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("set up admission: %w", err))
		}
	}
	of := &c.all
	if a.Resource.Group == admissionv1.GroupName {
		of = &c.files // the same: what the API made must be repaired through the API
	}
	if of.nobody() {
		return nil, nil
	}
	return of, nil
}

func (c *configured) outdated() bool {
	select {
	case <-c.table:
		return len(c.all.mutate) > 0 || len(c.all.validate) > 0
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
		plugin string
		make   func(*Plugins, memory) (*hooks, error)
		kept   **hooks
		all    **hooks
		files  **hooks
	}{
		{mutating, mutatingWebhooks, newMutating, &p.mutatingHooks, &c.all.mutating, &c.files.mutating},
		{validating, validatingWebhooks, newValidating, &p.validatingHooks, &c.all.validating, &c.files.validating},
	} {
		found, files := of.memory.List(), p.folders[of.plugin].now()
		if *of.kept == nil && len(found)+len(files.hooks) > 0 {
			var err error
			if *of.kept, err = of.make(p, of.memory); err != nil {
				return err
			}
		}
		if *of.kept != nil {
			(*of.kept).source.tell(found)
		}
		if len(found)+len(files.hooks) > 0 {
			*of.all = *of.kept
		}
		if len(files.hooks) > 0 {
			*of.files = *of.kept // which itself keeps the API's webhooks from objects of this group
		}
	}
	return nil
}

// renewPolicies puts the files' policies before the API's.
func (p *Plugins) renewPolicies(c *configured) {
	if files := p.folders[mutatingPolicies].now(); len(files.objects) > 0 {
		p.makePolicies(&p.ofFiles)
		c.files.mutate = p.ofFiles.mutating.hooks(files.of("MutatingAdmissionPolicy"), files.of("MutatingAdmissionPolicyBinding"))
	}
	if files := p.folders[validatingPolicies].now(); len(files.objects) > 0 {
		p.makePolicies(&p.ofFiles)
		c.files.validate = p.ofFiles.validating.hooks(files.of("ValidatingAdmissionPolicy"), files.of("ValidatingAdmissionPolicyBinding"))
	}
	c.all.mutate, c.all.validate = c.files.mutate, c.files.validate
	mutating, validating := memoryOf(p.reg, p.row("mutatingadmissionpolicybindings")).List(), memoryOf(p.reg, p.row("validatingadmissionpolicybindings")).List()
	if len(mutating) == 0 && len(validating) == 0 {
		return
	}
	p.makePolicies(&p.ofAPI)
	c.all.mutate = slices.Concat(c.files.mutate, p.ofAPI.mutating.hooks(memoryOf(p.reg, p.row("mutatingadmissionpolicies")).List(), mutating))
	c.all.validate = slices.Concat(c.files.validate, p.ofAPI.validating.hooks(memoryOf(p.reg, p.row("validatingadmissionpolicies")).List(), validating))
}

func (p *Plugins) makePolicies(of **compiled) {
	if p.mutateByPolicies == nil {
		matcher := matching.NewMatcher(corelisters.NewNamespaceLister(p.namespaces()), namespaceClient{reg: p.reg})
		p.mutateByPolicies = mutatingpolicy.NewDispatcher(p.authz, matcher, converters{p.reg.Table()})
		p.decideByPolicies = validatingpolicy.NewDispatcher(p.authz, generic.NewPolicyMatcher(matcher))
	}
	if *of == nil {
		*of = &compiled{newMutatingPolicies(p.reg), newValidatingPolicies(p.reg)}
	}
}
