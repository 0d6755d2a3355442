package api

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What of a pod may change once it is there.

const podFieldsThatChange = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
	"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// validatePodUpdate lets only those fields change that upstream lets change.
func validatePodUpdate(o, old Object) field.ErrorList {
	p, was := o.(*corev1.Pod), old.(*corev1.Pod)
	spec := field.NewPath("spec")
	errs := validatePodSpec(&p.Spec, p.Name, spec)
	if len(p.Spec.Containers) != len(was.Spec.Containers) || len(p.Spec.InitContainers) != len(was.Spec.InitContainers) {
		return append(errs, field.Forbidden(spec.Child("containers"), "pod updates may not add or remove containers"))
	}
	errs = append(errs, ephemeralUpdate(p, was, spec.Child("ephemeralContainers"))...)
	errs = append(errs, resize(p, was, spec)...)
	left := was.Spec.DeepCopy()
	for i := range left.Containers {
		left.Containers[i].Image, left.Containers[i].Resources = p.Spec.Containers[i].Image, p.Spec.Containers[i].Resources
	}
	for i := range left.InitContainers {
		left.InitContainers[i].Image, left.InitContainers[i].Resources = p.Spec.InitContainers[i].Image, p.Spec.InitContainers[i].Resources
	}
	left.EphemeralContainers, left.Resources = p.Spec.EphemeralContainers, p.Spec.Resources
	left.Tolerations = p.Spec.Tolerations
	left.SchedulingGates = p.Spec.SchedulingGates
	errs = append(errs, deadlineUpdate(p.Spec.ActiveDeadlineSeconds, was.Spec.ActiveDeadlineSeconds, spec.Child("activeDeadlineSeconds"))...)
	left.ActiveDeadlineSeconds = p.Spec.ActiveDeadlineSeconds
	if g := p.Spec.TerminationGracePeriodSeconds; g != nil && *g == 1 && left.TerminationGracePeriodSeconds != nil && *left.TerminationGracePeriodSeconds < 0 {
		left.TerminationGracePeriodSeconds = g
	}
	if len(was.Spec.SchedulingGates) > 0 { // a gated pod may still be narrowed (KEP-3838)
		errs = append(errs, narrowed(&p.Spec, &was.Spec, spec)...)
		left.NodeSelector, left.Affinity = p.Spec.NodeSelector, withNodeAffinity(left.Affinity, p.Spec.Affinity)
	}
	if !equal(left, &p.Spec) {
		errs = append(errs, field.Forbidden(spec, podFieldsThatChange+"\n"+diff.Diff(left, &p.Spec)))
	}
	for _, t := range was.Spec.Tolerations {
		if !slices.ContainsFunc(p.Spec.Tolerations, func(n corev1.Toleration) bool { n.TolerationSeconds = t.TolerationSeconds; return equal(n, t) }) {
			errs = append(errs, field.Forbidden(spec.Child("tolerations"), "existing toleration can not be modified except its tolerationSeconds"))
		}
	}
	for _, g := range p.Spec.SchedulingGates {
		if !slices.Contains(was.Spec.SchedulingGates, g) {
			errs = append(errs, field.Forbidden(spec.Child("schedulingGates"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

// validatePodMain refuses what only /resize and /ephemeralcontainers change.
func validatePodMain(o, old Object) field.ErrorList {
	p, was := &o.(*corev1.Pod).Spec, &old.(*corev1.Pod).Spec
	left := p.DeepCopy()
	left.EphemeralContainers, left.Resources = was.EphemeralContainers, was.Resources
	for _, list := range [...]struct{ to, from []corev1.Container }{{left.Containers, was.Containers}, {left.InitContainers, was.InitContainers}} {
		if len(list.to) != len(list.from) {
			continue // which is refused for itself
		}
		for i := range list.to {
			list.to[i].Resources = list.from[i].Resources
		}
	}
	if equal(left, p) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec"), podFieldsThatChange+"\n"+diff.Diff(left, p))}
}

// deadlineUpdate lets a deadline be set and come nearer.
func deadlineUpdate(now, was *int64, p *field.Path) field.ErrorList {
	switch {
	case was == nil:
		return nil
	case now == nil:
		return field.ErrorList{field.Invalid(p, now, "must not update from a positive integer to nil value")}
	case *now > *was:
		return field.ErrorList{field.Invalid(p, *now, fmt.Sprintf("must be less than or equal to previous value: %d", *was))}
	}
	return nil
}

// ephemeralUpdate: ephemeral containers only ever join.
func ephemeralUpdate(p, was *corev1.Pod, at *field.Path) (errs field.ErrorList) {
	if len(p.Spec.EphemeralContainers) > len(was.Spec.EphemeralContainers) && p.Annotations[corev1.MirrorPodAnnotationKey] != "" {
		errs = append(errs, field.Forbidden(at, "static pods do not support ephemeral containers"))
	}
	for i := range was.Spec.EphemeralContainers {
		c := &was.Spec.EphemeralContainers[i]
		j := slices.IndexFunc(p.Spec.EphemeralContainers, func(n corev1.EphemeralContainer) bool { return n.Name == c.Name })
		switch {
		case j < 0:
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", c.Name)))
		case !equal(c, &p.Spec.EphemeralContainers[j]):
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be changed\n", c.Name)))
		}
	}
	return errs
}

// resize checks what /resize changed (KEP-1287, KEP-5419): CPU and memory of the pod and of containers that run, without a change of the pod's class.
func resize(p, was *corev1.Pod, spec *field.Path) (errs field.ErrorList) {
	changed := !equal(p.Spec.Resources, was.Spec.Resources)
	if changed {
		errs = resizedWhole(p.Spec.Resources, was.Spec.Resources, spec)
	}
	for _, list := range [...]struct {
		name     string
		now, was []corev1.Container
	}{{"containers", p.Spec.Containers, was.Spec.Containers}, {"initContainers", p.Spec.InitContainers, was.Spec.InitContainers}} {
		for i := range list.now {
			now, before := &list.now[i], &list.was[i]
			if equal(&now.Resources, &before.Resources) {
				continue
			}
			at := spec.Child(list.name).Index(i)
			changed = true
			if list.name == "initContainers" && !restartable(now) && slices.ContainsFunc(now.ResizePolicy, beginsAnew) {
				errs = append(errs, field.Forbidden(at, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"))
			}
			errs = append(errs, removed(&now.Resources, &before.Resources, "", at.Child("resources"))...)
			switch {
			case onlySized(&now.Resources, &before.Resources):
			case list.name == "initContainers":
				errs = append(errs, field.Forbidden(at, "only cpu and memory resources for init or sidecar containers are mutable"))
			default:
				errs = append(errs, field.Forbidden(spec, "only cpu and memory resources are mutable"))
			}
		}
	}
	if !changed {
		return nil
	}
	switch {
	case was.Annotations[corev1.MirrorPodAnnotationKey] != "":
		errs = append(errs, field.Forbidden(field.NewPath(""), "static pods cannot be resized"))
	case was.Spec.OS != nil && was.Spec.OS.Name == corev1.Windows:
		errs = append(errs, field.Forbidden(field.NewPath(""), "windows pods cannot be resized"))
	}
	if now := QOSClass(&p.Spec); now != QOSClass(&was.Spec) {
		errs = append(errs, field.Invalid(spec, now, "Pod QOS Class may not change as a result of resizing"))
	}
	return errs
}

func beginsAnew(p corev1.ContainerResizePolicy) bool {
	return p.RestartPolicy == corev1.RestartContainer
}

// resizedWhole checks what changed of a pod's resources as a whole.
func resizedWhole(now, was *corev1.ResourceRequirements, spec *field.Path) (errs field.ErrorList) {
	p := spec.Child("resources")
	if now == nil {
		return field.ErrorList{field.Forbidden(p, "pod-level resources cannot be removed")}
	}
	if was == nil {
		was = &corev1.ResourceRequirements{}
	}
	errs = removed(now, was, "pod-level ", p)
	if !onlySized(now, was) {
		errs = append(errs, field.Forbidden(spec, "only cpu and memory resources are mutable at pod-level"))
	}
	return errs
}

func removed(now, was *corev1.ResourceRequirements, whose string, p *field.Path) (errs field.ErrorList) {
	for _, list := range [...]struct {
		name, what string
		now, was   corev1.ResourceList
	}{{"limits", "resource limits", now.Limits, was.Limits}, {"requests", "resource requests", now.Requests, was.Requests}} {
		for name := range list.was {
			if _, kept := list.now[name]; !kept {
				errs = append(errs, field.Forbidden(p.Child(list.name), whose+list.what+" cannot be removed"))
			}
		}
	}
	return errs
}

// onlySized: nothing but CPU and memory differs.
func onlySized(now, was *corev1.ResourceRequirements) bool {
	left := was.DeepCopy()
	for _, name := range [...]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		left.Limits, left.Requests = withAmount(left.Limits, now.Limits, name), withAmount(left.Requests, now.Requests, name)
	}
	return equal(left, now)
}

// withAmount is list with other's amount of one resource.
func withAmount(list, other corev1.ResourceList, name corev1.ResourceName) corev1.ResourceList {
	q, found := other[name]
	switch {
	case !found:
		delete(list, name)
	case list == nil:
		return corev1.ResourceList{name: q}
	default:
		list[name] = q
	}
	return list
}

// narrowed lets a gated pod's choice of nodes become smaller, not larger.
func narrowed(s, was *corev1.PodSpec, spec *field.Path) (errs field.ErrorList) {
	for k, v := range was.NodeSelector {
		if now, kept := s.NodeSelector[k]; !kept || now != v {
			errs = append(errs, field.Invalid(spec.Child("nodeSelector"), s.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
			break
		}
	}
	before := requiredTerms(was.Affinity)
	if len(before) == 0 {
		return errs
	}
	now, at := requiredTerms(s.Affinity), spec.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	if len(now) != len(before) {
		return append(errs, field.Invalid(at, now, "no additions/deletions to non-empty NodeSelectorTerms list are allowed"))
	}
	for i := range before {
		if !widens(&now[i], &before[i]) {
			continue
		}
		errs = append(errs, field.Invalid(at.Index(i), now[i], "only additions are allowed (no mutations or deletions)"))
	}
	return errs
}

// widens: a term that asked for nothing matches no node, and would match some if it asked for something.
func widens(now, was *corev1.NodeSelectorTerm) bool {
	if len(was.MatchExpressions)+len(was.MatchFields) == 0 {
		return len(now.MatchExpressions)+len(now.MatchFields) > 0
	}
	begins := func(now, was []corev1.NodeSelectorRequirement) bool {
		return len(now) >= len(was) && equal(now[:len(was)], was)
	}
	return !begins(now.MatchExpressions, was.MatchExpressions) || !begins(now.MatchFields, was.MatchFields)
}

func requiredTerms(a *corev1.Affinity) []corev1.NodeSelectorTerm {
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// withNodeAffinity is a with the node affinity of other.
func withNodeAffinity(a, other *corev1.Affinity) *corev1.Affinity {
	out := corev1.Affinity{}
	if a != nil {
		out.PodAffinity, out.PodAntiAffinity = a.PodAffinity, a.PodAntiAffinity
	}
	if other != nil {
		out.NodeAffinity = other.NodeAffinity
	}
	if other == nil && out == (corev1.Affinity{}) {
		return nil
	}
	return &out
}

// validatePodStatus keeps what a node reports of a pod possible.
func validatePodStatus(o, old Object) (errs field.ErrorList) {
	p, was, status := o.(*corev1.Pod), old.(*corev1.Pod), field.NewPath("status")
	for i := range p.Status.PodIPs {
		errs = append(errs, address(p.Status.PodIPs[i].IP, status.Child("podIPs").Index(i))...)
	}
	if len(p.Status.PodIPs) > 2 {
		errs = append(errs, field.Invalid(status.Child("podIPs"), p.Status.PodIPs, "may specify no more than one IP for each IP family"))
	}
	if node := p.Status.NominatedNodeName; node != "" {
		errs = append(errs, dnsSubdomain(node, status.Child("nominatedNodeName"))...)
	}
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		errs = append(errs, extendedClaimStatus(s, &p.Spec, status.Child("extendedResourceClaimStatus"))...)
	}
	if p.Spec.RestartPolicy == corev1.RestartPolicyAlways || p.DeletionTimestamp != nil || MayRestartAll(&p.Spec) {
		return errs
	}
	return append(errs, restartedStatuses(p, was, status.Child("containerStatuses"))...)
}

// extendedClaimStatus: who reads it looks up containers, and what they request, by these names.
func extendedClaimStatus(s *corev1.PodExtendedResourceClaimStatus, spec *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	errs = append(errs, required(s.ResourceClaimName, p.Child("resourceClaimName"))...)
	if s.ResourceClaimName != "" {
		errs = append(errs, dnsSubdomain(s.ResourceClaimName, p.Child("resourceClaimName"))...)
	}
	mappings := p.Child("requestMappings")
	if len(s.RequestMappings) == 0 {
		errs = append(errs, field.Required(mappings, "must have at least one request mapping"))
	}
	containers := slices.Concat(spec.InitContainers, spec.Containers)
	for i := range s.RequestMappings {
		m, at := &s.RequestMappings[i], mappings.Index(i)
		k := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == m.ContainerName })
		if k < 0 {
			errs = append(errs, field.Invalid(at.Child("containerName"), m.ContainerName, "must be the name of one of the pod's containers"))
		} else if _, asked := containers[k].Resources.Requests[corev1.ResourceName(m.ResourceName)]; !asked {
			errs = append(errs, field.Invalid(at.Child("resourceName"), m.ResourceName, "must be a resource that the container requests"))
		}
		errs = append(errs, dnsLabel(m.RequestName, at.Child("requestName"))...)
	}
	return errs
}

// MayRestartAll: a rule of one container may have all of them begin anew (KEP-5532).
func MayRestartAll(spec *corev1.PodSpec) bool {
	of := func(c corev1.Container) bool {
		return slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
			return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
		})
	}
	return slices.ContainsFunc(spec.InitContainers, of) || slices.ContainsFunc(spec.Containers, of)
}

// restartedStatuses: what ended stays so where the restart policy says so.
func restartedStatuses(p, was *corev1.Pod, at *field.Path) (errs field.ErrorList) {
	for i := range was.Status.ContainerStatuses {
		before := &was.Status.ContainerStatuses[i]
		ended := before.State.Terminated
		if ended == nil || ended.ExitCode != 0 && p.Spec.RestartPolicy == corev1.RestartPolicyOnFailure || ownRestarts(&p.Spec, before.Name) {
			continue
		}
		j := slices.IndexFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == before.Name })
		if j >= 0 && p.Status.ContainerStatuses[j].State.Terminated == nil {
			errs = append(errs, field.Forbidden(at.Index(j).Child("state"), "may not be transitioned to non-terminated state"))
		}
	}
	return errs
}

// ownRestarts says whether a container has a restart policy of its own.
func ownRestarts(s *corev1.PodSpec, name string) bool {
	i := slices.IndexFunc(s.Containers, func(c corev1.Container) bool { return c.Name == name })
	return i >= 0 && (s.Containers[i].RestartPolicy != nil || len(s.Containers[i].RestartPolicyRules) > 0)
}
