package api

import (
	policyv1 "k8s.io/api/policy/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateDisruptionBudget(o Object) (errs field.ErrorList) {
	b, spec := o.(*policyv1.PodDisruptionBudget).Spec, field.NewPath("spec")
	if b.MinAvailable != nil && b.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(spec, b, "minAvailable and maxUnavailable cannot be both set"))
	}
	errs = append(errs, countOrPercent(b.MinAvailable, spec.Child("minAvailable"))...)
	errs = append(errs, countOrPercent(b.MaxUnavailable, spec.Child("maxUnavailable"))...)
	for _, n := range [...]struct {
		name  string
		value *intstr.IntOrString
	}{{"minAvailable", b.MinAvailable}, {"maxUnavailable", b.MaxUnavailable}} {
		if percent, is := percentOf(n.value); is && percent > 100 {
			errs = append(errs, field.Invalid(spec.Child(n.name), n.value, "must not be greater than 100%"))
		}
	}
	if u := b.UnhealthyPodEvictionPolicy; u != nil {
		errs = append(errs, oneOf(*u, spec.Child("unhealthyPodEvictionPolicy"), policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	if b.Selector != nil {
		errs = append(errs, labelSelector(b.Selector, spec.Child("selector"))...)
	}
	return errs
}

func validateDisruptionStatus(o, _ Object) field.ErrorList {
	s, p := &o.(*policyv1.PodDisruptionBudget).Status, field.NewPath("status")
	return append(metavalidation.ValidateConditions(s.Conditions, p.Child("conditions")), counts(p,
		counted[int32]{"disruptionsAllowed", &s.DisruptionsAllowed}, counted[int32]{"currentHealthy", &s.CurrentHealthy},
		counted[int32]{"desiredHealthy", &s.DesiredHealthy}, counted[int32]{"expectedPods", &s.ExpectedPods})...)
}
