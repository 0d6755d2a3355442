package authz

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

//go:embed policy.txt
var policyText string

// policy is the default roles and bindings.
type policy struct {
	clusterRoles        []*rbacv1.ClusterRole
	clusterRoleBindings []*rbacv1.ClusterRoleBinding
	roles               []*rbacv1.Role
	roleBindings        []*rbacv1.RoleBinding
}

const (
	bootstrapLabel     = "kubernetes.io/bootstrapping"
	autoupdate         = rbacv1.AutoUpdateAnnotationKey
	controllerPrefix   = "system:controller:"
	controllersAccount = metav1.NamespaceSystem
)

// verbSets are the names that the policy's text has for several verbs.
var verbSets = map[string][]string{
	"read":   {"get", "list", "watch"},
	"follow": {"list", "watch"},
	"write":  {"create", "delete", "deletecollection", "patch", "update"},
	"note":   {"create", "patch", "update"},
}

// defaultPolicy reads the text, whose grammar is at its top. Aggregated roles come with their rules. served says which optional group-versions are.
func defaultPolicy(served func(groupVersion string) bool) (*policy, error) {
	p := policyReader{policy: &policy{}}
	n := 0
	for line := range strings.Lines(policyText) {
		n++
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if words[0] == "when" && len(words) > 2 {
			if !served(words[1]) {
				continue
			}
			words = words[2:]
		}
		var err error
		if unicode.IsSpace(rune(line[0])) {
			err = p.detail(words)
		} else {
			err = p.heading(words)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of the default policy (%s): %w", n, strings.TrimSpace(line), err)
		}
	}
	for changed := true; changed; {
		changed = false
		for _, r := range p.clusterRoles {
			if rules, differ := aggregated(r, p.clusterRoles); differ {
				r.Rules, changed = rules, true
			}
		}
	}
	return p.policy, nil
}

// policyReader remembers which role the indented lines belong to.
type policyReader struct {
	*policy
	rules       *[]rbacv1.PolicyRule
	clusterRole *rbacv1.ClusterRole // nil below a role of a namespace
	role        *rbacv1.Role
}

func bootstrapMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels:      map[string]string{bootstrapLabel: "rbac-defaults"},
		Annotations: map[string]string{autoupdate: "true"},
	}
}

func (p *policyReader) heading(words []string) error {
	switch {
	case words[0] == "clusterrole" && len(words) >= 2:
		p.startClusterRole(words[1])
		for _, l := range words[2:] {
			name, value, _ := strings.Cut(l, "=")
			p.clusterRole.Labels[name] = value
		}
	case words[0] == "controller" && len(words) == 2:
		p.startClusterRole(controllerPrefix + words[1])
		return p.bind([]string{rbacv1.ServiceAccountKind, controllersAccount + "/" + words[1]})
	case words[0] == "role" && len(words) == 3:
		p.clusterRole, p.role = nil, &rbacv1.Role{ObjectMeta: bootstrapMeta(words[1], words[2])}
		p.roles, p.rules = append(p.roles, p.role), &p.role.Rules
	case words[0] == "bindrole" && len(words) >= 6:
		kind, name, _ := strings.Cut(words[3], "/")
		subjects, err := subjectsOf(words[4:])
		p.roleBindings = append(p.roleBindings, &rbacv1.RoleBinding{
			ObjectMeta: bootstrapMeta(words[1], words[2]), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}, Subjects: subjects,
		})
		return err
	default:
		return fmt.Errorf("unknown heading %q", words[0])
	}
	return nil
}

func (p *policyReader) startClusterRole(name string) {
	p.role, p.clusterRole = nil, &rbacv1.ClusterRole{ObjectMeta: bootstrapMeta("", name)}
	p.clusterRoles, p.rules = append(p.clusterRoles, p.clusterRole), &p.clusterRole.Rules
}

func (p *policyReader) detail(words []string) error {
	switch {
	case p.rules == nil:
		return fmt.Errorf("it belongs to no role")
	case words[0] == "to":
		return p.bind(words[1:])
	case words[0] == "aggregate" && len(words) == 2 && p.clusterRole != nil:
		p.clusterRole.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{words[1]: "true"}}}}
		return nil
	case len(words) < 3:
		return fmt.Errorf("a rule has verbs, groups and resources")
	}
	var r rbacv1.PolicyRule
	for _, v := range strings.Split(words[0], ",") {
		if set, ok := verbSets[v]; ok {
			r.Verbs = append(r.Verbs, set...)
		} else {
			r.Verbs = append(r.Verbs, v)
		}
	}
	slices.Sort(r.Verbs)
	if words[1] == "-" {
		r.NonResourceURLs = strings.Split(words[2], ",")
	} else {
		r.APIGroups = strings.Split(words[1], ",")
		for i, g := range r.APIGroups {
			if g == "core" {
				r.APIGroups[i] = ""
			}
		}
		r.Resources = strings.Split(words[2], ",")
	}
	if len(words) > 3 {
		r.ResourceNames = strings.Split(words[3], ",")
	}
	*p.rules = append(*p.rules, r)
	return nil
}

// bind binds the present role to the subjects, in its one binding of the same name.
func (p *policyReader) bind(words []string) error {
	subjects, err := subjectsOf(words)
	if err != nil {
		return err
	}
	if p.clusterRole != nil {
		p.clusterRoleBindings = append(p.clusterRoleBindings, &rbacv1.ClusterRoleBinding{
			ObjectMeta: bootstrapMeta("", p.clusterRole.Name), Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: p.clusterRole.Name},
		})
		return nil
	}
	if n := len(p.roleBindings); n > 0 && p.roleBindings[n-1].Namespace == p.role.Namespace && p.roleBindings[n-1].Name == p.role.Name {
		p.roleBindings[n-1].Subjects = append(p.roleBindings[n-1].Subjects, subjects...)
		return nil
	}
	p.roleBindings = append(p.roleBindings, &rbacv1.RoleBinding{
		ObjectMeta: bootstrapMeta(p.role.Namespace, p.role.Name), Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: p.role.Name},
	})
	return nil
}

// subjectsOf reads "KIND name …"; "nobody" makes a binding without subjects.
func subjectsOf(words []string) ([]rbacv1.Subject, error) {
	var out []rbacv1.Subject
	for _, name := range words[1:] {
		switch words[0] {
		case rbacv1.UserKind, rbacv1.GroupKind:
			out = append(out, rbacv1.Subject{Kind: words[0], APIGroup: rbacv1.GroupName, Name: name})
		case rbacv1.ServiceAccountKind:
			ns, account, _ := strings.Cut(name, "/")
			out = append(out, rbacv1.Subject{Kind: words[0], Namespace: ns, Name: account})
		default:
			return nil, fmt.Errorf("unknown kind of subject %q", words[0])
		}
	}
	return out, nil
}

// aggregated are the rules that an aggregated role ought to have, given all roles, and whether it has others now. Roles without an aggregation rule differ
// never.
func aggregated(r *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, bool) {
	if r.AggregationRule == nil {
		return nil, false
	}
	members := map[string]*rbacv1.ClusterRole{}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&r.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			continue // validation refuses such selectors; one that came by another way selects nothing
		}
		for _, other := range all {
			if other.Name != r.Name && selector.Matches(labels.Set(other.Labels)) {
				members[other.Name] = other
			}
		}
	}
	var rules []rbacv1.PolicyRule
	for _, name := range slices.Sorted(maps.Keys(members)) {
		for _, rule := range members[name].Rules {
			if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
				rules = append(rules, rule)
			}
		}
	}
	return rules, !equality.Semantic.DeepEqual(rules, r.Rules)
}
