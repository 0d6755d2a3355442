package api

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateWorkload checks what all workloads have: a count, a selector, a template that the selector selects.
func validateWorkload(replicas *int32, selector *metav1.LabelSelector, t *corev1.PodTemplateSpec, alwaysRestart bool) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	if replicas != nil {
		errs = append(errs, nonNegative(int64(*replicas), spec.Child("replicas"))...)
	}
	if selector == nil {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	} else {
		errs = append(errs, labelSelector(selector, spec.Child("selector"))...)
		if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(spec.Child("selector"), selector, "empty selector is invalid for deployment"))
		} else if s, err := metav1.LabelSelectorAsSelector(selector); err == nil && !s.Matches(labels.Set(t.Labels)) {
			errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
		}
	}
	errs = append(errs, validateTemplate(t, spec.Child("template"))...)
	if alwaysRestart && t.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(spec.Child("template", "spec", "restartPolicy"), t.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	return errs
}

func validateTemplate(t *corev1.PodTemplateSpec, p *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabels(t.Labels, p.Child("metadata", "labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, p.Child("metadata", "annotations"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(p.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return append(errs, validatePodSpec(&t.Spec, "", p.Child("spec"))...)
}

func validatePodTemplate(o Object) field.ErrorList {
	return validateTemplate(&o.(*corev1.PodTemplate).Template, field.NewPath("template"))
}

func immutableSelector(now, was *metav1.LabelSelector) field.ErrorList {
	return immutable(now, was, field.NewPath("spec", "selector"))
}

func validateReplicationController(o Object) (errs field.ErrorList) {
	rc, spec := o.(*corev1.ReplicationController), field.NewPath("spec")
	errs = append(errs, nonNegative(int64(value(rc.Spec.Replicas)), spec.Child("replicas"))...)
	if len(rc.Spec.Selector) == 0 {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	}
	if rc.Spec.Template == nil {
		return append(errs, field.Required(spec.Child("template"), ""))
	}
	if !labels.SelectorFromSet(rc.Spec.Selector).Matches(labels.Set(rc.Spec.Template.Labels)) {
		errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), rc.Spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return append(errs, validateTemplate(rc.Spec.Template, spec.Child("template"))...)
}

func validateDeployment(o Object) field.ErrorList {
	d, spec := &o.(*appsv1.Deployment).Spec, field.NewPath("spec")
	errs := validateWorkload(d.Replicas, d.Selector, &d.Template, true)
	errs = append(errs, nonNegative(int64(d.MinReadySeconds), spec.Child("minReadySeconds"))...)
	errs = append(errs, nonNegative(int64(value(d.RevisionHistoryLimit)), spec.Child("revisionHistoryLimit"))...)
	if n := d.ProgressDeadlineSeconds; n != nil {
		errs = append(errs, nonNegative(int64(*n), spec.Child("progressDeadlineSeconds"))...)
		if *n <= d.MinReadySeconds {
			errs = append(errs, field.Invalid(spec.Child("progressDeadlineSeconds"), *n, "must be greater than minReadySeconds"))
		}
	}
	at := spec.Child("strategy")
	errs = append(errs, oneOf(d.Strategy.Type, at.Child("type"), appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType)...)
	r := d.Strategy.RollingUpdate
	switch {
	case d.Strategy.Type == appsv1.RecreateDeploymentStrategyType && r != nil:
		errs = append(errs, field.Forbidden(at.Child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'"))
	case r != nil:
		at = at.Child("rollingUpdate")
		errs = append(errs, countOrPercent(r.MaxUnavailable, at.Child("maxUnavailable"))...)
		errs = append(errs, countOrPercent(r.MaxSurge, at.Child("maxSurge"))...)
		if r.MaxUnavailable != nil && r.MaxSurge != nil && r.MaxUnavailable.IntValue() == 0 && r.MaxSurge.IntValue() == 0 && zeroPercent(r) {
			errs = append(errs, field.Invalid(at.Child("maxUnavailable"), r.MaxUnavailable, "may not be 0 when `maxSurge` is 0"))
		}
		if percent, is := percentOf(r.MaxUnavailable); is && percent > 100 {
			errs = append(errs, field.Invalid(at.Child("maxUnavailable"), r.MaxUnavailable, "must not be greater than 100%"))
		}
	}
	return errs
}

func zeroPercent(r *appsv1.RollingUpdateDeployment) bool {
	a, _ := percentOf(r.MaxUnavailable)
	b, _ := percentOf(r.MaxSurge)
	return a == 0 && b == 0
}

func validateDeploymentUpdate(o, old Object) field.ErrorList {
	return append(validateDeployment(o), immutableSelector(o.(*appsv1.Deployment).Spec.Selector, old.(*appsv1.Deployment).Spec.Selector)...)
}

func validateReplicaSet(o Object) field.ErrorList {
	r := &o.(*appsv1.ReplicaSet).Spec
	return append(validateWorkload(r.Replicas, r.Selector, &r.Template, true), nonNegative(int64(r.MinReadySeconds), field.NewPath("spec", "minReadySeconds"))...)
}

func validateReplicaSetUpdate(o, old Object) field.ErrorList {
	return append(validateReplicaSet(o), immutableSelector(o.(*appsv1.ReplicaSet).Spec.Selector, old.(*appsv1.ReplicaSet).Spec.Selector)...)
}

func validateStatefulSetSpecUpdate(s, was *appsv1.StatefulSetSpec) field.ErrorList {
	left := was.DeepCopy()
	left.Replicas, left.Template, left.UpdateStrategy, left.MinReadySeconds = s.Replicas, s.Template, s.UpdateStrategy, s.MinReadySeconds
	left.PersistentVolumeClaimRetentionPolicy, left.Ordinals, left.RevisionHistoryLimit = s.PersistentVolumeClaimRetentionPolicy, s.Ordinals, s.RevisionHistoryLimit
	if equal(left, s) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "+
		"'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")}
}

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
	for i := range subjects {
		s, p := &subjects[i], field.NewPath("subjects").Index(i)
		errs = append(errs, required(s.Name, p.Child("name"))...)
		switch s.Kind {
		case rbacv1.ServiceAccountKind:
			errs = append(errs, required(s.Namespace, p.Child("namespace"))...)
		case rbacv1.UserKind, rbacv1.GroupKind:
		default:
			errs = append(errs, field.NotSupported(p.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
		}
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

const highestUserPriority = 1_000_000_000

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
	errs := immutable(c.Value, was.Value, field.NewPath("value"))
	return append(errs, immutable(c.PreemptionPolicy, was.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}
