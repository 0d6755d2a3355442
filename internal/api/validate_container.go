package api

import (
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateVolumes also returns the names of those that are good to mount.
func validateVolumes(list []corev1.Volume, p *field.Path) (names map[string]bool, errs field.ErrorList) {
	names = make(map[string]bool, len(list))
	for i := range list {
		v, at := &list[i], p.Index(i)
		switch {
		case v.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case names[v.Name]:
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		default:
			errs = append(errs, dnsLabel(v.Name, at.Child("name"))...)
		}
		names[v.Name] = true
		errs = append(errs, validateVolume(v, at)...)
	}
	return names, errs
}

func validateVolume(v *corev1.Volume, p *field.Path) (errs field.ErrorList) {
	switch sources := volumeSources(v.VolumeSource); {
	case len(sources) == 0:
		return field.ErrorList{field.Required(p, "must specify a volume type")}
	case len(sources) > 1:
		for _, name := range sources[1:] {
			errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 volume type"))
		}
		return errs
	}
	switch {
	case v.HostPath != nil:
		errs = append(errs, required(v.HostPath.Path, p.Child("hostPath", "path"))...)
		errs = append(errs, noParent(v.HostPath.Path, p.Child("hostPath", "path"))...)
	case v.ConfigMap != nil:
		errs = append(errs, required(v.ConfigMap.Name, p.Child("configMap", "name"))...)
		errs = append(errs, keyPaths(v.ConfigMap.Items, v.ConfigMap.DefaultMode, p.Child("configMap"))...)
	case v.Secret != nil:
		errs = append(errs, required(v.Secret.SecretName, p.Child("secret", "secretName"))...)
		errs = append(errs, keyPaths(v.Secret.Items, v.Secret.DefaultMode, p.Child("secret"))...)
	case v.PersistentVolumeClaim != nil:
		errs = append(errs, required(v.PersistentVolumeClaim.ClaimName, p.Child("persistentVolumeClaim", "claimName"))...)
	case v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && v.EmptyDir.SizeLimit.Sign() < 0:
		errs = append(errs, field.Forbidden(p.Child("emptyDir", "sizeLimit"), "SizeLimit field must be a valid resource quantity"))
	case v.Projected != nil:
		errs = append(errs, fileMode(v.Projected.DefaultMode, p.Child("projected", "defaultMode"))...)
		for i := range v.Projected.Sources {
			s, at := &v.Projected.Sources[i], p.Child("projected", "sources").Index(i)
			if t := s.ServiceAccountToken; t != nil {
				errs = append(errs, relativePath(t.Path, at.Child("serviceAccountToken", "path"))...)
				if n := value(t.ExpirationSeconds); n < 600 {
					errs = append(errs, field.Invalid(at.Child("serviceAccountToken", "expirationSeconds"), n, "may not specify a duration less than 10 minutes"))
				}
			}
			if s.ConfigMap != nil {
				errs = append(errs, keyPaths(s.ConfigMap.Items, nil, at.Child("configMap"))...)
			}
			if s.Secret != nil {
				errs = append(errs, keyPaths(s.Secret.Items, nil, at.Child("secret"))...)
			}
		}
	}
	return errs
}

// volumeSources names what a volume is made of, an emptyDir first: that is what a volume of nothing becomes.
func volumeSources(source any) (names []string) {
	for f, v := range reflect.ValueOf(source).Fields() {
		if v.Kind() != reflect.Pointer || v.IsNil() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "emptyDir" {
			names = slices.Insert(names, 0, name)
		} else {
			names = append(names, name)
		}
	}
	return names
}

func keyPaths(items []corev1.KeyToPath, mode *int32, p *field.Path) (errs field.ErrorList) {
	errs = append(errs, fileMode(mode, p.Child("defaultMode"))...)
	for i, item := range items {
		at := p.Child("items").Index(i)
		errs = append(errs, required(item.Key, at.Child("key"))...)
		errs = append(errs, relativePath(item.Path, at.Child("path"))...)
		errs = append(errs, fileMode(item.Mode, at.Child("mode"))...)
	}
	return errs
}

func fileMode(m *int32, p *field.Path) field.ErrorList {
	if m != nil && (*m < 0 || *m > 0o777) {
		return field.ErrorList{field.Invalid(p, *m, "must be a number between 0 and 0777 (octal), both inclusive")}
	}
	return nil
}

func relativePath(s string, p *field.Path) (errs field.ErrorList) {
	errs = append(errs, required(s, p)...)
	if path.IsAbs(s) {
		errs = append(errs, field.Invalid(p, s, "must be a relative path"))
	}
	return append(errs, noParent(s, p)...)
}

func noParent(s string, p *field.Path) field.ErrorList {
	if slices.Contains(strings.Split(s, "/"), "..") {
		return field.ErrorList{field.Invalid(p, s, "must not contain '..'")}
	}
	return nil
}

func validateContainer(c *corev1.Container, volumes map[string]bool, p *field.Path) (errs field.ErrorList) {
	if c.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	} else {
		errs = append(errs, dnsLabel(c.Name, p.Child("name"))...)
	}
	errs = append(errs, required(c.Image, p.Child("image"))...)
	if c.Image != "" && strings.TrimSpace(c.Image) != c.Image {
		errs = append(errs, field.Invalid(p.Child("image"), c.Image, "must not have leading or trailing whitespace"))
	}
	errs = append(errs, oneOf(c.ImagePullPolicy, p.Child("imagePullPolicy"), corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	names := map[string]bool{}
	for i, cp := range c.Ports {
		at := p.Child("ports").Index(i)
		if cp.Name != "" {
			errs = append(errs, each(at.Child("name"), cp.Name, validation.IsValidPortName(cp.Name))...)
			if names[cp.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), cp.Name))
			}
			names[cp.Name] = true
		}
		if cp.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, port(cp.ContainerPort, at.Child("containerPort"))...)
		}
		if cp.HostPort != 0 {
			errs = append(errs, port(cp.HostPort, at.Child("hostPort"))...)
		}
		errs = append(errs, protocol(cp.Protocol, at.Child("protocol"))...)
	}
	for i := range c.Env {
		errs = append(errs, envVar(&c.Env[i], p.Child("env").Index(i))...)
	}
	for i, e := range c.EnvFrom {
		at := p.Child("envFrom").Index(i)
		switch {
		case e.ConfigMapRef == nil && e.SecretRef == nil:
			errs = append(errs, field.Invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"))
		case e.ConfigMapRef != nil && e.SecretRef != nil:
			errs = append(errs, field.Invalid(at, "", "may not have more than one field specified at a time"))
		}
	}
	errs = append(errs, mounts(c, volumes, p.Child("volumeMounts"))...)
	errs = append(errs, resources(&c.Resources, p.Child("resources"))...)
	for name, probe := range map[string]*corev1.Probe{"livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe, "startupProbe": c.StartupProbe} {
		errs = append(errs, validateProbe(probe, p.Child(name), name == "readinessProbe")...)
	}
	if l := c.Lifecycle; l != nil {
		for name, h := range map[string]*corev1.LifecycleHandler{"postStart": l.PostStart, "preStop": l.PreStop} {
			if h != nil {
				errs = append(errs, handler(h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep, p.Child("lifecycle", name))...)
			}
		}
	}
	if sc := c.SecurityContext; sc != nil {
		at := p.Child("securityContext")
		if sc.RunAsUser != nil && *sc.RunAsUser < 0 {
			errs = append(errs, field.Invalid(at.Child("runAsUser"), *sc.RunAsUser, "must be between 0 and 2147483647, inclusive"))
		}
		if value(sc.Privileged) && sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
			errs = append(errs, field.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
	}
	return errs
}

func envVar(e *corev1.EnvVar, p *field.Path) (errs field.ErrorList) {
	if e.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	} else {
		errs = append(errs, each(p.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))...)
	}
	from := e.ValueFrom
	if from == nil {
		return errs
	}
	p = p.Child("valueFrom")
	if e.Value != "" {
		errs = append(errs, field.Invalid(p, "", "may not be specified when `value` is not empty"))
	}
	set := 0
	if from.FieldRef != nil {
		set++
		errs = append(errs, required(from.FieldRef.FieldPath, p.Child("fieldRef", "fieldPath"))...)
	}
	if from.ResourceFieldRef != nil {
		set++
		errs = append(errs, required(from.ResourceFieldRef.Resource, p.Child("resourceFieldRef", "resource"))...)
	}
	if from.ConfigMapKeyRef != nil {
		set++
		errs = append(errs, required(from.ConfigMapKeyRef.Key, p.Child("configMapKeyRef", "key"))...)
	}
	if from.SecretKeyRef != nil {
		set++
		errs = append(errs, required(from.SecretKeyRef.Key, p.Child("secretKeyRef", "key"))...)
	}
	if from.FileKeyRef != nil {
		set++
	}
	if set != 1 {
		errs = append(errs, field.Invalid(p, "", "must specify exactly one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	}
	return errs
}

func mounts(c *corev1.Container, volumes map[string]bool, p *field.Path) (errs field.ErrorList) {
	taken := map[string]bool{}
	for i, m := range c.VolumeMounts {
		at := p.Index(i)
		switch {
		case m.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case !volumes[m.Name]:
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		errs = append(errs, required(m.MountPath, at.Child("mountPath"))...)
		if taken[m.MountPath] {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		taken[m.MountPath] = true
		if m.SubPath != "" && m.SubPathExpr != "" {
			errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
		}
		for name, s := range map[string]string{"subPath": m.SubPath, "subPathExpr": m.SubPathExpr} {
			if s != "" {
				errs = append(errs, relativePath(s, at.Child(name))...)
			}
		}
	}
	return errs
}

func resources(r *corev1.ResourceRequirements, p *field.Path) (errs field.ErrorList) {
	for name, q := range r.Limits {
		errs = append(errs, quantity(name, q, p.Child("limits").Key(string(name)))...)
	}
	for name, q := range r.Requests {
		at := p.Child("requests").Key(string(name))
		errs = append(errs, quantity(name, q, at)...)
		limit, limited := r.Limits[name]
		extended := strings.Contains(string(name), "/") || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
		switch {
		case extended && !limited:
			errs = append(errs, field.Required(p.Child("limits"), "Limit must be set for non overcommitable resources"))
		case extended && q.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(p.Child("requests"), q.String(), "must be equal to "+string(name)+" limit of "+limit.String()))
		case limited && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(p.Child("requests"), q.String(), "must be less than or equal to "+string(name)+" limit of "+limit.String()))
		}
	}
	return errs
}

func validateProbe(pr *corev1.Probe, p *field.Path, readiness bool) (errs field.ErrorList) {
	if pr == nil {
		return nil
	}
	errs = handler(pr.Exec, pr.HTTPGet, pr.TCPSocket, pr.GRPC, nil, p)
	for name, n := range map[string]int32{
		"initialDelaySeconds": pr.InitialDelaySeconds, "timeoutSeconds": pr.TimeoutSeconds, "periodSeconds": pr.PeriodSeconds,
		"successThreshold": pr.SuccessThreshold, "failureThreshold": pr.FailureThreshold,
	} {
		errs = append(errs, nonNegative(int64(n), p.Child(name))...)
	}
	if !readiness && pr.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(p.Child("successThreshold"), pr.SuccessThreshold, "must be 1"))
	}
	return errs
}

// handler checks that a probe or hook does exactly one thing, and that thing.
func handler(exec *corev1.ExecAction, get *corev1.HTTPGetAction, tcp *corev1.TCPSocketAction, grpc *corev1.GRPCAction, sleep *corev1.SleepAction, p *field.Path) (errs field.ErrorList) {
	set := []string{}
	if exec != nil {
		set = append(set, "exec")
		if len(exec.Command) == 0 {
			errs = append(errs, field.Required(p.Child("exec", "command"), ""))
		}
	}
	if get != nil {
		set = append(set, "httpGet")
		errs = append(errs, required(get.Path, p.Child("httpGet", "path"))...)
		errs = append(errs, portOrName(get.Port, p.Child("httpGet", "port"))...)
		errs = append(errs, oneOf(get.Scheme, p.Child("httpGet", "scheme"), corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	}
	if tcp != nil {
		set = append(set, "tcpSocket")
		errs = append(errs, portOrName(tcp.Port, p.Child("tcpSocket", "port"))...)
	}
	if grpc != nil {
		set = append(set, "grpc")
		errs = append(errs, port(grpc.Port, p.Child("grpc", "port"))...)
	}
	if sleep != nil {
		set = append(set, "sleep")
		if sleep.Seconds < 0 {
			errs = append(errs, field.Invalid(p.Child("sleep", "seconds"), sleep.Seconds, "must be non-negative"))
		}
	}
	if len(set) == 0 {
		return append(errs, field.Required(p, "must specify a handler type"))
	}
	for _, name := range set[1:] {
		errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 handler type"))
	}
	return errs
}
