package authz

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// everything is what system:masters and cluster-admin hold.
var everything = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// query is a request in the form that rules are looked up by.
type query struct {
	verb     string
	bit      uint32
	resource bool
	group    string
	name     string
	what     string // "pods", "pods/log"
	anyOf    string // "*/log", or "" without a subresource
	path     string
}

func queryOf(at authorizer.Attributes) query {
	verb := at.GetVerb()
	q := query{verb: verb, bit: verbBits[verb]}
	if !at.IsResourceRequest() {
		q.path = at.GetPath()
		return q
	}
	q.resource, q.group, q.name, q.what = true, at.GetAPIGroup(), at.GetName(), at.GetResource()
	if sub := at.GetSubresource(); sub != "" {
		q.what, q.anyOf = q.what+"/"+sub, "*/"+sub
	}
	return q
}

// verbBits makes a set of the usual verbs one word.
var verbBits = func() map[string]uint32 {
	bits := map[string]uint32{}
	for i, v := range []string{"*", "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy", "post", "put", "head",
		"options", "impersonate", "bind", "escalate", "approve", "sign", "use", "attest"} {
		bits[v] = 1 << i
	}
	return bits
}()

const anyVerb = 1 // verbBits["*"]

type verbs struct {
	bits  uint32
	other []string // those without a bit
}

func verbsOf(list []string) verbs {
	var v verbs
	for _, verb := range list {
		if bit := verbBits[verb]; bit != 0 {
			v.bits |= bit
		} else {
			v.other = append(v.other, verb)
		}
	}
	return v
}

func (v *verbs) has(q *query) bool {
	return v.bits&(q.bit|anyVerb) != 0 || q.bit == 0 && slices.Contains(v.other, q.verb)
}

// target is what a grant is filed under; either part may be "*", and resource may be "*/sub".
type target struct{ group, resource string }

type grant struct {
	verbs verbs
	names []string // empty: all
}

type pathGrant struct {
	verbs verbs
	path  string
}

// ruleSet is a role's rules, compiled. It is immutable.
type ruleSet struct {
	rules   []rbacv1.PolicyRule
	targets map[target][]grant
	wild    bool // a target has a "*" somewhere
	paths   []pathGrant
}

func compile(rules []rbacv1.PolicyRule) *ruleSet {
	s := &ruleSet{rules: rules, targets: map[target][]grant{}}
	for i := range rules {
		r := &rules[i]
		v := verbsOf(r.Verbs)
		for _, p := range r.NonResourceURLs {
			s.paths = append(s.paths, pathGrant{v, p})
		}
		for _, g := range r.APIGroups {
			for _, res := range r.Resources {
				s.wild = s.wild || g == "*" || strings.HasPrefix(res, "*")
				s.add(target{g, res}, grant{v, r.ResourceNames})
			}
		}
	}
	return s
}

// add files a grant; those for all names of the same target become one.
func (s *ruleSet) add(t target, g grant) {
	list := s.targets[t]
	if len(g.names) == 0 {
		for i := range list {
			if len(list[i].names) == 0 {
				list[i].verbs.bits |= g.verbs.bits
				list[i].verbs.other = slices.Concat(list[i].verbs.other, g.verbs.other)
				return
			}
		}
	}
	s.targets[t] = append(list, g)
}

func (s *ruleSet) allows(q *query) bool {
	if !q.resource {
		return s.allowsPath(q)
	}
	if s.has(target{q.group, q.what}, q) {
		return true
	}
	if !s.wild {
		return false
	}
	return s.has(target{"*", "*"}, q) || s.has(target{q.group, "*"}, q) || s.has(target{"*", q.what}, q) ||
		q.anyOf != "" && (s.has(target{q.group, q.anyOf}, q) || s.has(target{"*", q.anyOf}, q))
}

func (s *ruleSet) has(t target, q *query) bool {
	list := s.targets[t]
	for i := range list {
		if list[i].verbs.has(q) && (len(list[i].names) == 0 || slices.Contains(list[i].names, q.name)) {
			return true
		}
	}
	return false
}

func (s *ruleSet) allowsPath(q *query) bool {
	for i := range s.paths {
		p := &s.paths[i]
		if !p.verbs.has(q) {
			continue
		}
		if prefix, ok := strings.CutSuffix(p.path, "*"); p.path == q.path || ok && strings.HasPrefix(q.path, prefix) {
			return true
		}
	}
	return false
}
