package quota

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota"
)

// Limited is what may only be consumed where a quota covers it: by parts of names that usages have, or by the scopes that objects are in.
type Limited []resourcequota.LimitedResource

// Uncovered is what of an object no quota of its namespace covers though one must, in upstream's words; "" if nothing. A name is covered by a quota that is
// about the object and limits it; a scope by any quota that selects the object by it.
func (l Limited) Uncovered(gr schema.GroupResource, obj any, usage corev1.ResourceList, quotas []*corev1.ResourceQuota) string {
	names, scopes := l.names(gr, usage), l.scopes(obj)
	if len(names)+len(scopes) == 0 {
		return ""
	}
	for _, q := range quotas {
		for _, by := range selectors(q) {
			if inScope(by, obj) {
				scopes = slices.DeleteFunc(scopes, func(s corev1.ScopedResourceSelectorRequirement) bool { return s.ScopeName == by.ScopeName })
			}
		}
		if Matches(q, obj) {
			names = slices.DeleteFunc(names, func(name string) bool {
				_, limits := q.Spec.Hard[corev1.ResourceName(name)]
				return limits
			})
		}
	}
	switch {
	case len(names) > 0:
		return "insufficient quota to consume: " + strings.Join(names, ",")
	case len(scopes) > 0:
		return fmt.Sprintf("insufficient quota to match these scopes: %v", scopes)
	}
	return ""
}

// names are those of a usage that a quota must limit, sorted.
func (l Limited) names(gr schema.GroupResource, usage corev1.ResourceList) (out []string) {
	for _, rule := range l {
		if rule.APIGroup != gr.Group || rule.Resource != gr.Resource {
			continue
		}
		for name, q := range usage {
			part := func(of string) bool { return strings.Contains(string(name), of) }
			if q.Sign() > 0 && slices.ContainsFunc(rule.MatchContains, part) {
				out = append(out, string(name))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// scopes are those that an object is in and a quota must select it by. As upstream, a rule's resource does not matter for them: a scope says by itself what
// objects it is about.
func (l Limited) scopes(obj any) (out []corev1.ScopedResourceSelectorRequirement) {
	for _, rule := range l {
		for _, s := range rule.MatchScopes {
			if inScope(s, obj) {
				out = append(out, s)
			}
		}
	}
	return out
}
