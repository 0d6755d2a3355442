package fairness

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func (s *schema) flow(at authorizer.Attributes) uint64 { return hash(s.name, s.distinguishes(at)) }

// distinguishes is what tells a request's flow from the schema's others.
func (s *schema) distinguishes(at authorizer.Attributes) string {
	switch {
	case s.byUser:
		return at.GetUser().GetName()
	case s.byNamespace:
		return at.GetNamespace()
	}
	return ""
}

func (s *schema) matches(at authorizer.Attributes) bool {
	for i := range s.spec.Rules {
		r := &s.spec.Rules[i]
		if slices.ContainsFunc(r.Subjects, func(sub flowcontrolv1.Subject) bool { return isSubject(&sub, at.GetUser()) }) && covers(r, at) {
			return true
		}
	}
	return false
}

func isSubject(s *flowcontrolv1.Subject, u user.Info) bool {
	switch s.Kind {
	case flowcontrolv1.SubjectKindUser:
		return s.User != nil && (s.User.Name == "*" || s.User.Name == u.GetName())
	case flowcontrolv1.SubjectKindGroup:
		return s.Group != nil && (s.Group.Name == "*" || slices.Contains(u.GetGroups(), s.Group.Name))
	case flowcontrolv1.SubjectKindServiceAccount:
		if s.ServiceAccount == nil || !strings.HasPrefix(u.GetName(), serviceaccount.ServiceAccountUsernamePrefix) {
			return false
		}
		if s.ServiceAccount.Name == "*" {
			ns, _, err := serviceaccount.SplitUsername(u.GetName())
			return err == nil && ns == s.ServiceAccount.Namespace
		}
		return serviceaccount.MatchesUsername(s.ServiceAccount.Namespace, s.ServiceAccount.Name, u.GetName())
	}
	return false
}

func has(list []string, v string) bool {
	return slices.Contains(list, v) || len(list) > 0 && list[0] == "*"
}

func covers(r *flowcontrolv1.PolicyRulesWithSubjects, at authorizer.Attributes) bool {
	if at.IsResourceRequest() {
		return slices.ContainsFunc(r.ResourceRules, func(rr flowcontrolv1.ResourcePolicyRule) bool {
			return has(rr.Verbs, at.GetVerb()) && has(rr.APIGroups, at.GetAPIGroup()) && has(rr.Resources, resourceOf(at)) &&
				(at.GetNamespace() == "" && rr.ClusterScope || at.GetNamespace() != "" && has(rr.Namespaces, at.GetNamespace()))
		})
	}
	return slices.ContainsFunc(r.NonResourceRules, func(nr flowcontrolv1.NonResourcePolicyRule) bool {
		return has(nr.Verbs, at.GetVerb()) && slices.ContainsFunc(nr.NonResourceURLs, func(p string) bool { return pathMatches(p, at.GetPath()) })
	})
}

func resourceOf(at authorizer.Attributes) string {
	if at.GetSubresource() == "" {
		return at.GetResource()
	}
	return at.GetResource() + "/" + at.GetSubresource()
}

// pathMatches: a pattern that ends in /* stands for all that begins so.
func pathMatches(pattern, path string) bool {
	if pattern == "*" || pattern == path {
		return true
	}
	prefix, ok := strings.CutSuffix(pattern, "*")
	return ok && strings.HasPrefix(path, prefix)
}
