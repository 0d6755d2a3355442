package api

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// preparePod puts a new pod at its beginning, whatever the client said of its status.
func preparePod(o Object) {
	p := o.(*corev1.Pod)
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: QOSClass(&p.Spec)}
	p.Generation = 1
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
}

// QOSClass of a pod follows from its containers' requests and limits of CPU and memory.
func QOSClass(s *corev1.PodSpec) corev1.PodQOSClass {
	any, guaranteed := false, true
	for _, c := range slices.Concat(s.InitContainers, s.Containers) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			any = any || !request.IsZero() || !limit.IsZero()
			guaranteed = guaranteed && !limit.IsZero() && (request.IsZero() || request.Cmp(limit) == 0)
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// podGrace is how long a pod's end may take. One that no node has seen, or that has ended, goes at once.
func podGrace(o Object, opts *metav1.DeleteOptions) int64 {
	p := o.(*corev1.Pod)
	var grace int64
	switch {
	case opts != nil && opts.GracePeriodSeconds != nil:
		grace = *opts.GracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		grace = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		grace = 0
	}
	if grace < 0 { // a negative grace is the smallest one that still lets the node act
		grace = 1
	}
	return grace
}

func validatePod(o Object) field.ErrorList {
	p := o.(*corev1.Pod)
	errs := validatePodSpec(&p.Spec, field.NewPath("spec"))
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "ephemeralContainers"), "cannot be set on create"))
	}
	if len(p.Spec.SchedulingGates) > 0 && p.Spec.NodeName != "" {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// validatePodUpdate lets only those fields change that upstream lets change.
func validatePodUpdate(o, old Object) field.ErrorList {
	p, was := o.(*corev1.Pod), old.(*corev1.Pod)
	spec := field.NewPath("spec")
	errs := validatePodSpec(&p.Spec, spec)
	if len(p.Spec.Containers) != len(was.Spec.Containers) || len(p.Spec.InitContainers) != len(was.Spec.InitContainers) {
		return append(errs, field.Forbidden(spec.Child("containers"), "pod updates may not add or remove containers"))
	}
	left := was.Spec.DeepCopy()
	for i := range left.Containers {
		left.Containers[i].Image = p.Spec.Containers[i].Image
		left.Containers[i].Resources = p.Spec.Containers[i].Resources // through /resize alone, which the registry sees to
	}
	for i := range left.InitContainers {
		left.InitContainers[i].Image = p.Spec.InitContainers[i].Image
	}
	left.EphemeralContainers = p.Spec.EphemeralContainers // likewise /ephemeralcontainers
	left.Tolerations = p.Spec.Tolerations
	left.SchedulingGates = p.Spec.SchedulingGates
	if n := p.Spec.ActiveDeadlineSeconds; n != nil && (left.ActiveDeadlineSeconds == nil || *n < *left.ActiveDeadlineSeconds) {
		left.ActiveDeadlineSeconds = n
	}
	if g := p.Spec.TerminationGracePeriodSeconds; g != nil && *g == 1 && left.TerminationGracePeriodSeconds != nil && *left.TerminationGracePeriodSeconds < 0 {
		left.TerminationGracePeriodSeconds = g
	}
	if len(was.Spec.SchedulingGates) > 0 { // a gated pod may still be narrowed
		left.NodeSelector, left.Affinity = p.Spec.NodeSelector, p.Spec.Affinity
	}
	if QOSClass(&p.Spec) != QOSClass(&was.Spec) { // only a resize could do that
		errs = append(errs, field.Invalid(spec, QOSClass(&p.Spec), "Pod QOS Class may not change as a result of resizing"))
	}
	if !equal(left, &p.Spec) {
		errs = append(errs, field.Forbidden(spec, "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"+
			"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"))
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

// validatePodSpec checks the spec of a pod or of a template at p.
func validatePodSpec(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	volumes, more := validateVolumes(s.Volumes, p.Child("volumes"))
	errs = append(errs, more...)
	if len(s.Containers) == 0 {
		errs = append(errs, field.Required(p.Child("containers"), ""))
	}
	names := map[string]bool{}
	check := func(c *corev1.Container, at *field.Path) {
		if names[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names[c.Name] = true
		errs = append(errs, validateContainer(c, volumes, at)...)
	}
	for i := range s.Containers {
		check(&s.Containers[i], p.Child("containers").Index(i))
	}
	for i := range s.InitContainers {
		c, at := &s.InitContainers[i], p.Child("initContainers").Index(i)
		check(c, at)
		if !restartable(c) {
			if c.Lifecycle != nil {
				errs = append(errs, field.Forbidden(at.Child("lifecycle"), "may not be set for init containers without restartPolicy=Always"))
			}
			if c.LivenessProbe != nil || c.ReadinessProbe != nil || c.StartupProbe != nil {
				errs = append(errs, field.Forbidden(at.Child("livenessProbe"), "may not be set for init containers without restartPolicy=Always"))
			}
		}
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		check(&c, p.Child("ephemeralContainers").Index(i))
	}
	errs = append(errs, hostPorts(s, p)...)
	errs = append(errs, oneOf(s.RestartPolicy, p.Child("restartPolicy"), corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, oneOf(s.DNSPolicy, p.Child("dnsPolicy"), corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)...)
	if s.DNSPolicy == corev1.DNSNone && (s.DNSConfig == nil || len(s.DNSConfig.Nameservers) == 0) {
		errs = append(errs, field.Required(p.Child("dnsConfig", "nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None"))
	}
	if s.TerminationGracePeriodSeconds == nil {
		errs = append(errs, field.Required(p.Child("terminationGracePeriodSeconds"), ""))
	}
	if n := s.ActiveDeadlineSeconds; n != nil && (*n < 1 || *n > 1<<31-1) {
		errs = append(errs, field.Invalid(p.Child("activeDeadlineSeconds"), *n, validation.InclusiveRangeError(1, 1<<31-1)))
	}
	for name, v := range map[string]string{"nodeName": s.NodeName, "serviceAccountName": s.ServiceAccountName, "priorityClassName": s.PriorityClassName} {
		if v != "" {
			errs = append(errs, dnsSubdomain(v, p.Child(name))...)
		}
	}
	for name, v := range map[string]string{"hostname": s.Hostname, "subdomain": s.Subdomain} {
		if v != "" {
			errs = append(errs, dnsLabel(v, p.Child(name))...)
		}
	}
	for k, v := range s.NodeSelector {
		errs = append(errs, each(p.Child("nodeSelector"), k, validation.IsQualifiedName(k))...)
		errs = append(errs, each(p.Child("nodeSelector").Key(k), v, validation.IsValidLabelValue(v))...)
	}
	for i := range s.Tolerations {
		errs = append(errs, validateToleration(&s.Tolerations[i], p.Child("tolerations").Index(i))...)
	}
	for i, h := range s.HostAliases {
		errs = append(errs, address(h.IP, p.Child("hostAliases").Index(i).Child("ip"))...)
	}
	for i := range s.ImagePullSecrets {
		errs = append(errs, required(s.ImagePullSecrets[i].Name, p.Child("imagePullSecrets").Index(i).Child("name"))...)
	}
	errs = append(errs, validatePodParts(s, p)...)
	errs = append(errs, validateAffinity(s.Affinity, p.Child("affinity"))...)
	for i, c := range s.TopologySpreadConstraints {
		at := p.Child("topologySpreadConstraints").Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
		}
		errs = append(errs, required(c.TopologyKey, at.Child("topologyKey"))...)
		errs = append(errs, oneOf(c.WhenUnsatisfiable, at.Child("whenUnsatisfiable"), corev1.DoNotSchedule, corev1.ScheduleAnyway)...)
	}
	return errs
}

func hostPorts(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	taken := map[string]bool{}
	for i := range s.Containers {
		for j, cp := range s.Containers[i].Ports {
			at := p.Child("containers").Index(i).Child("ports").Index(j)
			if cp.HostPort == 0 {
				continue
			}
			if s.HostNetwork && cp.HostPort != cp.ContainerPort {
				errs = append(errs, field.Invalid(at.Child("hostPort"), cp.HostPort, "must match `containerPort` when `hostNetwork` is true"))
			}
			id := fmt.Sprintf("%s/%s/%d", cp.Protocol, cp.HostIP, cp.HostPort)
			if taken[id] {
				errs = append(errs, field.Duplicate(at.Child("hostPort"), id))
			}
			taken[id] = true
		}
	}
	return errs
}

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
		at := at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
		if len(r.NodeSelectorTerms) == 0 {
			errs = append(errs, field.Required(at, "must have at least one node selector term"))
		}
		for i := range r.NodeSelectorTerms {
			errs = append(errs, nodeSelectorTerm(&r.NodeSelectorTerms[i], at.Index(i))...)
		}
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
	for name, s := range map[string]*metav1.LabelSelector{"labelSelector": t.LabelSelector, "namespaceSelector": t.NamespaceSelector} {
		if s != nil {
			errs = append(errs, labelSelector(s, p.Child(name))...)
		}
	}
	for i, ns := range t.Namespaces {
		errs = append(errs, dnsLabel(ns, p.Child("namespaces").Index(i))...)
	}
	if t.TopologyKey == "" {
		return append(errs, field.Required(p.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, each(p.Child("topologyKey"), t.TopologyKey, validation.IsQualifiedName(t.TopologyKey))...)
}

func nodeSelectorTerm(t *corev1.NodeSelectorTerm, p *field.Path) (errs field.ErrorList) {
	for i, e := range t.MatchExpressions {
		at := p.Child("matchExpressions").Index(i)
		errs = append(errs, each(at.Child("key"), e.Key, validation.IsQualifiedName(e.Key))...)
		errs = append(errs, selectorValues(e, at)...)
	}
	for i, e := range t.MatchFields {
		if at := p.Child("matchFields").Index(i); e.Key != metav1.ObjectNameField {
			errs = append(errs, field.Invalid(at.Child("key"), e.Key, "not a valid field selector key"))
		}
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

// quantity checks one amount of a resource.
func quantity(name corev1.ResourceName, q resource.Quantity, p *field.Path) (errs field.ErrorList) {
	errs = append(errs, each(p, string(name), validation.IsQualifiedName(string(name)))...)
	if !strings.Contains(string(name), "/") && !standardResource(name) {
		errs = append(errs, field.Invalid(p, name, "must be a standard resource type or fully qualified"))
	}
	if q.Sign() < 0 {
		errs = append(errs, field.Invalid(p, q.String(), apivalidation.IsNegativeErrorMsg))
	}
	if whole := strings.Contains(string(name), "/") || name == corev1.ResourcePods; whole && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(p, q.String(), "must be an integer"))
	}
	return errs
}

func standardResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceStorage, corev1.ResourcePods:
		return true
	}
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) || strings.HasPrefix(string(name), "attachable-volumes-")
}
