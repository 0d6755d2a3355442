package authz

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/component-helpers/auth/rbac/validation"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// self is who the server's own writes are by.
var self = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}

// writers is how many roles and bindings are written at a time: etcd puts what comes together to disk together.
const writers = 32

// bootstrap sees to it that the default policy is there, until it is or ctx ends.
func (a *Authorizer) bootstrap(ctx context.Context) bool {
	p, err := defaultPolicy(a.reg.Table().Serves)
	if err != nil {
		a.log.Error("the default policy can't be read; no default role is created", "err", err)
		return true
	}
	for {
		if err = a.ensureAll(ctx, p); err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		a.log.Warn("the default roles are not complete; trying again", "err", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return false
		}
	}
}

func (a *Authorizer) ensureAll(ctx context.Context, p *policy) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	ensureKind(inner, a, g, "clusterroles", p.clusterRoles, mergeClusterRole)
	ensureKind(inner, a, g, "clusterrolebindings", p.clusterRoleBindings, mergeClusterRoleBinding)
	if err := g.Wait(); err != nil {
		return err
	}
	if err := a.awaitNamespaces(ctx, metav1.NamespaceSystem, metav1.NamespacePublic); err != nil {
		return err
	}
	g, inner = errgroup.WithContext(ctx)
	g.SetLimit(writers)
	ensureKind(inner, a, g, "roles", p.roles, mergeRole)
	ensureKind(inner, a, g, "rolebindings", p.roleBindings, mergeRoleBinding)
	return g.Wait()
}

// ensureKind creates what is missing and adds what is lacking. merge returns the object to write, or nil when the stored one will do; its second result
// says that the stored one must make way.
func ensureKind[T api.Object](ctx context.Context, a *Authorizer, g *errgroup.Group, plural string, wanted []T, merge func(have, want T) (T, bool)) {
	row := a.row(plural)
	c := a.reg.Store().Collection(row)
	var none T
	for _, want := range wanted {
		k := want.GetName()
		if row.Namespaced {
			k = want.GetNamespace() + "/" + k
		}
		req := &registry.Request{Resource: row, Namespace: want.GetNamespace(), User: self}
		e, err := c.Get(ctx, k, store.Read{})
		switch {
		case err != nil:
			g.Go(func() error { return err })
		case e == nil:
			g.Go(func() error { return a.create(ctx, req, want) })
		default:
			have := e.Object().(T)
			if have.GetAnnotations()[autoupdate] == "false" {
				continue
			}
			next, replace := merge(have, want)
			if replace {
				g.Go(func() error { return a.replace(ctx, req, want) })
			} else if api.Object(next) != api.Object(none) {
				g.Go(func() error { return a.update(ctx, req, next) })
			}
		}
	}
}

// create writes a copy: the object becomes the store's, and the policy's own is needed if all has to be tried again.
func (a *Authorizer) create(ctx context.Context, req *registry.Request, obj api.Object) error {
	_, err := a.reg.Create(ctx, req, obj.DeepCopyObject(), &metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // another server was faster, and has the same policy
	}
	return err
}

func (a *Authorizer) update(ctx context.Context, req *registry.Request, obj api.Object) error {
	req.Name = obj.GetName()
	_, err := a.reg.Update(ctx, req, obj, &metav1.UpdateOptions{})
	return err
}

// replace is for bindings whose role is another: a binding's role can't be changed.
func (a *Authorizer) replace(ctx context.Context, req *registry.Request, obj api.Object) error {
	gone := *req
	gone.Name = obj.GetName()
	if _, err := a.reg.Delete(ctx, &gone, &metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return a.create(ctx, req, obj)
}

// awaitNamespaces waits for the registry to have created the system's namespaces.
func (a *Authorizer) awaitNamespaces(ctx context.Context, names ...string) error {
	c := a.reg.Store().Collection(a.reg.Table().ByResource(schema.GroupResource{Resource: "namespaces"}))
	w, err := c.Watch(ctx, store.WatchOptions{Any: true})
	if err != nil {
		return err
	}
	defer w.Stop()
	missing := slices.Clone(names)
	for buf := make([]store.Event, 0, 16); len(missing) > 0; {
		if buf, err = w.Next(ctx, buf, cap(buf)); err != nil {
			return err
		}
		for _, e := range buf {
			if e.Type == store.Added || e.Type == store.Modified {
				missing = slices.DeleteFunc(missing, func(n string) bool { return n == e.Entry.Key() })
			}
		}
	}
	return nil
}

// mergeMeta adds the default's labels and annotations that are lacking.
func mergeMeta(have, want *metav1.ObjectMeta) {
	merge := func(have, want map[string]string) map[string]string {
		out := maps.Clone(want)
		maps.Copy(out, have)
		return out
	}
	have.Labels, have.Annotations = merge(have.Labels, want.Labels), merge(have.Annotations, want.Annotations)
}

// hasAll says whether nothing of want is missing, so that nothing need be copied. It is the common case of a restart.
func hasAll(have, want map[string]string) bool {
	for k := range want {
		if _, ok := have[k]; !ok {
			return false
		}
	}
	return true
}

func metaComplete(have, want *metav1.ObjectMeta) bool {
	return hasAll(have.Labels, want.Labels) && hasAll(have.Annotations, want.Annotations)
}

// missingRules are what want allows and have doesn't.
func missingRules(have, want []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	if equality.Semantic.DeepEqual(have, want) {
		return nil
	}
	_, missing := validation.Covers(have, want)
	return missing
}

func missingSubjects(have, want []rbacv1.Subject) []rbacv1.Subject {
	var out []rbacv1.Subject
	for _, s := range want {
		if !slices.Contains(have, s) {
			out = append(out, s)
		}
	}
	return out
}

func mergeClusterRole(have, want *rbacv1.ClusterRole) (*rbacv1.ClusterRole, bool) {
	var missing []rbacv1.PolicyRule
	if want.AggregationRule == nil {
		missing = missingRules(have.Rules, want.Rules)
	}
	lacksSelector := want.AggregationRule != nil && have.AggregationRule == nil
	if len(missing) == 0 && !lacksSelector && metaComplete(&have.ObjectMeta, &want.ObjectMeta) {
		return nil, false
	}
	next := have.DeepCopy()
	mergeMeta(&next.ObjectMeta, &want.ObjectMeta)
	next.Rules = append(next.Rules, missing...)
	if lacksSelector {
		next.AggregationRule = want.AggregationRule.DeepCopy()
	}
	return next, false
}

func mergeRole(have, want *rbacv1.Role) (*rbacv1.Role, bool) {
	missing := missingRules(have.Rules, want.Rules)
	if len(missing) == 0 && metaComplete(&have.ObjectMeta, &want.ObjectMeta) {
		return nil, false
	}
	next := have.DeepCopy()
	mergeMeta(&next.ObjectMeta, &want.ObjectMeta)
	next.Rules = append(next.Rules, missing...)
	return next, false
}

func mergeClusterRoleBinding(have, want *rbacv1.ClusterRoleBinding) (*rbacv1.ClusterRoleBinding, bool) {
	missing := missingSubjects(have.Subjects, want.Subjects)
	if have.RoleRef != want.RoleRef {
		return nil, true
	}
	if len(missing) == 0 && metaComplete(&have.ObjectMeta, &want.ObjectMeta) {
		return nil, false
	}
	next := have.DeepCopy()
	mergeMeta(&next.ObjectMeta, &want.ObjectMeta)
	next.Subjects = append(next.Subjects, missing...)
	return next, false
}

func mergeRoleBinding(have, want *rbacv1.RoleBinding) (*rbacv1.RoleBinding, bool) {
	missing := missingSubjects(have.Subjects, want.Subjects)
	if have.RoleRef != want.RoleRef {
		return nil, true
	}
	if len(missing) == 0 && metaComplete(&have.ObjectMeta, &want.ObjectMeta) {
		return nil, false
	}
	next := have.DeepCopy()
	mergeMeta(&next.ObjectMeta, &want.ObjectMeta)
	next.Subjects = append(next.Subjects, missing...)
	return next, false
}

// aggregate keeps the rules of aggregated ClusterRoles equal to the union of the roles they select, as roles come, change and go.
func (a *Authorizer) aggregate(ctx context.Context) {
	row := a.row("clusterroles")
	c := a.reg.Store().Collection(row)
	for {
		select {
		case <-a.clusterRoles:
		case <-ctx.Done():
			return
		}
		page, err := c.List(ctx, store.ListOptions{})
		if err != nil {
			continue // the context ended; nothing else makes a read of memory fail
		}
		all := make([]*rbacv1.ClusterRole, len(page.Entries))
		for i, e := range page.Entries {
			all[i] = e.Object().(*rbacv1.ClusterRole)
		}
		for _, r := range all {
			rules, differ := aggregated(r, all)
			if !differ {
				continue
			}
			next := r.DeepCopy()
			next.Rules = rules
			err := a.update(ctx, &registry.Request{Resource: row, User: self}, next)
			// A conflict means that the role changed meanwhile, which is an event of its own.
			if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !errors.Is(err, context.Canceled) {
				a.log.Warn("an aggregated role can't be updated; trying again", "role", r.Name, "err", err)
				time.AfterFunc(time.Second, a.clusterRolesChanged)
			}
		}
	}
}
