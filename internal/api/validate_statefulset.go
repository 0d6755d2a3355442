package api

import (
	"encoding/json"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// asMade is a set's template as its pods will have it: named and addressed by the controller, with a volume for each claim.
func asMade(s *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	t, claims := &s.Template, s.VolumeClaimTemplates
	if len(claims) == 0 && t.Spec.Hostname == "" && t.Spec.Subdomain == "" {
		return t
	}
	out := *t
	out.Spec.Hostname, out.Spec.Subdomain = "", ""
	out.Spec.Volumes = slices.Clone(t.Spec.Volumes)
	for i := range claims {
		name := claims[i].Name
		out.Spec.Volumes = slices.DeleteFunc(out.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		out.Spec.Volumes = append(out.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
	}
	return &out
}

func validateStatefulSet(o Object) field.ErrorList {
	s, p := &o.(*appsv1.StatefulSet).Spec, field.NewPath("spec")
	errs := validateWorkload("StatefulSet", s.Selector, asMade(s))
	errs = append(errs, counts(p, counted[int32]{"replicas", s.Replicas}, counted[int32]{"minReadySeconds", &s.MinReadySeconds})...)
	switch m := s.PodManagementPolicy; m {
	case "":
		errs = append(errs, field.Required(p.Child("podManagementPolicy"), ""))
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		errs = append(errs, field.Invalid(p.Child("podManagementPolicy"), m, "must be 'OrderedReady' or 'Parallel'"))
	}
	if s.Ordinals != nil {
		errs = append(errs, nonNegative(int64(s.Ordinals.Start), p.Child("ordinals", "start"))...)
	}
	if s.ServiceName != "" {
		errs = append(errs, dnsLabel(s.ServiceName, p.Child("serviceName"))...)
	}
	for i := range s.VolumeClaimTemplates {
		errs = append(errs, claimSpec(&s.VolumeClaimTemplates[i].Spec, p.Child("volumeClaimTemplates").Index(i).Child("spec"))...)
	}
	if r := s.PersistentVolumeClaimRetentionPolicy; r != nil {
		at := p.Child("persistentVolumeClaimRetentionPolicy")
		const retain, remove = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		errs = append(errs, oneOf(r.WhenDeleted, at.Child("whenDeleted"), retain, remove)...)
		errs = append(errs, oneOf(r.WhenScaled, at.Child("whenScaled"), retain, remove)...)
	}
	return append(errs, validateStatefulSetStrategy(&s.UpdateStrategy, p.Child("updateStrategy"))...)
}

func validateStatefulSetStrategy(u *appsv1.StatefulSetUpdateStrategy, p *field.Path) field.ErrorList {
	r, at := u.RollingUpdate, p.Child("rollingUpdate")
	switch {
	case u.Type == "":
		return field.ErrorList{field.Required(p, "")}
	case u.Type != appsv1.OnDeleteStatefulSetStrategyType && u.Type != appsv1.RollingUpdateStatefulSetStrategyType:
		return field.ErrorList{field.Invalid(p, *u, "must be 'RollingUpdate' or 'OnDelete'")}
	case r == nil:
		return nil
	case u.Type == appsv1.OnDeleteStatefulSetStrategyType:
		return field.ErrorList{field.Invalid(at, *r, "only allowed for updateStrategy 'RollingUpdate'")}
	}
	return append(nonNegative(int64(value(r.Partition)), at.Child("partition")), positiveCount(r.MaxUnavailable, at.Child("maxUnavailable"))...)
}

func validateStatefulSetUpdate(o, old Object) field.ErrorList {
	s, was, p := &o.(*appsv1.StatefulSet).Spec, &old.(*appsv1.StatefulSet).Spec, field.NewPath("spec")
	errs := append(validateStatefulSet(o), immutableSelector(s.Selector, was.Selector)...)
	errs = append(errs, immutable(s.VolumeClaimTemplates, was.VolumeClaimTemplates, p.Child("volumeClaimTemplates"))...)
	errs = append(errs, immutable(s.ServiceName, was.ServiceName, p.Child("serviceName"))...)
	return append(errs, immutable(s.PodManagementPolicy, was.PodManagementPolicy, p.Child("podManagementPolicy"))...)
}

// partOfAll is a count or a percentage that is no more than all.
func partOfAll(v *intstr.IntOrString, p *field.Path) field.ErrorList {
	errs := countOrPercent(v, p)
	if percent, is := percentOf(v); is && percent > 100 {
		errs = append(errs, field.Invalid(p, *v, "must not be greater than 100%"))
	}
	return errs
}

// positiveCount is partOfAll that is not nothing either.
func positiveCount(v *intstr.IntOrString, p *field.Path) field.ErrorList {
	errs := partOfAll(v, p)
	if percent, is := percentOf(v); v != nil && (is && percent == 0 || v.Type == intstr.Int && v.IntVal == 0) {
		errs = append(errs, field.Invalid(p, *v, "cannot be 0"))
	}
	return errs
}

func validateDaemonSet(o Object) field.ErrorList {
	d, p := &o.(*appsv1.DaemonSet).Spec, field.NewPath("spec")
	errs := validateWorkload("DaemonSet", d.Selector, &d.Template)
	errs = append(errs, counts(p, counted[int32]{"minReadySeconds", &d.MinReadySeconds}, counted[int32]{"revisionHistoryLimit", d.RevisionHistoryLimit})...)
	at := p.Child("updateStrategy")
	kinds := []appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType}
	if !slices.Contains(kinds, d.UpdateStrategy.Type) {
		return append(errs, field.NotSupported(at, d.UpdateStrategy, kinds))
	}
	r := d.UpdateStrategy.RollingUpdate
	if r == nil || d.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return errs
	}
	at = at.Child("rollingUpdate")
	errs = append(errs, partOfAll(r.MaxUnavailable, at.Child("maxUnavailable"))...)
	errs = append(errs, partOfAll(r.MaxSurge, at.Child("maxSurge"))...)
	surges, lacks := something(r.MaxSurge), something(r.MaxUnavailable)
	switch {
	case surges && lacks:
		errs = append(errs, field.Invalid(at.Child("maxSurge"), r.MaxSurge, "may not be set when maxUnavailable is non-zero"))
	case !surges && !lacks:
		errs = append(errs, field.Required(at.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func something(v *intstr.IntOrString) bool {
	percent, is := percentOf(v)
	return v != nil && (is && percent > 0 || !is && v.IntVal > 0)
}

// validateRevision: what a revision keeps is an object.
func validateRevision(o Object) field.ErrorList {
	r, data := o.(*appsv1.ControllerRevision), field.NewPath("data")
	errs := nonNegative(r.Revision, field.NewPath("revision"))
	var kept any
	switch err := json.Unmarshal(r.Data.Raw, &kept); {
	case r.Data.Raw == nil:
		return append(errs, field.Required(data, "data is mandatory"))
	case err != nil:
		return append(errs, field.Invalid(data, "<value omitted>", "error parsing data: "+err.Error()))
	case kept == nil:
		return append(errs, field.Required(data, "data is mandatory"))
	}
	if _, is := kept.(map[string]any); !is {
		errs = append(errs, field.Required(data, "data must be a valid JSON object"))
	}
	return errs
}

func validateRevisionUpdate(o, old Object) field.ErrorList {
	r, was := o.(*appsv1.ControllerRevision), old.(*appsv1.ControllerRevision)
	return append(nonNegative(r.Revision, field.NewPath("revision")), immutable(string(r.Data.Raw), string(was.Data.Raw), field.NewPath("data"))...)
}
