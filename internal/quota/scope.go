package quota

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/api"
)

// Matches says whether a quota is about an object at all: one with scopes is about pods (and claims, by their attributes class) that are in all of them.
func Matches(q *corev1.ResourceQuota, obj any) bool {
	for _, s := range selectors(q) {
		if !inScope(s, obj) {
			return false
		}
	}
	return true
}

// selectors are a quota's scopes, each with what it wants of objects.
func selectors(q *corev1.ResourceQuota) (out []corev1.ScopedResourceSelectorRequirement) {
	for _, s := range q.Spec.Scopes {
		out = append(out, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		out = append(out, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return out
}

func inScope(s corev1.ScopedResourceSelectorRequirement, obj any) bool {
	switch o := obj.(type) {
	case *corev1.Pod:
		return podInScope(s, o)
	case *corev1.PersistentVolumeClaim:
		if s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
			return false
		}
		classes := AttributesClasses(o)
		if len(classes) == 0 {
			return selected(s, "")
		}
		return slices.ContainsFunc(classes, func(name string) bool { return selected(s, name) })
	}
	return false
}

// AttributesClasses are the attributes classes that a claim counts for, in order: the one it has, the one it wants, and the one it is on its way to.
func AttributesClasses(c *corev1.PersistentVolumeClaim) (out []string) {
	add := func(name string) {
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, name := range []*string{c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName} {
		if name != nil {
			add(*name)
		}
	}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		add(m.TargetVolumeAttributesClassName)
	}
	slices.Sort(out)
	return out
}

func podInScope(s corev1.ScopedResourceSelectorRequirement, p *corev1.Pod) bool {
	terminating := p.Spec.ActiveDeadlineSeconds != nil && *p.Spec.ActiveDeadlineSeconds >= 0
	bestEffort := api.QOSClass(&p.Spec) == corev1.PodQOSBestEffort
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return terminating
	case corev1.ResourceQuotaScopeNotTerminating:
		return !terminating
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort
	case corev1.ResourceQuotaScopePriorityClass:
		return selected(s, p.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(p.Spec.Affinity)
	}
	return false
}

func selected(s corev1.ScopedResourceSelectorRequirement, name string) bool {
	switch s.Operator {
	case corev1.ScopeSelectorOpIn:
		return slices.Contains(s.Values, name)
	case corev1.ScopeSelectorOpNotIn:
		return !slices.Contains(s.Values, name)
	case corev1.ScopeSelectorOpDoesNotExist:
		return name == ""
	}
	return name != ""
}

func crossesNamespaces(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	weighted := func(list []corev1.WeightedPodAffinityTerm) {
		for i := range list {
			terms = append(terms, list[i].PodAffinityTerm)
		}
	}
	if a.PodAffinity != nil {
		terms = append(terms, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		terms = append(terms, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}

// mustSay are the limits that a pod can only be held to if each of its containers names the amount.
var mustSay = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
}

// Unsaid is what a pod leaves open that a quota must know, in upstream's words; "" if nothing.
func Unsaid(p *corev1.Pod, hard corev1.ResourceList) string {
	var parts []string
	for _, name := range mustSay {
		if _, limited := hard[name]; !limited {
			continue
		}
		var silent []string
		for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
			list, key := c.Resources.Requests, corev1.ResourceName(strings.TrimPrefix(string(name), "requests."))
			if of, limits := strings.CutPrefix(string(name), "limits."); limits {
				list, key = c.Resources.Limits, corev1.ResourceName(of)
			}
			if _, said := list[key]; !said {
				silent = append(silent, c.Name)
			}
		}
		if len(silent) > 0 {
			slices.Sort(silent)
			parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(silent, ",")))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return "must specify " + strings.Join(parts, "; ")
}

// Text lists amounts as upstream's messages do: "cpu=1,pods=2".
func Text(list corev1.ResourceList) string {
	var parts []string
	for name, q := range list {
		parts = append(parts, string(name)+"="+q.String())
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}
