package api

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateRole(o Object) (errs field.ErrorList) {
	var rules []rbacv1.PolicyRule
	namespaced := false
	switch r := o.(type) {
	case *rbacv1.Role:
		rules, namespaced = r.Rules, true
	case *rbacv1.ClusterRole:
		rules = r.Rules
		errs = append(errs, aggregation(r.AggregationRule, field.NewPath("aggregationRule", "clusterRoleSelectors"))...)
	}
	for i := range rules {
		r, p := &rules[i], field.NewPath("rules").Index(i)
		if len(r.Verbs) == 0 {
			errs = append(errs, field.Required(p.Child("verbs"), "verbs must contain at least one value"))
		}
		if len(r.NonResourceURLs) > 0 {
			if namespaced {
				errs = append(errs, field.Invalid(p.Child("nonResourceURLs"), r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
			}
			if len(r.APIGroups)+len(r.Resources)+len(r.ResourceNames) > 0 {
				errs = append(errs, field.Invalid(p.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
			}
			continue
		}
		if len(r.APIGroups) == 0 {
			errs = append(errs, field.Required(p.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if len(r.Resources) == 0 {
			errs = append(errs, field.Required(p.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
	return errs
}

func aggregation(a *rbacv1.AggregationRule, p *field.Path) (errs field.ErrorList) {
	if a == nil {
		return nil
	}
	if len(a.ClusterRoleSelectors) == 0 {
		return field.ErrorList{field.Required(p, "at least one clusterRoleSelector required if aggregationRule is non-nil")}
	}
	for i := range a.ClusterRoleSelectors {
		errs = append(errs, labelSelector(&a.ClusterRoleSelectors[i], p.Index(i))...)
	}
	return errs
}

func validateRoleBinding(o Object) (errs field.ErrorList) {
	ref, subjects := bindingParts(o)
	p := field.NewPath("roleRef")
	if ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(p.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	kinds := []string{"ClusterRole"}
	if o.GetNamespace() != "" {
		kinds = []string{"Role", "ClusterRole"}
	}
	if !slices.Contains(kinds, ref.Kind) {
		errs = append(errs, field.NotSupported(p.Child("kind"), ref.Kind, kinds))
	}
	errs = append(errs, required(ref.Name, p.Child("name"))...)
	errs = append(errs, each(p.Child("name"), ref.Name, pathSegment(ref.Name, false))...)
	for i := range subjects {
		errs = append(errs, validateSubject(&subjects[i], o.GetNamespace() != "", field.NewPath("subjects").Index(i))...)
	}
	return errs
}

// validateSubject: a service account of a namespaced binding is in its namespace unless it says another.
func validateSubject(s *rbacv1.Subject, namespaced bool, p *field.Path) field.ErrorList {
	errs := required(s.Name, p.Child("name"))
	group := rbacv1.GroupName
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			errs = append(errs, dnsSubdomain(s.Name, p.Child("name"))...)
		}
		if !namespaced {
			errs = append(errs, required(s.Namespace, p.Child("namespace"))...)
		}
		group = ""
	case rbacv1.UserKind, rbacv1.GroupKind:
	default:
		return append(errs, field.NotSupported(p.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	if s.APIGroup != group {
		errs = append(errs, field.NotSupported(p.Child("apiGroup"), s.APIGroup, []string{group}))
	}
	return errs
}

func validateBindingUpdate(o, old Object) field.ErrorList {
	ref, _ := bindingParts(o)
	was, _ := bindingParts(old)
	errs := validateRoleBinding(o)
	if ref != was {
		errs = append(errs, field.Invalid(field.NewPath("roleRef"), ref, "cannot change roleRef"))
	}
	return errs
}
