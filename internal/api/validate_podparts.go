package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What of a pod's spec few pods have. Each check returns at once where there is nothing to look at.

const (
	mostNameservers   = 3
	mostSearchPaths   = 32
	mostSearchChars   = 2048
	longestSysctlName = 253
)

// sysctlName is how a kernel parameter is called, by dots or by slashes.
var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

func validatePodParts(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	if s.SecurityContext != nil {
		errs = append(errs, podSecurityContext(s, p.Child("securityContext"))...)
	}
	if s.DNSConfig != nil {
		errs = append(errs, dnsConfig(s.DNSConfig, p.Child("dnsConfig"))...)
	}
	if s.Resources != nil {
		errs = append(errs, podResources(s, p.Child("resources"))...)
	}
	errs = append(errs, podClaims(s.ResourceClaims, p)...)
	errs = append(errs, hostUsers(s, p)...)
	for i, h := range s.HostAliases {
		for j, name := range h.Hostnames {
			errs = append(errs, dnsSubdomain(name, p.Child("hostAliases").Index(i).Child("hostnames").Index(j))...)
		}
	}
	for i, g := range s.SchedulingGates {
		at := p.Child("schedulingGates").Index(i)
		errs = append(errs, each(at, g.Name, validation.IsQualifiedName(g.Name))...)
		if slices.Contains(s.SchedulingGates[:i], g) {
			errs = append(errs, field.Duplicate(at, g.Name))
		}
	}
	if g := s.SchedulingGroup; g != nil {
		at := p.Child("schedulingGroup", "podGroupName")
		if g.PodGroupName == nil {
			errs = append(errs, field.Required(at, ""))
		} else {
			errs = append(errs, dnsSubdomain(*g.PodGroupName, at)...)
		}
	}
	for i, g := range s.ReadinessGates {
		errs = append(errs, each(p.Child("readinessGates").Index(i).Child("conditionType"), g.ConditionType, validation.IsQualifiedName(string(g.ConditionType)))...)
	}
	if s.RuntimeClassName != nil {
		errs = append(errs, dnsSubdomain(*s.RuntimeClassName, p.Child("runtimeClassName"))...)
	}
	if s.PreemptionPolicy != nil {
		errs = append(errs, oneOf(*s.PreemptionPolicy, p.Child("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	if len(s.TopologySpreadConstraints) > 0 {
		errs = append(errs, spread(s.TopologySpreadConstraints, p.Child("topologySpreadConstraints"))...)
	}
	return append(errs, operatingSystem(s, p)...)
}

// podClaims are the claims for devices that a pod brings, each one that exists or one that is made for it.
func podClaims(list []corev1.PodResourceClaim, p *field.Path) (errs field.ErrorList) {
	for i := range list {
		c, at := &list[i], p.Child("resourceClaims").Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, dnsLabel(c.Name, at.Child("name"))...)
		}
		if slices.ContainsFunc(list[:i], func(b corev1.PodResourceClaim) bool { return b.Name == c.Name }) {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		switch {
		case c.ResourceClaimName != nil && c.ResourceClaimTemplateName != nil:
			errs = append(errs, field.Invalid(at, c, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		case c.ResourceClaimName != nil:
			errs = append(errs, dnsSubdomain(*c.ResourceClaimName, at.Child("resourceClaimName"))...)
		case c.ResourceClaimTemplateName != nil:
			errs = append(errs, dnsSubdomain(*c.ResourceClaimTemplateName, at.Child("resourceClaimTemplateName"))...)
		default:
			errs = append(errs, field.Invalid(at, c, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
	}
	return errs
}

// OwnUsers: the pod has users of its own, and not the host's.
func OwnUsers(s *corev1.PodSpec) bool { return s.HostUsers != nil && !*s.HostUsers }

const withOwnUsers = "when `hostUsers` is false"

// hostUsers: a pod with users of its own (KEP-127) shares none of the node's namespaces.
func hostUsers(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	if !OwnUsers(s) {
		return nil
	}
	for _, n := range [...]struct {
		name string
		set  bool
	}{{"hostNetwork", s.HostNetwork}, {"hostPID", s.HostPID}, {"hostIPC", s.HostIPC}} {
		if n.set {
			errs = append(errs, field.Forbidden(p.Child(n.name), withOwnUsers))
		}
	}
	return errs
}

// hostUsersDevices: block devices have no ids that could be mapped. Pods that are there may have them: it was not always refused, and they
// must be able to go.
func hostUsersDevices(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	if !OwnUsers(s) {
		return nil
	}
	for _, all := range [...]struct {
		name string
		list []corev1.Container
	}{{"containers", s.Containers}, {"initContainers", s.InitContainers}} {
		for i := range all.list {
			if len(all.list[i].VolumeDevices) > 0 {
				errs = append(errs, field.Forbidden(p.Child(all.name).Index(i).Child("volumeDevices"), withOwnUsers))
			}
		}
	}
	return errs
}

// podSecurityContext: ids in range, kernel parameters with names that are some, each once, and none of the host's.
func podSecurityContext(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	c := s.SecurityContext
	for _, id := range [...]struct {
		name  string
		value *int64
	}{{"runAsUser", c.RunAsUser}, {"runAsGroup", c.RunAsGroup}, {"fsGroup", c.FSGroup}} {
		if id.value != nil {
			errs = append(errs, each(p.Child(id.name), *id.value, validation.IsValidUserID(*id.value))...)
		}
	}
	for i, g := range c.SupplementalGroups {
		errs = append(errs, each(p.Child("supplementalGroups").Index(i), g, validation.IsValidGroupID(g))...)
	}
	if c.FSGroupChangePolicy != nil {
		errs = append(errs, oneOf(*c.FSGroupChangePolicy, p.Child("fsGroupChangePolicy"), corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)...)
	}
	if c.SupplementalGroupsPolicy != nil {
		errs = append(errs, oneOf(*c.SupplementalGroupsPolicy, p.Child("supplementalGroupsPolicy"), corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	if c.SELinuxChangePolicy != nil {
		errs = append(errs, oneOf(*c.SELinuxChangePolicy, p.Child("seLinuxChangePolicy"), corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)...)
	}
	if c.SeccompProfile != nil {
		errs = append(errs, seccomp(c.SeccompProfile, p.Child("seccompProfile"))...)
	}
	if c.AppArmorProfile != nil {
		errs = append(errs, appArmor(c.AppArmorProfile, p.Child("appArmorProfile"))...)
	}
	if s.HostPID && value(s.ShareProcessNamespace) {
		errs = append(errs, field.Invalid(p.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	if len(c.Sysctls) > 0 {
		errs = append(errs, sysctls(s, c.Sysctls, p.Child("sysctls"))...)
	}
	return errs
}

func sysctls(s *corev1.PodSpec, list []corev1.Sysctl, p *field.Path) (errs field.ErrorList) {
	seen := map[string]bool{}
	for i, y := range list {
		at := p.Index(i).Child("name")
		switch {
		case y.Name == "":
			errs = append(errs, field.Required(at, ""))
			continue
		case len(y.Name) > longestSysctlName || !sysctlName.MatchString(y.Name):
			errs = append(errs, field.Invalid(at, y.Name, fmt.Sprintf("must have at most %d characters and match regex %s", longestSysctlName, sysctlName)))
		case seen[y.Name]:
			errs = append(errs, field.Duplicate(at, y.Name))
		}
		seen[y.Name] = true
		name := strings.ReplaceAll(y.Name, "/", ".")
		if s.HostNetwork && strings.HasPrefix(name, "net.") {
			errs = append(errs, field.Invalid(at, y.Name, "may not be specified when 'hostNetwork' is true"))
		}
		if s.HostIPC && (strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem" || strings.HasPrefix(name, "fs.mqueue.")) {
			errs = append(errs, field.Invalid(at, y.Name, "may not be specified when 'hostIPC' is true"))
		}
	}
	return errs
}

func seccomp(s *corev1.SeccompProfile, p *field.Path) (errs field.ErrorList) {
	if s == nil {
		return nil
	}
	errs = oneOf(s.Type, p.Child("type"), corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	switch local := s.Type == corev1.SeccompProfileTypeLocalhost; {
	case local && value(s.LocalhostProfile) == "":
		errs = append(errs, field.Required(p.Child("localhostProfile"), "must be set when seccomp type is Localhost"))
	case local:
		errs = append(errs, relativePath(*s.LocalhostProfile, p.Child("localhostProfile"))...)
	case s.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(p.Child("localhostProfile"), *s.LocalhostProfile, "can only be set when seccomp type is Localhost"))
	}
	return errs
}

func dnsConfig(c *corev1.PodDNSConfig, p *field.Path) (errs field.ErrorList) {
	if len(c.Nameservers) > mostNameservers {
		errs = append(errs, field.Invalid(p.Child("nameservers"), c.Nameservers, fmt.Sprintf("must not have more than %v nameservers", mostNameservers)))
	}
	for i, ns := range c.Nameservers {
		errs = append(errs, address(ns, p.Child("nameservers").Index(i))...)
	}
	if len(c.Searches) > mostSearchPaths {
		errs = append(errs, field.Invalid(p.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v search paths", mostSearchPaths)))
	}
	if len(strings.Join(c.Searches, " ")) > mostSearchChars {
		errs = append(errs, field.Invalid(p.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", mostSearchChars)))
	}
	for i, s := range c.Searches {
		if s != "." {
			s = strings.TrimSuffix(s, ".")
			errs = append(errs, each(p.Child("searches").Index(i), s, validation.IsDNS1123SubdomainWithUnderscore(s))...)
		}
	}
	for i, o := range c.Options {
		errs = append(errs, required(o.Name, p.Child("options").Index(i).Child("name"))...)
	}
	return errs
}

func spread(list []corev1.TopologySpreadConstraint, p *field.Path) (errs field.ErrorList) {
	for i := range list {
		c, at := &list[i], p.Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
		} else {
			errs = append(errs, each(at.Child("topologyKey"), c.TopologyKey, validation.IsQualifiedName(c.TopologyKey))...)
		}
		errs = append(errs, oneOf(c.WhenUnsatisfiable, at.Child("whenUnsatisfiable"), corev1.DoNotSchedule, corev1.ScheduleAnyway)...)
		errs = append(errs, labelKeys(c.MatchLabelKeys, c.LabelSelector, at, "matchLabelKeys")...)
		if c.LabelSelector != nil {
			errs = append(errs, labelSelector(c.LabelSelector, at.Child("labelSelector"))...)
		}
		if n := c.MinDomains; n != nil {
			if *n <= 0 {
				errs = append(errs, field.Invalid(at.Child("minDomains"), *n, "must be greater than 0"))
			}
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				errs = append(errs, field.Invalid(at.Child("minDomains"), *n, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable)))
			}
		}
		for name, v := range map[string]*corev1.NodeInclusionPolicy{"nodeAffinityPolicy": c.NodeAffinityPolicy, "nodeTaintsPolicy": c.NodeTaintsPolicy} {
			if v != nil {
				errs = append(errs, oneOf(*v, at.Child(name), corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
			}
		}
		for j := range i {
			if list[j].TopologyKey == c.TopologyKey && list[j].WhenUnsatisfiable == c.WhenUnsatisfiable {
				errs = append(errs, field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)))
				break
			}
		}
	}
	return errs
}

// operatingSystem: a pod that names its system has nothing of the other's.
func operatingSystem(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	if s.OS == nil {
		return nil
	}
	errs = oneOf(s.OS.Name, p.Child("os", "name"), corev1.Linux, corev1.Windows)
	if s.OS.Name == corev1.Linux {
		if s.SecurityContext != nil && s.SecurityContext.WindowsOptions != nil {
			errs = append(errs, field.Forbidden(p.Child("securityContext", "windowsOptions"), "windows options cannot be set for a linux pod"))
		}
		return errs
	}
	return append(errs, windowsOnly(s, p)...)
}

// windowsOnly refuses what Windows has not.
func windowsOnly(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	type has struct {
		name string
		set  bool
	}
	refuse := func(at *field.Path, list ...has) {
		for _, f := range list {
			if f.set {
				errs = append(errs, field.Forbidden(at.Child(f.name), "cannot be set for a windows pod"))
			}
		}
	}
	refuse(p, has{"hostPID", s.HostPID}, has{"hostIPC", s.HostIPC}, has{"hostUsers", s.HostUsers != nil}, has{"shareProcessNamespace", s.ShareProcessNamespace != nil},
		has{"resources", s.Resources != nil})
	if c := s.SecurityContext; c != nil {
		refuse(p.Child("securityContext"), has{"appArmorProfile", c.AppArmorProfile != nil}, has{"seLinuxOptions", c.SELinuxOptions != nil}, has{"seccompProfile", c.SeccompProfile != nil},
			has{"fsGroup", c.FSGroup != nil}, has{"fsGroupChangePolicy", c.FSGroupChangePolicy != nil}, has{"sysctls", len(c.Sysctls) > 0}, has{"runAsUser", c.RunAsUser != nil},
			has{"runAsGroup", c.RunAsGroup != nil}, has{"supplementalGroups", c.SupplementalGroups != nil}, has{"supplementalGroupsPolicy", c.SupplementalGroupsPolicy != nil})
	}
	for _, list := range [...]struct {
		name       string
		containers []corev1.Container
	}{{"initContainers", s.InitContainers}, {"containers", s.Containers}} {
		for i := range list.containers {
			if c := list.containers[i].SecurityContext; c != nil {
				refuse(p.Child(list.name).Index(i).Child("securityContext"), has{"appArmorProfile", c.AppArmorProfile != nil}, has{"seLinuxOptions", c.SELinuxOptions != nil},
					has{"seccompProfile", c.SeccompProfile != nil}, has{"capabilities", c.Capabilities != nil}, has{"readOnlyRootFilesystem", c.ReadOnlyRootFilesystem != nil},
					has{"privileged", c.Privileged != nil}, has{"allowPrivilegeEscalation", c.AllowPrivilegeEscalation != nil}, has{"procMount", c.ProcMount != nil},
					has{"runAsUser", c.RunAsUser != nil}, has{"runAsGroup", c.RunAsGroup != nil})
			}
		}
	}
	return errs
}
