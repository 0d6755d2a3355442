package api

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateServiceFamilies checks what a Service says of its addresses and their families, each for itself and against the others, before
// anything is filled in.
func ValidateServiceFamilies(s *corev1.ServiceSpec) (errs field.ErrorList) {
	ips, families, policy := field.NewPath("spec", "clusterIPs"), field.NewPath("spec", "ipFamilies"), field.NewPath("spec", "ipFamilyPolicy")
	if s.Type == corev1.ServiceTypeExternalName {
		const never = "may not be set for ExternalName services"
		if len(s.ClusterIPs) > 0 {
			errs = append(errs, field.Forbidden(ips, never))
		}
		if len(s.IPFamilies) > 0 {
			errs = append(errs, field.Forbidden(families, never))
		}
		if s.IPFamilyPolicy != nil {
			errs = append(errs, field.Forbidden(policy, never))
		}
		return errs
	}
	switch {
	case s.ClusterIP == "" && len(s.ClusterIPs) > 0:
		errs = append(errs, field.Invalid(ips, s.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	case s.ClusterIP != "" && len(s.ClusterIPs) == 0:
		errs = append(errs, field.Required(ips, ""))
	case s.ClusterIP != "" && s.ClusterIPs[0] != s.ClusterIP:
		errs = append(errs, field.Invalid(ips, s.ClusterIPs, "first value must match `clusterIP`"))
	}
	for i, f := range s.IPFamilies {
		errs = append(errs, oneOf(f, families.Index(i), corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if i > 0 && s.IPFamilies[i-1] == f {
			errs = append(errs, field.Duplicate(families.Index(i), f))
		}
	}
	if s.IPFamilyPolicy != nil {
		errs = append(errs, oneOf(*s.IPFamilyPolicy, policy, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	return append(errs, clusterIPs(s, ips)...)
}

func clusterIPs(s *corev1.ServiceSpec, p *field.Path) (errs field.ErrorList) {
	if s.ClusterIP == corev1.ClusterIPNone {
		if len(s.ClusterIPs) > 1 {
			errs = append(errs, field.Invalid(p, s.ClusterIPs, "'None' must be the first and only value"))
		}
		return errs
	}
	for i, ip := range s.ClusterIPs {
		errs = append(errs, address(ip, p.Index(i))...)
	}
	if len(s.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(p, s.ClusterIPs, "may only hold up to 2 values"))
	}
	if len(errs) > 0 {
		return errs
	}
	if len(s.ClusterIPs) == 2 && FamilyOf(s.ClusterIPs[0]) == FamilyOf(s.ClusterIPs[1]) {
		errs = append(errs, field.Invalid(p, s.ClusterIPs, "may specify no more than one IP for each IP family"))
	}
	for i, ip := range s.ClusterIPs {
		if i < len(s.IPFamilies) && s.IPFamilies[i] != FamilyOf(ip) {
			errs = append(errs, field.Invalid(p.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", s.IPFamilies[i], i)))
		}
	}
	return errs
}

// FamilyOf is the family of an address, IPv4 for what is none.
func FamilyOf(ip string) corev1.IPFamily {
	if a, err := netip.ParseAddr(ip); err == nil && !a.Unmap().Is4() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// keptFamilies: the primary address and family stay while a Service has any; the secondary comes and goes with the policy.
func keptFamilies(s, was *corev1.ServiceSpec) (errs field.ErrorList) {
	if s.Type == corev1.ServiceTypeExternalName || was.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	headless, before := s.ClusterIP == corev1.ClusterIPNone, was.ClusterIP == corev1.ClusterIPNone
	if headless && before {
		return nil
	}
	errs = kept(s, s.ClusterIPs, was.ClusterIPs, field.NewPath("spec", "clusterIPs"), "clusterIP")
	if headless == before {
		errs = append(errs, kept(s, s.IPFamilies, was.IPFamilies, field.NewPath("spec", "ipFamilies"), "ipFamily")...)
	}
	return errs
}

func kept[T comparable](s *corev1.ServiceSpec, now, was []T, p *field.Path, what string) (errs field.ErrorList) {
	switch {
	case len(was) == 0:
	case len(now) == 0:
		errs = append(errs, field.Invalid(p.Index(0), now, fmt.Sprintf("primary %s can not be unset", what)))
	case now[0] != was[0]:
		errs = append(errs, field.Invalid(p.Index(0), now, "may not change once set"))
	case len(now) == 2 && len(was) == 2 && now[1] != was[1]:
		errs = append(errs, field.Invalid(p.Index(1), now, "may not change once set"))
	}
	if len(was) == 2 && len(now) == 1 && (s.IPFamilyPolicy == nil || *s.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), s.IPFamilyPolicy,
			fmt.Sprintf("must be set to 'SingleStack' when releasing the secondary %s", what)))
	}
	return errs
}
