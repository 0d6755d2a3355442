package api

import (
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// addressName: an IPAddress is called by the address, in its one canonical spelling.
func addressName(name string, _ bool) (why []string) {
	for _, e := range canonicalAddress(name, nil) {
		why = append(why, e.Detail)
	}
	return why
}

func canonicalAddress(s string, p *field.Path) field.ErrorList { return validation.IsValidIP(p, s) }

func validateIPAddress(o Object) (errs field.ErrorList) {
	ref, p := o.(*networkingv1.IPAddress).Spec.ParentRef, field.NewPath("spec", "parentRef")
	if ref == nil {
		return field.ErrorList{field.Required(p, "")}
	}
	if ref.Group != "" {
		errs = append(errs, dnsSubdomain(ref.Group, p.Child("group"))...)
	}
	for _, part := range []struct {
		name, value string
		must        bool
	}{{"resource", ref.Resource, true}, {"name", ref.Name, true}, {"namespace", ref.Namespace, false}} {
		if part.value == "" {
			if part.must {
				errs = append(errs, field.Required(p.Child(part.name), ""))
			}
			continue
		}
		errs = append(errs, each(p.Child(part.name), part.value, path.IsValidPathSegmentName(part.value))...)
	}
	return errs
}

func validateIPAddressUpdate(o, old Object) field.ErrorList {
	a, was := o.(*networkingv1.IPAddress), old.(*networkingv1.IPAddress)
	return append(validateIPAddress(o), immutable(a.Spec.ParentRef, was.Spec.ParentRef, field.NewPath("spec", "parentRef"))...)
}

// validateServiceCIDR: one range, or one of each family.
func validateServiceCIDR(o Object) (errs field.ErrorList) {
	list, p := o.(*networkingv1.ServiceCIDR).Spec.CIDRs, field.NewPath("spec", "cidrs")
	switch {
	case len(list) == 0:
		return field.ErrorList{field.Required(p, "at least one CIDR required")}
	case len(list) > 2:
		return field.ErrorList{field.Invalid(p, list, "may only hold up to 2 values")}
	}
	families := map[bool]bool{}
	for i, s := range list {
		bad := validation.IsValidCIDR(p.Index(i), s)
		errs = append(errs, bad...)
		if r, err := netip.ParsePrefix(s); err == nil && len(bad) == 0 {
			families[r.Addr().Is4()] = true
		}
	}
	if len(list) == 2 && len(errs) == 0 && len(families) < 2 {
		errs = append(errs, field.Invalid(p, list, "must specify one CIDR of each IP family"))
	}
	return errs
}

// validateServiceCIDRUpdate lets a single-stack range gain the other family, and nothing else.
func validateServiceCIDRUpdate(o, old Object) field.ErrorList {
	c, was, p := o.(*networkingv1.ServiceCIDR), old.(*networkingv1.ServiceCIDR), field.NewPath("spec", "cidrs")
	if len(was.Spec.CIDRs) == 1 && len(c.Spec.CIDRs) == 2 {
		return append(validateServiceCIDR(o), immutable(c.Spec.CIDRs[0], was.Spec.CIDRs[0], p.Index(0))...)
	}
	return immutable(c.Spec.CIDRs, was.Spec.CIDRs, p)
}

// validateIngressClass: a controller of the form domain/path, and parameters that are somewhere.
func validateIngressClass(o Object) (errs field.ErrorList) {
	s, p := &o.(*networkingv1.IngressClass).Spec, field.NewPath("spec")
	if len(s.Controller) > 250 {
		errs = append(errs, field.TooLong(p.Child("controller"), s.Controller, 250))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(p.Child("controller"), s.Controller)...)
	if s.Parameters == nil {
		return errs
	}
	r, at := s.Parameters, p.Child("parameters")
	errs = append(errs, localReference(r.APIGroup, r.Kind, r.Name, at)...)
	return append(errs, parametersScope(r, at)...)
}

func parametersScope(r *networkingv1.IngressClassParametersReference, p *field.Path) (errs field.ErrorList) {
	const cluster, namespaced = networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace
	switch scope := value(r.Scope); {
	case r.Scope == nil:
		return field.ErrorList{field.Required(p.Child("scope"), "")}
	case scope != cluster && scope != namespaced:
		return field.ErrorList{field.NotSupported(p.Child("scope"), scope, []string{cluster, namespaced})}
	case scope == namespaced && value(r.Namespace) == "":
		return field.ErrorList{field.Required(p.Child("namespace"), "`parameters.scope` is set to 'Namespace'")}
	case scope == cluster && r.Namespace != nil:
		return field.ErrorList{field.Forbidden(p.Child("namespace"), "`parameters.scope` is set to 'Cluster'")}
	case scope == namespaced:
		return each(p.Child("namespace"), *r.Namespace, validation.IsDNS1123Label(*r.Namespace))
	}
	return nil
}

func validateIngressClassUpdate(o, old Object) field.ErrorList {
	c, was := o.(*networkingv1.IngressClass), old.(*networkingv1.IngressClass)
	return append(validateIngressClass(o), immutable(c.Spec.Controller, was.Spec.Controller, field.NewPath("spec", "controller"))...)
}

// parentText is "services/default/kubernetes".
func parentText(r *networkingv1.ParentReference) string {
	if r == nil {
		return "<none>"
	}
	parts := []string{r.Resource}
	if r.Group != "" {
		parts[0] += "." + r.Group
	}
	if r.Namespace != "" {
		parts = append(parts, r.Namespace)
	}
	return strings.Join(append(parts, r.Name), "/")
}
