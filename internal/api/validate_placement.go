package api

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Where a pod may and should run: tolerations, affinities, and the selectors that nodes are chosen by.

func validateToleration(t *corev1.Toleration, p *field.Path) (errs field.ErrorList) {
	if t.Key != "" {
		errs = append(errs, each(p.Child("key"), t.Key, validation.IsQualifiedName(t.Key))...)
	} else if t.Operator != corev1.TolerationOpExists {
		errs = append(errs, field.Invalid(p.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
	}
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		errs = append(errs, field.Invalid(p.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
	}
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		errs = append(errs, each(p.Child("operator"), t.Value, validation.IsValidLabelValue(t.Value))...)
	case corev1.TolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(p.Child("operator"), t, "value must be empty when `operator` is 'Exists'"))
		}
	default:
		errs = append(errs, field.NotSupported(p.Child("operator"), t.Operator, []corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
	}
	if t.Effect != "" {
		errs = append(errs, oneOf(t.Effect, p.Child("effect"), corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
	}
	return errs
}

func validateAffinity(a *corev1.Affinity, p *field.Path) (errs field.ErrorList) {
	if a == nil {
		return nil
	}
	if pa := a.PodAffinity; pa != nil {
		errs = append(errs, podAffinity(pa.RequiredDuringSchedulingIgnoredDuringExecution, pa.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAffinity"))...)
	}
	if pa := a.PodAntiAffinity; pa != nil {
		errs = append(errs, podAffinity(pa.RequiredDuringSchedulingIgnoredDuringExecution, pa.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAntiAffinity"))...)
	}
	if a.NodeAffinity == nil {
		return errs
	}
	at := p.Child("nodeAffinity")
	if r := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		errs = append(errs, nodeSelector(r, at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"))...)
	}
	for i := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		t, at := &a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i], at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		if t.Weight <= 0 || t.Weight > 100 {
			errs = append(errs, field.Invalid(at.Child("weight"), t.Weight, "must be in the range 1-100"))
		}
		errs = append(errs, nodeSelectorTerm(&t.Preference, at.Child("preference"))...)
	}
	return errs
}

func podAffinity(must []corev1.PodAffinityTerm, like []corev1.WeightedPodAffinityTerm, p *field.Path) (errs field.ErrorList) {
	for i := range must {
		errs = append(errs, podAffinityTerm(&must[i], p.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i))...)
	}
	for i := range like {
		at := p.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		if like[i].Weight <= 0 || like[i].Weight > 100 {
			errs = append(errs, field.Invalid(at.Child("weight"), like[i].Weight, "must be in the range 1-100"))
		}
		errs = append(errs, podAffinityTerm(&like[i].PodAffinityTerm, at.Child("podAffinityTerm"))...)
	}
	return errs
}

func podAffinityTerm(t *corev1.PodAffinityTerm, p *field.Path) (errs field.ErrorList) {
	if t.LabelSelector != nil {
		errs = append(errs, labelSelector(t.LabelSelector, p.Child("labelSelector"))...)
	}
	if t.NamespaceSelector != nil {
		errs = append(errs, labelSelector(t.NamespaceSelector, p.Child("namespaceSelector"))...)
	}
	for i, ns := range t.Namespaces {
		errs = append(errs, dnsLabel(ns, p.Child("namespaces").Index(i))...)
	}
	errs = append(errs, labelKeys(t.MatchLabelKeys, t.LabelSelector, p, "matchLabelKeys")...)
	errs = append(errs, labelKeys(t.MismatchLabelKeys, t.LabelSelector, p, "mismatchLabelKeys")...)
	for i, k := range t.MatchLabelKeys {
		if slices.Contains(t.MismatchLabelKeys, k) {
			errs = append(errs, field.Invalid(p.Child("matchLabelKeys").Index(i), k, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	if t.TopologyKey == "" {
		return append(errs, field.Required(p.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, each(p.Child("topologyKey"), t.TopologyKey, validation.IsQualifiedName(t.TopologyKey))...)
}

// labelKeys checks the labels whose values a selector takes over from the pod itself: they are names, and the selector has none of its own for them.
func labelKeys(keys []string, s *metav1.LabelSelector, p *field.Path, name string) (errs field.ErrorList) {
	if len(keys) == 0 {
		return nil
	}
	at := p.Child(name)
	if s == nil {
		errs = append(errs, field.Forbidden(at, "must not be specified when labelSelector is not set"))
	}
	for i, k := range keys {
		errs = append(errs, metavalidation.ValidateLabelName(k, at.Index(i))...)
		if s == nil {
			continue
		}
		_, twice := s.MatchLabels[k]
		if twice || slices.ContainsFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == k }) {
			errs = append(errs, field.Invalid(at.Index(i), k, "exists in both "+name+" and labelSelector"))
		}
	}
	return errs
}

func nodeSelector(s *corev1.NodeSelector, terms *field.Path) (errs field.ErrorList) {
	if len(s.NodeSelectorTerms) == 0 {
		errs = append(errs, field.Required(terms, "must have at least one node selector term"))
	}
	for i := range s.NodeSelectorTerms {
		errs = append(errs, nodeSelectorTerm(&s.NodeSelectorTerms[i], terms.Index(i))...)
	}
	return errs
}

func nodeSelectorTerm(t *corev1.NodeSelectorTerm, p *field.Path) (errs field.ErrorList) {
	for i, e := range t.MatchExpressions {
		at := p.Child("matchExpressions").Index(i)
		errs = append(errs, each(at.Child("key"), e.Key, validation.IsQualifiedName(e.Key))...)
		errs = append(errs, selectorValues(e, at)...)
	}
	for i, e := range t.MatchFields {
		errs = append(errs, fieldRequirement(e, p.Child("matchFields").Index(i))...)
	}
	return errs
}

// fieldRequirement can ask for one node by its name, or for all but one.
func fieldRequirement(e corev1.NodeSelectorRequirement, p *field.Path) (errs field.ErrorList) {
	switch e.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(e.Values) != 1 {
			errs = append(errs, field.Required(p.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
	default:
		errs = append(errs, field.Invalid(p.Child("operator"), e.Operator, "not a valid selector operator"))
	}
	if e.Key != metav1.ObjectNameField {
		return append(errs, field.Invalid(p.Child("key"), e.Key, "not a valid field selector key"))
	}
	for i, name := range e.Values {
		errs = append(errs, dnsSubdomain(name, p.Child("values").Index(i))...)
	}
	return errs
}

func selectorValues(e corev1.NodeSelectorRequirement, p *field.Path) field.ErrorList {
	bad := func(why string) field.ErrorList { return field.ErrorList{field.Required(p.Child("values"), why)} }
	switch e.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(e.Values) == 0 {
			return bad("must be specified when `operator` is 'In' or 'NotIn'")
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(e.Values) > 0 {
			return field.ErrorList{field.Forbidden(p.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")}
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(e.Values) != 1 {
			return bad("must be specified single value when `operator` is 'Lt' or 'Gt'")
		}
	default:
		return field.ErrorList{field.Invalid(p.Child("operator"), e.Operator, "not a valid selector operator")}
	}
	return nil
}
