package authz

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// key names a role or a binding; those of the whole cluster have no namespace.
type key struct{ namespace, name string }

// holder is who a binding names, and where it holds ("" everywhere).
type holder struct {
	group     bool
	name      string
	namespace string
}

// role is a place for a role's rules: bindings point to it also while the role itself isn't there.
type role struct {
	key  key
	set  *ruleSet // nil: no such role
	uses int      // by bindings
}

type bound struct {
	binding key
	role    *role
	why     string
}

// index finds the rules of a subject. A change costs what the changed role or binding is large, whatever else there is.
type index struct {
	mu       sync.RWMutex
	roles    map[key]*role
	bindings map[key][]holder
	holders  map[holder][]bound
}

func newIndex() *index {
	return &index{roles: map[key]*role{}, bindings: map[key][]holder{}, holders: map[holder][]bound{}}
}

// roleAt is the place of a role. Called with the lock held for writing.
func (x *index) roleAt(k key) *role {
	r := x.roles[k]
	if r == nil {
		r = &role{key: k}
		x.roles[k] = r
	}
	return r
}

func (x *index) setRole(k key, rules []rbacv1.PolicyRule) {
	set := compile(rules)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.roleAt(k).set = set
}

func (x *index) removeRole(k key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropRole(k)
}

func (x *index) dropRole(k key) {
	if r := x.roles[k]; r != nil {
		r.set = nil
		if r.uses == 0 {
			delete(x.roles, k)
		}
	}
}

func (x *index) setBinding(k key, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
	rk := key{k.namespace, ref.Name}
	if ref.Kind == "ClusterRole" {
		rk.namespace = ""
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropBinding(k)
	r := x.roleAt(rk)
	holders := make([]holder, 0, len(subjects))
	for i := range subjects {
		h, ok := holderOf(&subjects[i], k.namespace)
		if !ok || slices.Contains(holders, h) {
			continue
		}
		holders = append(holders, h)
		r.uses++
		x.holders[h] = append(x.holders[h], bound{k, r, reason(k, ref, &subjects[i])})
	}
	x.bindings[k] = holders
}

func (x *index) removeBinding(k key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropBinding(k)
}

func (x *index) dropBinding(k key) {
	for _, h := range x.bindings[k] {
		x.holders[h] = slices.DeleteFunc(x.holders[h], func(b bound) bool {
			if b.binding != k {
				return false
			}
			if b.role.uses--; b.role.uses == 0 && b.role.set == nil {
				delete(x.roles, b.role.key)
			}
			return true
		})
		if len(x.holders[h]) == 0 {
			delete(x.holders, h)
		}
	}
	delete(x.bindings, k)
}

// keepOnly forgets those of a resource that are no longer there.
func (x *index) keepOnly(plural string, present map[key]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	cluster := strings.HasPrefix(plural, "cluster")
	if strings.HasSuffix(plural, "roles") {
		for k := range x.roles {
			if (k.namespace == "") == cluster && !present[k] {
				x.dropRole(k)
			}
		}
		return
	}
	for k := range x.bindings {
		if (k.namespace == "") == cluster && !present[k] {
			x.dropBinding(k)
		}
	}
}

func holderOf(s *rbacv1.Subject, bindingNamespace string) (holder, bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return holder{name: s.Name, namespace: bindingNamespace}, true
	case rbacv1.GroupKind:
		return holder{group: true, name: s.Name, namespace: bindingNamespace}, true
	case rbacv1.ServiceAccountKind:
		ns := s.Namespace
		if ns == "" {
			ns = bindingNamespace
		}
		return holder{name: serviceaccount.MakeUsername(ns, s.Name), namespace: bindingNamespace}, ns != ""
	}
	return holder{}, false
}

// reason is upstream's, as audit logs and reviews show it.
func reason(k key, ref rbacv1.RoleRef, s *rbacv1.Subject) string {
	who := fmt.Sprintf("%s %q", s.Kind, s.Name)
	if s.Kind == rbacv1.ServiceAccountKind {
		who = fmt.Sprintf("%s %q", s.Kind, s.Name+"/"+s.Namespace)
	}
	if k.namespace == "" {
		return fmt.Sprintf("RBAC: allowed by ClusterRoleBinding %q of %s %q to %s", k.name, ref.Kind, ref.Name, who)
	}
	return fmt.Sprintf("RBAC: allowed by RoleBinding %q of %s %q to %s", k.name+"/"+k.namespace, ref.Kind, ref.Name, who)
}

// each calls f for every binding of the user that holds in the namespace, until f returns false.
func (x *index) each(u user.Info, namespace string, f func(*bound) bool) {
	groups := u.GetGroups()
	for _, ns := range [2]string{"", namespace} {
		list := x.holders[holder{false, u.GetName(), ns}]
		for g := -1; ; {
			for i := range list {
				if !f(&list[i]) {
					return
				}
			}
			if g++; g == len(groups) {
				break
			}
			list = x.holders[holder{true, groups[g], ns}]
		}
		if namespace == "" {
			return
		}
	}
}

// decide says whether a rule allows the request, and why; if not, which roles were missed on the way.
func (x *index) decide(u user.Info, q *query, namespace string) (why string, allowed bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var missing []string
	x.each(u, namespace, func(b *bound) bool {
		switch {
		case b.role.set == nil:
			missing = append(missing, notFound(b.role.key))
		case b.role.set.allows(q):
			why, allowed = b.why, true
		}
		return !allowed
	})
	if !allowed && len(missing) > 0 {
		slices.Sort(missing)
		why = "RBAC: " + list(slices.Compact(missing))
	}
	return why, allowed
}

// list is how upstream writes several errors.
func list(texts []string) string {
	if len(texts) == 1 {
		return texts[0]
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func notFound(k key) string {
	if k.namespace == "" {
		return fmt.Sprintf("clusterrole.rbac.authorization.k8s.io %q not found", k.name)
	}
	return fmt.Sprintf("role.rbac.authorization.k8s.io %q not found", k.name)
}

// rules are all rules of the user in the namespace.
func (x *index) rules(u user.Info, namespace string) []rbacv1.PolicyRule {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []rbacv1.PolicyRule
	seen := map[*role]bool{}
	x.each(u, namespace, func(b *bound) bool {
		if b.role.set != nil && !seen[b.role] {
			seen[b.role] = true
			out = append(out, b.role.set.rules...)
		}
		return true
	})
	return out
}

// rulesOf are a role's rules, and whether there is such a role.
func (x *index) rulesOf(k key) ([]rbacv1.PolicyRule, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := x.roles[k]
	if r == nil || r.set == nil {
		return nil, false
	}
	return r.set.rules, true
}
