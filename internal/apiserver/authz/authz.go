// Package authz decides who may do what: RBAC, nodes, and the system:masters group, which may do everything.
//
// RBAC's roles and bindings are kept as an index from subjects to compiled rules, which four watches on the store keep current, so a decision reads memory
// and allocates next to nothing. The package also creates upstream's default roles and bindings, keeps aggregated ClusterRoles up to date, answers the
// access reviews and refuses to let anybody hand out more than they hold. The invariant: what is not allowed by a rule is not allowed; an index
// that isn't loaded yet allows nothing.
//
// Package apiserver asks it for every request; the registry calls Validate for every write of a role or binding.
package authz

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// Authorizer decides. It is safe for concurrent use.
type Authorizer struct {
	reg   *registry.Registry
	log   *slog.Logger
	index *index
	nodes nodes
	ready chan struct{}
	chain atomic.Pointer[[]link] // who is asked, in order
	asks  Sources
	holds []byte // what asks.ConfigFile held when it was first read
	// decisions are counted by who made them.
	decisions *prometheus.CounterVec
	// clusterRoles is signalled when a ClusterRole changed, for the aggregated ones.
	clusterRoles chan struct{}
}

var _ authorizer.Authorizer = (*Authorizer)(nil)

// New returns an authorizer that knows system:masters and nodes at once, and RBAC's rules from soon after Run has begun.
func New(reg *registry.Registry, log *slog.Logger) *Authorizer {
	a := &Authorizer{
		reg: reg, log: log, index: newIndex(), nodes: nodes{reg, compile(nodeRules)},
		ready: make(chan struct{}), clusterRoles: make(chan struct{}, 1),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_authorization_decisions_total", Help: "Requests that were allowed or denied, by who decided.",
		}, []string{"type", "name", "decision"}),
	}
	a.chain.Store(&[]link{a.link("Node", "node", a.byNode), a.link("RBAC", "rbac", a.byRBAC)})
	return a
}

// Figures are how often who decided what.
func (a *Authorizer) Figures() prometheus.Collector { return a.decisions }

// Ready is closed once the default roles and bindings are there and every rule is known.
func (a *Authorizer) Ready() <-chan struct{} { return a.ready }

// Run keeps the index current, creates the default policy and maintains aggregated roles until ctx ends.
func (a *Authorizer) Run(ctx context.Context) error {
	var running, loading sync.WaitGroup
	for _, plural := range []string{"clusterroles", "clusterrolebindings", "roles", "rolebindings"} {
		loading.Add(1)
		running.Go(func() { a.follow(ctx, plural, loading.Done) })
	}
	running.Go(func() {
		if !a.bootstrap(ctx) {
			return
		}
		loading.Wait()
		close(a.ready)
		a.aggregate(ctx)
	})
	running.Wait()
	return nil
}

// Authorize implements authorizer.Authorizer.
func (a *Authorizer) Authorize(ctx context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	u := at.GetUser()
	if u == nil {
		return authorizer.DecisionNoOpinion, "no user on request", nil
	}
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	return a.ask(ctx, *a.chain.Load(), at)
}

// byNode decides by the rules for nodes.
func (a *Authorizer) byNode(ctx context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	node, ok := nodeOf(at.GetUser())
	if !ok {
		return authorizer.DecisionNoOpinion, "", nil
	}
	allowed, reason, err := a.nodes.allow(ctx, node, at)
	switch {
	case err != nil:
		return authorizer.DecisionNoOpinion, "", err
	case allowed:
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// byRBAC decides by roles and bindings.
func (a *Authorizer) byRBAC(_ context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	q := queryOf(at)
	why, allowed := a.index.decide(at.GetUser(), &q, at.GetNamespace())
	if allowed {
		return authorizer.DecisionAllow, why, nil
	}
	return authorizer.DecisionNoOpinion, why, nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer: RBAC knows no conditions.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, at authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, at))
}

// EvaluateConditions implements authorizer.Authorizer.
func (a *Authorizer) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// Rules are all the rules that hold for a user in a namespace (and, with "", those of the whole cluster). They are shared: don't change them. Incomplete
// says that the user may do more than rules can express.
func (a *Authorizer) Rules(u user.Info, namespace string) (rules []rbacv1.PolicyRule, incomplete bool) {
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		rules = append(rules, everything...)
	}
	_, incomplete = nodeOf(u)
	return append(rules, a.index.rules(u, namespace)...), incomplete
}

func (a *Authorizer) row(plural string) *api.Resource {
	return a.reg.Table().ByResource(schema.GroupResource{Group: rbacv1.GroupName, Resource: plural})
}

// follow keeps the index's share of one resource current. loaded is called once, when everything that exists is known.
func (a *Authorizer) follow(ctx context.Context, plural string, loaded func()) {
	done := sync.OnceFunc(loaded)
	defer done()
	c := a.reg.Store().Collection(a.row(plural))
	for ctx.Err() == nil {
		err := a.followOnce(ctx, c, done)
		if ctx.Err() != nil {
			return
		}
		// Falling behind the event log is rare and healed by reading everything again; the pause keeps a store in trouble from being asked without end.
		a.log.Info("reading roles and bindings again", "resource", plural, "why", err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (a *Authorizer) followOnce(ctx context.Context, c *store.Collection, loaded func()) error {
	page, err := c.List(ctx, store.ListOptions{})
	if err != nil {
		return err
	}
	present := make(map[key]bool, len(page.Entries))
	for _, e := range page.Entries {
		present[a.learn(e.Object())] = true
	}
	a.index.keepOnly(c.Resource().Plural, present)
	loaded()
	w, err := c.Watch(ctx, store.WatchOptions{Revision: page.Revision})
	if err != nil {
		return err
	}
	defer w.Stop()
	for buf := make([]store.Event, 0, 64); ; {
		if buf, err = w.Next(ctx, buf, cap(buf)); err != nil {
			return err
		}
		for _, e := range buf {
			switch e.Type {
			case store.Added, store.Modified:
				a.learn(e.Entry.Object())
			case store.Deleted:
				a.forget(c.Resource().Plural, e.Entry.Object())
			}
		}
	}
}

// learn puts one object into the index.
func (a *Authorizer) learn(obj api.Object) key {
	k := key{obj.GetNamespace(), obj.GetName()}
	switch o := obj.(type) {
	case *rbacv1.Role:
		a.index.setRole(k, o.Rules)
	case *rbacv1.ClusterRole:
		a.index.setRole(k, o.Rules)
		a.clusterRolesChanged()
	case *rbacv1.RoleBinding:
		a.index.setBinding(k, o.RoleRef, o.Subjects)
	case *rbacv1.ClusterRoleBinding:
		a.index.setBinding(k, o.RoleRef, o.Subjects)
	}
	return k
}

func (a *Authorizer) forget(plural string, obj api.Object) {
	k := key{obj.GetNamespace(), obj.GetName()}
	switch plural {
	case "roles", "clusterroles":
		a.index.removeRole(k)
		a.clusterRolesChanged()
	default:
		a.index.removeBinding(k)
	}
}

func (a *Authorizer) clusterRolesChanged() {
	select {
	case a.clusterRoles <- struct{}{}:
	default:
	}
}
