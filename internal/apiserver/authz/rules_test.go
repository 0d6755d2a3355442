package authz

import (
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
)

func TestRules(t *testing.T) {
	named := func(r rbacv1.PolicyRule, names ...string) rbacv1.PolicyRule { r.ResourceNames = names; return r }
	paths := func(verb string, urls ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{verb}, NonResourceURLs: urls}
	}
	for _, c := range []struct {
		rule rbacv1.PolicyRule
		text string
		want bool
	}{
		{rule("", "pods", "get"), "get :pods ns/a", true},
		{rule("", "pods", "get"), "list :pods ns", false},
		{rule("", "pods", "get"), "get apps:pods ns/a", false},
		{rule("", "pods", "get"), "get :pods/log ns/a", false},
		{rule("", "pods/log", "get"), "get :pods/log ns/a", true},
		{rule("", "pods/log", "get"), "get :pods ns/a", false},
		{rule("*", "pods", "get"), "get metrics.k8s.io:pods ns/a", true},
		{rule("", "*", "*"), "delete :secrets ns/a", true},
		{rule("", "*", "*"), "delete apps:deployments ns/a", false},
		{rule("", "*", "get"), "get :pods/log ns/a", true},
		{rule("*", "*/scale", "update"), "update apps:deployments/scale ns/a", true},
		{rule("*", "*/scale", "update"), "update apps:deployments ns/a", false},
		{rule("apps", "*/scale", "update"), "update apps:deployments/scale ns/a", true},
		{rule("", "pods", "frobnicate"), "frobnicate :pods ns/a", true},
		{rule("", "pods", "frobnicate"), "get :pods ns/a", false},
		{rule("", "pods", "*"), "frobnicate :pods ns/a", true},
		{rule("", "pods", "get"), "* :pods ns/a", false},
		{rule("", "pods", "*"), "* :pods ns/a", true},
		{named(rule("", "pods", "get"), "a", "b"), "get :pods ns/b", true},
		{named(rule("", "pods", "get"), "a", "b"), "get :pods ns/c", false},
		{named(rule("", "pods", "list"), "a"), "list :pods ns", false},
		{paths("get", "/healthz"), "get /healthz", true},
		{paths("get", "/healthz"), "get /healthz/etcd", false},
		{paths("get", "/healthz/*"), "get /healthz/etcd", true},
		{paths("get", "/healthz/*"), "get /healthz", false},
		{paths("get", "*"), "get /anything", true},
		{paths("get", "*"), "post /anything", false},
		{paths("get", "*"), "get :pods ns/a", false},
		{rule("*", "*", "*"), "get /healthz", false},
	} {
		q := queryOf(ask(someone("x"), c.text))
		if got := compile([]rbacv1.PolicyRule{c.rule}).allows(&q); got != c.want {
			t.Errorf("%v: %s: %v", c.rule, c.text, got)
		}
	}
}

// TestPolicyText: the text is well formed, names are unique and every binding has its role.
func TestPolicyText(t *testing.T) {
	for _, all := range []bool{false, true} {
		p, err := defaultPolicy(func(string) bool { return all })
		if err != nil {
			t.Fatal(err)
		}
		checkPolicy(t, p)
		scheduler := slices.IndexFunc(p.clusterRoles, func(r *rbacv1.ClusterRole) bool { return r.Name == "system:kube-scheduler" })
		groups := slices.ContainsFunc(p.clusterRoles[scheduler].Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "podgroups") })
		if groups != all {
			t.Errorf("the scheduler may read pod groups: %v, and they are served: %v", groups, all)
		}
	}
}

func checkPolicy(t *testing.T, p *policy) {
	t.Helper()
	roles := map[key]bool{}
	for _, r := range p.clusterRoles {
		if k := (key{"", r.Name}); roles[k] {
			t.Errorf("two ClusterRoles %s", r.Name)
		} else {
			roles[k] = true
		}
		if len(r.Rules) == 0 {
			t.Errorf("ClusterRole %s has no rules", r.Name)
		}
	}
	for _, r := range p.roles {
		roles[key{r.Namespace, r.Name}] = true
	}
	for _, b := range p.clusterRoleBindings {
		if !roles[key{"", b.RoleRef.Name}] {
			t.Errorf("ClusterRoleBinding %s binds %s, which isn't there", b.Name, b.RoleRef.Name)
		}
	}
	for _, b := range p.roleBindings {
		if !roles[key{b.Namespace, b.RoleRef.Name}] || len(b.Subjects) == 0 {
			t.Errorf("RoleBinding %s/%s binds %s to %v", b.Namespace, b.Name, b.RoleRef.Name, b.Subjects)
		}
	}
	t.Logf("%d ClusterRoles, %d ClusterRoleBindings, %d Roles, %d RoleBindings", len(p.clusterRoles), len(p.clusterRoleBindings), len(p.roles), len(p.roleBindings))
}
