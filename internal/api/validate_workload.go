package api

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateWorkload checks what all workloads have: a selector, a template that the selector selects. Their pods never end.
func validateWorkload(kind string, selector *metav1.LabelSelector, t *corev1.PodTemplateSpec) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	if selector == nil {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	} else {
		errs = append(errs, labelSelector(selector, spec.Child("selector"))...)
		if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(spec.Child("selector"), selector, "empty selector is invalid for "+emptySelectorOf[kind]))
		} else if s, err := metav1.LabelSelectorAsSelector(selector); err == nil && !s.Matches(labels.Set(t.Labels)) {
			errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
		}
	}
	errs = append(errs, validateTemplate(t, spec.Child("template"))...)
	return append(errs, endless(kind, &t.Spec, spec.Child("template", "spec"))...)
}

// emptySelectorOf is what the message about an empty selector calls a kind.
var emptySelectorOf = map[string]string{"ReplicaSet": "deployment", "StatefulSet": "statefulset", "DaemonSet": "daemonset"}

// endless: whoever keeps a number of pods running has no use for pods that end.
func endless(kind string, s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	if s.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(p.Child("restartPolicy"), s.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if s.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(p.Child("activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported"))
	}
	return errs
}

// counts checks numbers that are never negative, those that are given.
func counts[N int32 | int64](p *field.Path, list ...counted[N]) (errs field.ErrorList) {
	for _, n := range list {
		if n.value != nil {
			errs = append(errs, nonNegative(int64(*n.value), p.Child(n.name))...)
		}
	}
	return errs
}

// counted is a number and the field that it is.
type counted[N int32 | int64] struct {
	name  string
	value *N
}

func validateTemplate(t *corev1.PodTemplateSpec, p *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabels(t.Labels, p.Child("metadata", "labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, p.Child("metadata", "annotations"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(p.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	errs = append(errs, validatePodSpec(&t.Spec, "", p.Child("spec"))...)
	return append(errs, hostUsersDevices(&t.Spec, p.Child("spec"))...)
}

func validatePodTemplate(o Object) field.ErrorList {
	return validateTemplate(&o.(*corev1.PodTemplate).Template, field.NewPath("template"))
}

func immutableSelector(now, was *metav1.LabelSelector) field.ErrorList {
	return immutable(now, was, field.NewPath("spec", "selector"))
}

func validateReplicationController(o Object) (errs field.ErrorList) {
	rc, spec := o.(*corev1.ReplicationController), field.NewPath("spec")
	errs = counts(spec, counted[int32]{"replicas", rc.Spec.Replicas}, counted[int32]{"minReadySeconds", &rc.Spec.MinReadySeconds})
	if len(rc.Spec.Selector) == 0 {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	}
	if rc.Spec.Template == nil {
		return append(errs, field.Required(spec.Child("template"), ""))
	}
	if !labels.SelectorFromSet(rc.Spec.Selector).Matches(labels.Set(rc.Spec.Template.Labels)) {
		errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), rc.Spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, validateTemplate(rc.Spec.Template, spec.Child("template"))...)
	return append(errs, endless("ReplicationController", &rc.Spec.Template.Spec, spec.Child("template", "spec"))...)
}

func validateDeployment(o Object) field.ErrorList {
	d, spec := &o.(*appsv1.Deployment).Spec, field.NewPath("spec")
	errs := validateWorkload("ReplicaSet", d.Selector, &d.Template) // it is about to make one
	errs = append(errs, counts(spec, counted[int32]{"replicas", d.Replicas}, counted[int32]{"minReadySeconds", &d.MinReadySeconds},
		counted[int32]{"revisionHistoryLimit", d.RevisionHistoryLimit}, counted[int32]{"progressDeadlineSeconds", d.ProgressDeadlineSeconds})...)
	if n := d.ProgressDeadlineSeconds; n != nil && *n <= d.MinReadySeconds {
		errs = append(errs, field.Invalid(spec.Child("progressDeadlineSeconds"), *n, "must be greater than minReadySeconds"))
	}
	at := spec.Child("strategy")
	r := d.Strategy.RollingUpdate
	switch {
	case d.Strategy.Type != appsv1.RecreateDeploymentStrategyType && d.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType:
		errs = append(errs, field.NotSupported(at, d.Strategy,
			[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType}))
	case d.Strategy.Type == appsv1.RecreateDeploymentStrategyType && r != nil:
		errs = append(errs, field.Forbidden(at.Child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'"))
	case r != nil:
		at = at.Child("rollingUpdate")
		errs = append(errs, partOfAll(r.MaxUnavailable, at.Child("maxUnavailable"))...)
		errs = append(errs, countOrPercent(r.MaxSurge, at.Child("maxSurge"))...)
		if !something(r.MaxUnavailable) && !something(r.MaxSurge) {
			errs = append(errs, field.Invalid(at.Child("maxUnavailable"), r.MaxUnavailable, "may not be 0 when `maxSurge` is 0"))
		}
	}
	return errs
}

func validateDeploymentUpdate(o, old Object) field.ErrorList {
	return append(validateDeployment(o), immutableSelector(o.(*appsv1.Deployment).Spec.Selector, old.(*appsv1.Deployment).Spec.Selector)...)
}

func validateReplicaSet(o Object) field.ErrorList {
	r := &o.(*appsv1.ReplicaSet).Spec
	return append(validateWorkload("ReplicaSet", r.Selector, &r.Template),
		counts(field.NewPath("spec"), counted[int32]{"replicas", r.Replicas}, counted[int32]{"minReadySeconds", &r.MinReadySeconds})...)
}

func validateReplicaSetUpdate(o, old Object) field.ErrorList {
	return append(validateReplicaSet(o), immutableSelector(o.(*appsv1.ReplicaSet).Spec.Selector, old.(*appsv1.ReplicaSet).Spec.Selector)...)
}
