package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// Validate is a registry.Validate: nobody grants, by a role or a binding, what they don't hold themselves, unless they may escalate or bind; nobody lets
// an admission policy read for them what they may not read; and nobody writes more of a ResourceClaim's status than is theirs.
func (a *Authorizer) Validate(ctx context.Context, at *registry.Attributes) error {
	if at.Operation != "CREATE" && at.Operation != "UPDATE" || at.User == nil || slices.Contains(at.User.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	switch at.Resource.Group {
	case admissionv1.GroupName:
		return a.mayReadParams(ctx, at)
	case resourcev1.GroupName:
		return a.mayChangeClaim(ctx, at)
	case rbacv1.GroupName:
		return a.mayChangeRoles(ctx, at)
	}
	return nil
}

func (a *Authorizer) mayChangeRoles(ctx context.Context, at *registry.Attributes) error {
	if at.Old != nil && at.Object != nil && onlyCollected(at.Old, at.Object) {
		return nil
	}
	switch obj := at.Object.(type) {
	case *rbacv1.Role:
		return a.mayGrant(ctx, at, obj.Namespace, obj.Name, obj.Rules)
	case *rbacv1.ClusterRole:
		if err := a.mayAggregate(ctx, at, obj); err != nil {
			return err
		}
		return a.mayGrant(ctx, at, "", obj.Name, obj.Rules)
	case *rbacv1.RoleBinding:
		return a.mayBind(ctx, at, obj.Namespace, obj.Name, obj.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return a.mayBind(ctx, at, "", obj.Name, obj.RoleRef)
	}
	return nil
}

// onlyCollected says that nothing but what the garbage collector touches has changed: it must be able to work on roles that it could not have written.
func onlyCollected(old, now runtime.Object) bool {
	before, ok := old.DeepCopyObject().(api.Object)
	after, ok2 := now.DeepCopyObject().(api.Object)
	if !ok || !ok2 {
		return false
	}
	for _, o := range []api.Object{before, after} {
		o.SetOwnerReferences(nil)
		o.SetFinalizers(nil)
		o.SetManagedFields(nil)
		o.SetResourceVersion("")
		o.GetObjectKind().SetGroupVersionKind(before.GetObjectKind().GroupVersionKind())
	}
	return equality.Semantic.DeepEqual(before, after)
}

// has asks RBAC for a verb on a role.
func (a *Authorizer) has(ctx context.Context, u user.Info, verb, resource, namespace, name string) bool {
	decision, _, _ := a.Authorize(ctx, authorizer.AttributesRecord{
		User: u, Verb: verb, APIGroup: rbacv1.GroupName, APIVersion: "*", Resource: resource, Namespace: namespace, Name: name, ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow
}

func (a *Authorizer) mayGrant(ctx context.Context, at *registry.Attributes, namespace, name string, rules []rbacv1.PolicyRule) error {
	if a.has(ctx, at.User, "escalate", at.Resource.Plural, namespace, name) {
		return nil
	}
	if err := a.covers(at.User, namespace, rules); err != nil {
		return apierrors.NewForbidden(at.Resource.GroupResource(), name, err)
	}
	return nil
}

// mayAggregate: an aggregation rule collects rules that are not known yet, so only who holds everything may set one.
func (a *Authorizer) mayAggregate(ctx context.Context, at *registry.Attributes, r *rbacv1.ClusterRole) error {
	if r.AggregationRule == nil || a.has(ctx, at.User, "escalate", at.Resource.Plural, "", r.Name) {
		return nil
	}
	if old, ok := at.Old.(*rbacv1.ClusterRole); ok && equality.Semantic.DeepEqual(old.AggregationRule, r.AggregationRule) {
		return nil
	}
	if a.covers(at.User, "", everything) != nil {
		return apierrors.NewForbidden(at.Resource.GroupResource(), r.Name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

func (a *Authorizer) mayBind(ctx context.Context, at *registry.Attributes, namespace, name string, ref rbacv1.RoleRef) error {
	resource, k := "roles", key{namespace, ref.Name}
	if ref.Kind == "ClusterRole" {
		resource, k.namespace = "clusterroles", ""
	}
	if a.has(ctx, at.User, "bind", resource, namespace, ref.Name) {
		return nil
	}
	rules, ok := a.index.rulesOf(k)
	if !ok {
		return apierrors.NewNotFound(rbacv1.Resource(strings.TrimSuffix(resource, "s")), ref.Name)
	}
	if err := a.covers(at.User, namespace, rules); err != nil {
		return apierrors.NewForbidden(at.Resource.GroupResource(), name, err)
	}
	return nil
}

// covers returns nil if the user holds all the rules, or an error that lists, as upstream does, what they lack.
func (a *Authorizer) covers(u user.Info, namespace string, rules []rbacv1.PolicyRule) error {
	held, _ := a.Rules(u, namespace)
	ok, missing := validation.Covers(held, rules)
	if ok {
		return nil
	}
	return fmt.Errorf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.GetName(), u.GetGroups(), strings.Join(describe(missing), "\n"))
}

// describe writes rules on a line each, those for one resource together.
func describe(rules []rbacv1.PolicyRule) []string {
	type subject struct{ group, resource, name string }
	at := map[subject]int{}
	var merged []rbacv1.PolicyRule
	for _, r := range rules {
		if len(r.APIGroups) == 1 && len(r.Resources) == 1 && len(r.ResourceNames) <= 1 {
			s := subject{r.APIGroups[0], r.Resources[0], strings.Join(r.ResourceNames, "")}
			if i, ok := at[s]; ok {
				merged[i].Verbs = slices.Concat(merged[i].Verbs, r.Verbs)
				continue
			}
			at[s] = len(merged)
		}
		merged = append(merged, r)
	}
	lines := make([]string, len(merged))
	for i, r := range merged {
		var parts []string
		for _, p := range []struct {
			name   string
			values []string
		}{{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs}, {"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs}} {
			if len(p.values) > 0 {
				parts = append(parts, fmt.Sprintf("%s:%q", p.name, p.values))
			}
		}
		lines[i] = "{" + strings.Join(parts, ", ") + "}"
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}
