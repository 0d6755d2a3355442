package api

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// preparePod puts a new pod at its beginning, whatever the client said of its status.
func preparePod(o Object) {
	p := o.(*corev1.Pod)
	if p.Spec.Resources != nil {
		defaultPodResources(p)
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: QOSClass(&p.Spec)}
	p.Generation = 1
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
}

// QOSClass of a pod follows from the requests and limits of CPU and memory: the pod's own (KEP-2837), or else its containers'.
func QOSClass(s *corev1.PodSpec) corev1.PodQOSClass {
	any, guaranteed := false, true
	see := func(r *corev1.ResourceRequirements) {
		for _, name := range [...]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := r.Requests[name], r.Limits[name]
			any = any || !request.IsZero() || !limit.IsZero()
			guaranteed = guaranteed && !limit.IsZero() && (request.IsZero() || request.Cmp(limit) == 0)
		}
	}
	if s.Resources != nil && len(s.Resources.Requests)+len(s.Resources.Limits) > 0 {
		see(s.Resources)
	} else {
		for i := range s.InitContainers {
			see(&s.InitContainers[i].Resources)
		}
		for i := range s.Containers {
			see(&s.Containers[i].Resources)
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
	errs := validatePodSpec(&p.Spec, p.Name, field.NewPath("spec"))
	errs = append(errs, hostUsersDevices(&p.Spec, field.NewPath("spec"))...)
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "ephemeralContainers"), "cannot be set on create"))
	}
	if len(p.Spec.SchedulingGates) > 0 && p.Spec.NodeName != "" {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// validatePodSpec checks the spec of a pod or of a template at p.
// pod is its name, "" for a template.
func validatePodSpec(s *corev1.PodSpec, pod string, p *field.Path) (errs field.ErrorList) {
	errs = append(errs, podContainers(s, pod, p)...)
	errs = append(errs, hostPorts(s, p)...)
	errs = append(errs, podPolicies(s, p)...)
	errs = append(errs, podNames(s, p)...)
	for k, v := range s.NodeSelector {
		errs = append(errs, each(p.Child("nodeSelector"), k, validation.IsQualifiedName(k))...)
		errs = append(errs, each(p.Child("nodeSelector").Key(k), v, validation.IsValidLabelValue(v))...)
	}
	for i := range s.Tolerations {
		errs = append(errs, validateToleration(&s.Tolerations[i], p.Child("tolerations").Index(i))...)
	}
	errs = append(errs, validatePodParts(s, p)...)
	if s.Affinity != nil {
		errs = append(errs, validateAffinity(s.Affinity, p.Child("affinity"))...)
	}
	return errs
}

// podContainers checks the volumes and the containers, which share one set of names.
func podContainers(s *corev1.PodSpec, pod string, p *field.Path) field.ErrorList {
	volumes, errs := validateVolumes(s.Volumes, pod, p.Child("volumes"))
	scope := &containerScope{pod: s, volumes: volumes}
	if len(s.Containers) == 0 {
		errs = append(errs, field.Required(p.Child("containers"), ""))
	}
	names := make([]string, 0, 8)
	check := func(c *corev1.Container, at *field.Path) {
		if slices.Contains(names, c.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names = append(names, c.Name)
		errs = append(errs, scope.container(c, at)...)
	}
	for i := range s.Containers {
		check(&s.Containers[i], p.Child("containers").Index(i))
	}
	for i := range s.InitContainers {
		at := p.Child("initContainers").Index(i)
		check(&s.InitContainers[i], at)
		errs = append(errs, initOnly(&s.InitContainers[i], at)...)
	}
	for i := range s.EphemeralContainers {
		at := p.Child("ephemeralContainers").Index(i)
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		check(&c, at)
		errs = append(errs, scope.ephemeral(&s.EphemeralContainers[i], at)...)
	}
	return errs
}

// podPolicies checks what a pod must say, and how long it may take.
func podPolicies(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	errs = append(errs, choice(s.RestartPolicy, p, "restartPolicy", corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, choice(s.DNSPolicy, p, "dnsPolicy", corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)...)
	if s.DNSPolicy == corev1.DNSNone && (s.DNSConfig == nil || len(s.DNSConfig.Nameservers) == 0) {
		errs = append(errs, field.Required(p.Child("dnsConfig", "nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None"))
	}
	if s.TerminationGracePeriodSeconds == nil {
		errs = append(errs, field.Required(p.Child("terminationGracePeriodSeconds"), ""))
	}
	if n := s.ActiveDeadlineSeconds; n != nil && (*n < 1 || *n > 1<<31-1) {
		errs = append(errs, field.Invalid(p.Child("activeDeadlineSeconds"), *n, validation.InclusiveRangeError(1, 1<<31-1)))
	}
	return errs
}

// podNames checks what a pod is called and whom else it names.
func podNames(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	for _, n := range [...]struct{ name, value string }{
		{"nodeName", s.NodeName}, {"serviceAccountName", s.ServiceAccountName}, {"priorityClassName", s.PriorityClassName}, {"schedulerName", s.SchedulerName},
	} {
		if n.value != "" && !plainLabel(n.value) {
			errs = append(errs, dnsSubdomain(n.value, p.Child(n.name))...)
		}
	}
	if s.Hostname != "" {
		errs = append(errs, dnsLabel(s.Hostname, p.Child("hostname"))...)
	}
	if s.Subdomain != "" {
		errs = append(errs, dnsLabel(s.Subdomain, p.Child("subdomain"))...)
	}
	if s.HostnameOverride != nil {
		errs = append(errs, hostnameOverride(s, p)...)
	}
	for i, h := range s.HostAliases {
		errs = append(errs, address(h.IP, p.Child("hostAliases").Index(i).Child("ip"))...)
	}
	for i := range s.ImagePullSecrets {
		errs = append(errs, required(s.ImagePullSecrets[i].Name, p.Child("imagePullSecrets").Index(i).Child("name"))...)
	}
	return errs
}

// hostnameOverride is a pod's name to itself (KEP-4762), which the node's own must not contradict.
func hostnameOverride(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	name, at := *s.HostnameOverride, p.Child("hostnameOverride")
	if len(name) > longestHostname {
		errs = append(errs, field.TooLong(at, name, longestHostname))
	} else {
		errs = append(errs, dnsSubdomain(name, at)...)
	}
	if value(s.SetHostnameAsFQDN) {
		errs = append(errs, field.Forbidden(p.Child("setHostnameAsFQDN"), "may not be specified when `hostnameOverride` is set"))
	}
	if s.HostNetwork {
		errs = append(errs, field.Forbidden(p.Child("hostNetwork"), "may not be specified when `hostnameOverride` is set"))
	}
	return errs
}

// longestHostname is what the kernel takes.
const longestHostname = 64

func hostPorts(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	var taken map[string]bool
	see := func(c *corev1.Container, in *field.Path) {
		for j, cp := range c.Ports {
			if cp.HostPort == 0 {
				continue
			}
			at := in.Child("ports").Index(j)
			if s.HostNetwork && cp.HostPort != cp.ContainerPort {
				errs = append(errs, field.Invalid(at.Child("hostPort"), cp.HostPort, "must match `containerPort` when `hostNetwork` is true"))
			}
			id := fmt.Sprintf("%s/%s/%d", cp.Protocol, cp.HostIP, cp.HostPort)
			if taken[id] {
				errs = append(errs, field.Duplicate(at.Child("hostPort"), id))
			}
			if taken == nil {
				taken = map[string]bool{}
			}
			taken[id] = true
		}
	}
	for i := range s.Containers {
		if len(s.Containers[i].Ports) > 0 {
			see(&s.Containers[i], p.Child("containers").Index(i))
		}
	}
	for i := range s.InitContainers {
		if c := &s.InitContainers[i]; len(c.Ports) > 0 && restartable(c) { // one that ends may have a port that another has later
			see(c, p.Child("initContainers").Index(i))
		}
	}
	return errs
}
