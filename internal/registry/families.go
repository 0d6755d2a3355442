package registry

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
)

// settleFamilies fills a Service's ipFamilyPolicy and ipFamilies in by what it says and what it said before (was, nil if it is new), in a
// cluster that has the given families, the primary first. It takes no addresses.
func settleFamilies(s, was *corev1.ServiceSpec, has []corev1.IPFamily) field.ErrorList {
	if s.Type == corev1.ServiceTypeExternalName || stillPrefers(s, was) {
		return nil
	}
	if s.IPFamilyPolicy == nil {
		s.IPFamilyPolicy = pointTo(policyOf(s, was))
	}
	if errs := api.ValidateServiceFamilies(s); len(errs) > 0 {
		return errs
	}
	single := *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	if single && was != nil {
		shrink(s, was)
	}
	if errs := fitsPolicy(s, was, single); len(errs) > 0 {
		return errs
	}
	if errs := familiesOfAddresses(s, has); len(errs) > 0 {
		return errs
	}
	// Who lists the endpoints of a service that has no address either may list them of any family.
	anywhere := s.ClusterIP == corev1.ClusterIPNone && len(s.Selector) == 0
	if !anywhere {
		if errs := configured(s, has); len(errs) > 0 {
			return errs
		}
	}
	if len(s.IPFamilies) == 0 {
		s.IPFamilies = []corev1.IPFamily{has[0]}
	}
	if !single && len(s.IPFamilies) == 1 && (anywhere || len(has) == 2) {
		s.IPFamilies = []corev1.IPFamily{s.IPFamilies[0], otherFamily(s.IPFamilies[0])}
	}
	return nil
}

// stillPrefers: a Service that takes a second family where there is one keeps what it has when the cluster gains or loses one.
func stillPrefers(s, was *corev1.ServiceSpec) bool {
	prefers := func(p *corev1.IPFamilyPolicy) bool { return p != nil && *p == corev1.IPFamilyPolicyPreferDualStack }
	return was != nil && s.Type == was.Type && prefers(s.IPFamilyPolicy) && (was.IPFamilyPolicy == nil || prefers(was.IPFamilyPolicy)) &&
		slices.Equal(s.ClusterIPs, was.ClusterIPs) && slices.Equal(s.IPFamilies, was.IPFamilies)
}

func policyOf(s, was *corev1.ServiceSpec) corev1.IPFamilyPolicy {
	switch {
	case was != nil && was.IPFamilyPolicy != nil:
		return *was.IPFamilyPolicy
	case s.ClusterIP == corev1.ClusterIPNone && len(s.Selector) == 0:
		return corev1.IPFamilyPolicyRequireDualStack
	}
	return corev1.IPFamilyPolicySingleStack
}

// shrink lets the secondary address and family go with the policy.
func shrink(s, was *corev1.ServiceSpec) {
	if len(s.ClusterIPs) == 2 && slices.Equal(s.ClusterIPs, was.ClusterIPs) {
		s.ClusterIPs = s.ClusterIPs[:1]
	}
	if len(s.IPFamilies) == 2 && slices.Equal(s.IPFamilies, was.IPFamilies) {
		s.IPFamilies = s.IPFamilies[:1]
	}
}

func fitsPolicy(s, was *corev1.ServiceSpec, single bool) (errs field.ErrorList) {
	refuse := func(why string) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), s.IPFamilyPolicy, why))
	}
	switch {
	case single:
		if len(s.ClusterIPs) == 2 {
			refuse("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified")
		}
		if len(s.IPFamilies) == 2 {
			refuse("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified")
		}
	case was != nil:
		if len(s.ClusterIPs) == 1 && len(was.ClusterIPs) == 2 {
			refuse("must be 'SingleStack' to release the secondary cluster IP")
		}
		if len(s.IPFamilies) == 1 && len(was.IPFamilies) == 2 {
			refuse("must be 'SingleStack' to release the secondary IP family")
		}
	}
	return errs
}

// familiesOfAddresses adds the families of addresses that the Service asks for.
func familiesOfAddresses(s *corev1.ServiceSpec, has []corev1.IPFamily) (errs field.ErrorList) {
	if s.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	for i := len(s.IPFamilies); i < len(s.ClusterIPs); i++ {
		f := api.FamilyOf(s.ClusterIPs[i])
		if !slices.Contains(has, f) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), s.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", f)))
		}
		s.IPFamilies = append(slices.Clip(s.IPFamilies), f)
	}
	return errs
}

func configured(s *corev1.ServiceSpec, has []corev1.IPFamily) (errs field.ErrorList) {
	if *s.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(has) < 2 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), s.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range s.IPFamilies {
		if !slices.Contains(has, f) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	return errs
}

func otherFamily(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
