package api

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What is done to a container while it runs (probes, hooks) and what it may do itself (its security context).

func probes(c *corev1.Container, p *field.Path) (errs field.ErrorList) {
	errs = append(errs, validateProbe(c.LivenessProbe, p.Child("livenessProbe"), false)...)
	errs = append(errs, validateProbe(c.ReadinessProbe, p.Child("readinessProbe"), true)...)
	return append(errs, validateProbe(c.StartupProbe, p.Child("startupProbe"), false)...)
}

func validateProbe(pr *corev1.Probe, p *field.Path, readiness bool) (errs field.ErrorList) {
	if pr == nil {
		return nil
	}
	errs = handler(&corev1.LifecycleHandler{Exec: pr.Exec, HTTPGet: pr.HTTPGet, TCPSocket: pr.TCPSocket}, pr.GRPC, p)
	for _, n := range [...]struct {
		name  string
		value int32
	}{{"initialDelaySeconds", pr.InitialDelaySeconds}, {"timeoutSeconds", pr.TimeoutSeconds}, {"periodSeconds", pr.PeriodSeconds},
		{"successThreshold", pr.SuccessThreshold}, {"failureThreshold", pr.FailureThreshold}} {
		if n.value < 0 {
			errs = append(errs, nonNegative(int64(n.value), p.Child(n.name))...)
		}
	}
	grace := pr.TerminationGracePeriodSeconds
	switch {
	case readiness && grace != nil:
		errs = append(errs, field.Invalid(p.Child("terminationGracePeriodSeconds"), *grace, "must not be set for readinessProbes"))
	case grace != nil && *grace <= 0:
		errs = append(errs, field.Invalid(p.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0"))
	}
	if !readiness && pr.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(p.Child("successThreshold"), pr.SuccessThreshold, "must be 1"))
	}
	return errs
}

func (s *containerScope) lifecycle(l *corev1.Lifecycle, p *field.Path) (errs field.ErrorList) {
	for _, h := range [...]struct {
		name string
		hook *corev1.LifecycleHandler
	}{{"postStart", l.PostStart}, {"preStop", l.PreStop}} {
		if h.hook == nil {
			continue
		}
		errs = append(errs, handler(h.hook, nil, p.Child(h.name))...)
		if sleep := h.hook.Sleep; sleep != nil {
			if grace := value(s.pod.TerminationGracePeriodSeconds); sleep.Seconds < 0 || sleep.Seconds > grace {
				errs = append(errs, field.Invalid(p.Child(h.name, "sleep"), sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", grace)))
			}
		}
	}
	if l.StopSignal != nil && s.pod.OS == nil {
		errs = append(errs, field.Forbidden(p.Child("stopSignal"), "may not be set for containers with empty `spec.os.name`"))
	}
	return errs
}

// handler checks that a probe or hook does exactly one thing, and that thing.
func handler(h *corev1.LifecycleHandler, grpc *corev1.GRPCAction, p *field.Path) (errs field.ErrorList) {
	set := make([]string, 0, 2)
	if h.Exec != nil {
		set = append(set, "exec")
		if len(h.Exec.Command) == 0 {
			errs = append(errs, field.Required(p.Child("exec", "command"), ""))
		}
	}
	if h.HTTPGet != nil {
		set = append(set, "httpGet")
		errs = append(errs, httpGet(h.HTTPGet, p.Child("httpGet"))...)
	}
	if h.TCPSocket != nil {
		set = append(set, "tcpSocket")
		errs = append(errs, portOrName(h.TCPSocket.Port, p.Child("tcpSocket", "port"))...)
	}
	if grpc != nil {
		set = append(set, "grpc")
		errs = append(errs, port(grpc.Port, p.Child("grpc", "port"))...)
	}
	if h.Sleep != nil {
		set = append(set, "sleep")
	}
	if len(set) == 0 {
		return append(errs, field.Required(p, "must specify a handler type"))
	}
	for _, name := range set[1:] {
		errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 handler type"))
	}
	return errs
}

func httpGet(g *corev1.HTTPGetAction, p *field.Path) field.ErrorList {
	errs := required(g.Path, p.Child("path"))
	errs = append(errs, portOrName(g.Port, p.Child("port"))...)
	errs = append(errs, oneOf(g.Scheme, p.Child("scheme"), corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for _, h := range g.HTTPHeaders {
		errs = append(errs, each(p.Child("httpHeaders"), h.Name, validation.IsHTTPHeaderName(h.Name))...)
	}
	return errs
}

func securityContext(sc *corev1.SecurityContext, pod *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	if sc.RunAsUser != nil {
		errs = append(errs, each(p.Child("runAsUser"), *sc.RunAsUser, validation.IsValidUserID(*sc.RunAsUser))...)
	}
	if sc.RunAsGroup != nil {
		errs = append(errs, each(p.Child("runAsGroup"), *sc.RunAsGroup, validation.IsValidGroupID(*sc.RunAsGroup))...)
	}
	if sc.ProcMount != nil {
		at := p.Child("procMount")
		errs = append(errs, oneOf(*sc.ProcMount, at, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if *sc.ProcMount == corev1.UnmaskedProcMount && !OwnUsers(pod) {
			errs = append(errs, field.Invalid(at, *sc.ProcMount, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, seccomp(sc.SeccompProfile, p.Child("seccompProfile"))...)
	errs = append(errs, appArmor(sc.AppArmorProfile, p.Child("appArmorProfile"))...)
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if value(sc.Privileged) {
			errs = append(errs, field.Invalid(p, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
			errs = append(errs, field.Invalid(p, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
		}
	}
	return errs
}

func appArmor(a *corev1.AppArmorProfile, p *field.Path) (errs field.ErrorList) {
	if a == nil {
		return nil
	}
	at := p.Child("localhostProfile")
	switch local := value(a.LocalhostProfile); a.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		switch {
		case local == "":
			errs = append(errs, field.Required(at, "must be set when AppArmor type is Localhost"))
		case len(local) > 4095:
			errs = append(errs, field.TooLong(at, local, 4095))
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if a.LocalhostProfile != nil {
			errs = append(errs, field.Invalid(at, local, "can only be set when AppArmor type is Localhost"))
		}
	default:
		return oneOf(a.Type, p.Child("type"), corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
	return errs
}
