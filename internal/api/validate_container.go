package api

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A container of a pod: what it is, what it listens on, what it sees of the pod's volumes. What it does and may do is in validate_handler.go.

// containerScope is what of its pod a container is checked against.
type containerScope struct {
	pod     *corev1.PodSpec
	volumes volumesByName
}

func (s *containerScope) container(c *corev1.Container, p *field.Path) (errs field.ErrorList) {
	if !plainLabel(c.Name) {
		if c.Name == "" {
			errs = append(errs, field.Required(p.Child("name"), ""))
		} else {
			errs = append(errs, dnsLabel(c.Name, p.Child("name"))...)
		}
	}
	if c.Image == "" {
		errs = append(errs, field.Required(p.Child("image"), ""))
	} else if strings.TrimSpace(c.Image) != c.Image {
		errs = append(errs, field.Invalid(p.Child("image"), c.Image, "must not have leading or trailing whitespace"))
	}
	errs = append(errs, choice(c.ImagePullPolicy, p, "imagePullPolicy", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, choice(c.TerminationMessagePolicy, p, "terminationMessagePolicy", corev1.TerminationMessageFallbackToLogsOnError, corev1.TerminationMessageReadFile)...)
	if len(c.Ports) > 0 {
		errs = append(errs, containerPorts(c.Ports, p.Child("ports"))...)
	}
	for i := range c.Env {
		if e := &c.Env[i]; e.ValueFrom != nil || e.Name == "" || len(validation.IsRelaxedEnvVarName(e.Name)) > 0 {
			errs = append(errs, envVar(e, s.volumes, p.Child("env").Index(i))...)
		}
	}
	for i := range c.EnvFrom {
		errs = append(errs, envFrom(&c.EnvFrom[i], p.Child("envFrom").Index(i))...)
	}
	if len(c.VolumeMounts) > 0 {
		errs = append(errs, s.mounts(c, p.Child("volumeMounts"))...)
	}
	if len(c.VolumeDevices) > 0 {
		errs = append(errs, s.devices(c, p.Child("volumeDevices"))...)
	}
	if r := &c.Resources; len(r.Limits) > 0 || len(r.Requests) > 0 || len(r.Claims) > 0 {
		errs = append(errs, resources(r, s.pod.ResourceClaims, p.Child("resources"))...)
	}
	if len(c.ResizePolicy) > 0 {
		errs = append(errs, resizePolicies(c.ResizePolicy, s.pod.RestartPolicy, p.Child("resizePolicy"))...)
	}
	errs = append(errs, restartRules(c, p)...)
	if c.LivenessProbe != nil || c.ReadinessProbe != nil || c.StartupProbe != nil {
		errs = append(errs, probes(c, p)...)
	}
	if c.Lifecycle != nil {
		errs = append(errs, s.lifecycle(c.Lifecycle, p.Child("lifecycle"))...)
	}
	if c.SecurityContext != nil {
		errs = append(errs, securityContext(c.SecurityContext, s.pod, p.Child("securityContext"))...)
	}
	return errs
}

func containerPorts(list []corev1.ContainerPort, p *field.Path) (errs field.ErrorList) {
	for i := range list {
		cp, at := &list[i], p.Index(i)
		if cp.Name != "" {
			errs = append(errs, each(at.Child("name"), cp.Name, validation.IsValidPortName(cp.Name))...)
			if slices.ContainsFunc(list[:i], func(before corev1.ContainerPort) bool { return before.Name == cp.Name }) {
				errs = append(errs, field.Duplicate(at.Child("name"), cp.Name))
			}
		}
		if cp.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, portNumber(cp.ContainerPort, at, "containerPort")...)
		}
		if cp.HostPort != 0 {
			errs = append(errs, portNumber(cp.HostPort, at, "hostPort")...)
		}
		errs = append(errs, choice(cp.Protocol, at, "protocol", corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	}
	return errs
}

// mounts: each of a volume that there is, each at a place of its own.
func (s *containerScope) mounts(c *corev1.Container, p *field.Path) (errs field.ErrorList) {
	for i := range c.VolumeMounts {
		m, at := &c.VolumeMounts[i], p.Index(i)
		_, found := s.volumes[m.Name]
		switch {
		case m.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case !found:
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			errs = append(errs, field.Required(at.Child("mountPath"), ""))
		}
		if slices.ContainsFunc(c.VolumeMounts[:i], func(before corev1.VolumeMount) bool { return before.MountPath == m.MountPath }) {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		for _, d := range c.VolumeDevices {
			if d.Name == m.Name {
				errs = append(errs, field.Invalid(at.Child("name"), m.Name, "must not already exist in volumeDevices"))
			}
			if d.DevicePath == m.MountPath {
				errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
			}
		}
		if m.SubPath != "" && m.SubPathExpr != "" {
			errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
		}
		if m.SubPath != "" {
			errs = append(errs, localPath(m.SubPath, at.Child("subPath"))...)
		}
		if m.SubPathExpr != "" {
			errs = append(errs, localPath(m.SubPathExpr, at.Child("subPathExpr"))...)
		}
		errs = append(errs, mountModes(m, c, at)...)
	}
	return errs
}

// mountModes checks how a mount spreads and how deep read-only goes (KEP-3857).
func mountModes(m *corev1.VolumeMount, c *corev1.Container, p *field.Path) (errs field.ErrorList) {
	if spreads := m.MountPropagation; spreads != nil {
		at := p.Child("mountPropagation")
		errs = append(errs, oneOf(*spreads, at, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)...)
		if *spreads == corev1.MountPropagationBidirectional && (c.SecurityContext == nil || !value(c.SecurityContext.Privileged)) {
			errs = append(errs, field.Forbidden(at, "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	if m.RecursiveReadOnly == nil {
		return errs
	}
	at := p.Child("recursiveReadOnly")
	switch *m.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyDisabled:
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		if !m.ReadOnly {
			errs = append(errs, field.Forbidden(at, "may only be specified when readOnly is true"))
		}
		if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
			errs = append(errs, field.Forbidden(at, "may only be specified when mountPropagation is None or not specified"))
		}
	default:
		errs = append(errs, oneOf(*m.RecursiveReadOnly, at, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)...)
	}
	return errs
}

// devices: raw block volumes come of claims alone.
func (s *containerScope) devices(c *corev1.Container, p *field.Path) (errs field.ErrorList) {
	for i := range c.VolumeDevices {
		d, at := &c.VolumeDevices[i], p.Index(i)
		source, found := s.volumes[d.Name]
		before := c.VolumeDevices[:i]
		switch {
		case d.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case !found:
			errs = append(errs, field.NotFound(at.Child("name"), d.Name))
		case source.PersistentVolumeClaim == nil && source.Ephemeral == nil:
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		case slices.ContainsFunc(before, func(b corev1.VolumeDevice) bool { return b.Name == d.Name }):
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must be unique"))
		}
		if d.DevicePath == "" {
			errs = append(errs, field.Required(at.Child("devicePath"), ""))
			continue
		}
		if slices.ContainsFunc(before, func(b corev1.VolumeDevice) bool { return b.DevicePath == d.DevicePath }) {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		errs = append(errs, noParent(d.DevicePath, at.Child("devicePath"))...)
	}
	return errs
}

// ephemeralForbidden are the fields that a container put into a running pod can't have, by whether it has them.
func ephemeralForbidden(c *corev1.EphemeralContainerCommon) []string {
	var out []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"ports", len(c.Ports) > 0}, {"resources", c.Resources.Limits != nil || c.Resources.Requests != nil || c.Resources.Claims != nil},
		{"livenessProbe", c.LivenessProbe != nil}, {"readinessProbe", c.ReadinessProbe != nil}, {"startupProbe", c.StartupProbe != nil}, {"lifecycle", c.Lifecycle != nil},
		{"resizePolicy", len(c.ResizePolicy) > 0}, {"restartPolicy", c.RestartPolicy != nil}, {"restartPolicyRules", len(c.RestartPolicyRules) > 0},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

// ephemeral checks a container that joins a running pod (KEP-277): it may look, not serve.
func (s *containerScope) ephemeral(e *corev1.EphemeralContainer, p *field.Path) (errs field.ErrorList) {
	for _, name := range ephemeralForbidden(&e.EphemeralContainerCommon) {
		errs = append(errs, field.Forbidden(p.Child(name), "cannot be set for an Ephemeral Container"))
	}
	for i, m := range e.VolumeMounts {
		if m.SubPath != "" {
			errs = append(errs, field.Forbidden(p.Child("volumeMounts").Index(i).Child("subPath"), "cannot be set for an Ephemeral Container"))
		}
		if m.SubPathExpr != "" {
			errs = append(errs, field.Forbidden(p.Child("volumeMounts").Index(i).Child("subPathExpr"), "cannot be set for an Ephemeral Container"))
		}
	}
	if len(e.VolumeDevices) > 0 && OwnUsers(s.pod) {
		errs = append(errs, field.Forbidden(p.Child("volumeDevices"), withOwnUsers))
	}
	named := func(c corev1.Container) bool { return c.Name == e.TargetContainerName }
	if e.TargetContainerName != "" && !slices.ContainsFunc(s.pod.Containers, named) && !slices.ContainsFunc(s.pod.InitContainers, named) {
		errs = append(errs, field.NotFound(p.Child("targetContainerName"), e.TargetContainerName))
	}
	return errs
}

// initOnly is what an init container that ends can't have.
func initOnly(c *corev1.Container, p *field.Path) (errs field.ErrorList) {
	const why = "may not be set for init containers without restartPolicy=Always"
	if restartable(c) {
		return nil
	}
	if c.Lifecycle != nil {
		errs = append(errs, field.Forbidden(p.Child("lifecycle"), why))
	}
	if c.LivenessProbe != nil {
		errs = append(errs, field.Forbidden(p.Child("livenessProbe"), why))
	}
	if c.ReadinessProbe != nil {
		errs = append(errs, field.Forbidden(p.Child("readinessProbe"), why))
	}
	if c.StartupProbe != nil {
		errs = append(errs, field.Forbidden(p.Child("startupProbe"), why))
	}
	return errs
}

// mostRestartRules bounds what a container says of its restarts (KEP-5307).
const mostRestartRules = 20

func restartRules(c *corev1.Container, p *field.Path) (errs field.ErrorList) {
	if c.RestartPolicy != nil {
		errs = oneOf(*c.RestartPolicy, p.Child("restartPolicy"), corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	}
	if len(c.RestartPolicyRules) == 0 {
		return errs
	}
	at := p.Child("restartPolicyRules")
	if c.RestartPolicy == nil {
		errs = append(errs, field.Required(p.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
	}
	if n := len(c.RestartPolicyRules); n > mostRestartRules {
		errs = append(errs, field.TooMany(at, n, mostRestartRules))
	}
	for i := range c.RestartPolicyRules {
		r, at := &c.RestartPolicyRules[i], at.Index(i)
		errs = append(errs, oneOf(r.Action, at.Child("action"), corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(at.Child("exitCodes"), "must be specified"))
			continue
		}
		at = at.Child("exitCodes")
		errs = append(errs, oneOf(r.ExitCodes.Operator, at.Child("operator"), corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		switch n := len(r.ExitCodes.Values); {
		case n == 0:
			errs = append(errs, field.Required(at.Child("values"), "must specify at least one value"))
		case n > mostExitCodes:
			errs = append(errs, field.TooMany(at.Child("values"), n, mostExitCodes))
		}
	}
	return errs
}

func resizePolicies(list []corev1.ContainerResizePolicy, restart corev1.RestartPolicy, p *field.Path) (errs field.ErrorList) {
	for i, r := range list {
		errs = append(errs, oneOf(r.ResourceName, p.Index(i).Child("resourceName"), corev1.ResourceCPU, corev1.ResourceMemory)...)
		if slices.ContainsFunc(list[:i], func(b corev1.ContainerResizePolicy) bool { return b.ResourceName == r.ResourceName }) {
			errs = append(errs, field.Duplicate(p.Index(i), r.ResourceName))
		}
		errs = append(errs, oneOf(r.RestartPolicy, p.Index(i).Child("restartPolicy"), corev1.NotRequired, corev1.RestartContainer)...)
		if restart == corev1.RestartPolicyNever && r.RestartPolicy == corev1.RestartContainer {
			errs = append(errs, field.Invalid(p, r.RestartPolicy, fmt.Sprintf("must be '%s' when `restartPolicy` is '%s'", corev1.NotRequired, corev1.RestartPolicyNever)))
		}
	}
	return errs
}
