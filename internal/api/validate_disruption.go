package api

import (
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What says which pods may go when others need their place: budgets of disruption, and classes of priority.

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

const highestUserPriority = 1_000_000_000

func validateDisruptionStatus(o, _ Object) field.ErrorList {
	s, p := &o.(*policyv1.PodDisruptionBudget).Status, field.NewPath("status")
	return append(metavalidation.ValidateConditions(s.Conditions, p.Child("conditions")), counts(p,
		counted[int32]{"disruptionsAllowed", &s.DisruptionsAllowed}, counted[int32]{"currentHealthy", &s.CurrentHealthy},
		counted[int32]{"desiredHealthy", &s.DesiredHealthy}, counted[int32]{"expectedPods", &s.ExpectedPods})...)
}

func validatePriorityClass(o Object) (errs field.ErrorList) {
	c := o.(*schedulingv1.PriorityClass)
	if len(c.Name) > 6 && c.Name[:7] == "system-" && c.Name != "system-node-critical" && c.Name != "system-cluster-critical" {
		errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), "priority class names with 'system-' prefix are reserved for system use only"))
	}
	if c.Value > highestUserPriority && (len(c.Name) < 7 || c.Name[:7] != "system-") {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "maximum allowed value of a user defined priority is 1000000000"))
	}
	return append(errs, oneOf(value(c.PreemptionPolicy), field.NewPath("preemptionPolicy"), corev1.PreemptNever, corev1.PreemptLowerPriority)...)
}

func validatePriorityClassUpdate(o, old Object) field.ErrorList {
	c, was := o.(*schedulingv1.PriorityClass), old.(*schedulingv1.PriorityClass)
	var errs field.ErrorList
	if c.Value != was.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, immutable(c.PreemptionPolicy, was.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}
