package api

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What a container's environment, or a file of the downward API, is taken from.

var (
	volumeFieldPaths = sets.New("metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid")
	envFieldPaths    = sets.New("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
	// knownFieldPaths have a meaning somewhere in the downward API, if not where they are used.
	knownFieldPaths = volumeFieldPaths.Union(envFieldPaths).Insert("spec.restartPolicy", "spec.schedulerName", "status.phase", "spec.host")
	// containerAmounts are what a container may learn of itself.
	containerAmounts = sets.New("limits.cpu", "limits.memory", "limits.ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage")
)

// divisors that an amount may be told in, by what it is an amount of.
var divisors = map[string]struct {
	allowed sets.Set[string]
	text    string
}{
	"cpu":               {sets.New("1m", "1"), "only divisor's values 1m and 1 are supported with the cpu resource"},
	"memory":            {byteDivisors, byteDivisorsText + "memory resource"},
	"ephemeral-storage": {byteDivisors, byteDivisorsText + "local ephemeral storage resource"},
	"hugepages":         {byteDivisors, byteDivisorsText + "hugepages resource"},
}

const byteDivisorsText = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the "

var byteDivisors = sets.New("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")

func envVar(e *corev1.EnvVar, volumes volumesByName, p *field.Path) (errs field.ErrorList) {
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
		errs = append(errs, fieldRef(from.FieldRef, envFieldPaths, p.Child("fieldRef"))...)
	}
	if from.ResourceFieldRef != nil {
		set++
		errs = append(errs, resourceFieldRef(from.ResourceFieldRef, p.Child("resourceFieldRef"))...)
	}
	if from.ConfigMapKeyRef != nil {
		set++
		errs = append(errs, refKey(from.ConfigMapKeyRef.Key, p.Child("configMapKeyRef", "key"))...)
	}
	if from.SecretKeyRef != nil {
		set++
		errs = append(errs, refKey(from.SecretKeyRef.Key, p.Child("secretKeyRef", "key"))...)
	}
	if from.FileKeyRef != nil {
		set++
		errs = append(errs, fileKeyRef(from.FileKeyRef, volumes, p.Child("fileKeyRef"))...)
	}
	if set != 1 {
		errs = append(errs, field.Invalid(p, "", "must specify exactly one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	}
	return errs
}

func envFrom(e *corev1.EnvFromSource, p *field.Path) (errs field.ErrorList) {
	if e.Prefix != "" {
		errs = append(errs, each(p.Child("prefix"), e.Prefix, validation.IsRelaxedEnvVarName(e.Prefix))...)
	}
	switch {
	case e.ConfigMapRef == nil && e.SecretRef == nil:
		return append(errs, field.Invalid(p, "", "must specify one of: `configMapRef` or `secretRef`"))
	case e.ConfigMapRef != nil && e.SecretRef != nil:
		errs = append(errs, field.Invalid(p, "", "may not have more than one field specified at a time"))
	}
	if e.ConfigMapRef != nil {
		errs = append(errs, required(e.ConfigMapRef.Name, p.Child("configMapRef", "name"))...)
	}
	if e.SecretRef != nil {
		errs = append(errs, required(e.SecretRef.Name, p.Child("secretRef", "name"))...)
	}
	return errs
}

func refKey(key string, p *field.Path) field.ErrorList {
	if key == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	return dataKey(key, p)
}

func fileKeyRef(f *corev1.FileKeySelector, volumes volumesByName, p *field.Path) field.ErrorList {
	errs := required(f.Key, p.Child("key"))
	if f.Key != "" {
		errs = append(errs, each(p.Child("key"), f.Key, validation.IsRelaxedEnvVarName(f.Key))...)
	}
	errs = append(errs, required(f.VolumeName, p.Child("volumeName"))...)
	if source, found := volumes[f.VolumeName]; f.VolumeName != "" && (!found || source.EmptyDir == nil) {
		errs = append(errs, field.NotFound(p.Child("volumeName"), f.VolumeName))
	}
	return append(errs, relativePath(f.Path, p.Child("path"))...)
}

// fieldRef checks a reference to a field of the pod itself: metadata.name, or metadata.labels['key'].
func fieldRef(f *corev1.ObjectFieldSelector, allowed sets.Set[string], p *field.Path) field.ErrorList {
	if f.APIVersion == "v1" && allowed.Has(f.FieldPath) {
		return nil
	}
	at := p.Child("fieldPath")
	switch {
	case f.APIVersion == "":
		return field.ErrorList{field.Required(p.Child("apiVersion"), "")}
	case f.FieldPath == "":
		return field.ErrorList{field.Required(at, "")}
	case f.APIVersion != "v1":
		return field.ErrorList{field.Invalid(at, f.FieldPath, "error converting fieldPath: unsupported pod version: "+f.APIVersion)}
	}
	if path, key, found := subscript(f.FieldPath); found {
		return subscripted(f.FieldPath, path, key, p)
	}
	switch {
	case !knownFieldPaths.Has(f.FieldPath):
		return field.ErrorList{field.Invalid(at, f.FieldPath, "error converting fieldPath: field label not supported: "+f.FieldPath)}
	case !allowed.Has(f.FieldPath):
		return field.ErrorList{field.NotSupported(at, f.FieldPath, sets.List(allowed))}
	}
	return nil
}

// subscript splits metadata.labels['key'] into its parts.
func subscript(s string) (path, key string, found bool) {
	path, key, found = strings.Cut(strings.TrimSuffix(s, "']"), "['")
	return path, key, found && strings.HasSuffix(s, "']")
}

func subscripted(whole, path, key string, p *field.Path) field.ErrorList {
	switch path {
	case "metadata.annotations":
		return each(p, key, validation.IsQualifiedName(strings.ToLower(key)))
	case "metadata.labels":
		return each(p, key, validation.IsQualifiedName(key))
	}
	return field.ErrorList{field.Invalid(p.Child("fieldPath"), whole, "error converting fieldPath: field label does not support subscript: "+whole)}
}

func resourceFieldRef(f *corev1.ResourceFieldSelector, p *field.Path) field.ErrorList {
	_, kind, _ := strings.Cut(f.Resource, ".")
	switch {
	case f.Resource == "":
		return field.ErrorList{field.Required(p.Child("resource"), "")}
	case strings.HasPrefix(f.Resource, "limits.hugepages-"), strings.HasPrefix(f.Resource, "requests.hugepages-"):
		kind = "hugepages"
	case !containerAmounts.Has(f.Resource):
		return field.ErrorList{field.NotSupported(p.Child("resource"), f.Resource, sets.List(containerAmounts))}
	}
	if d := divisors[kind]; f.Divisor.Cmp(resource.Quantity{}) != 0 && !d.allowed.Has(f.Divisor.String()) {
		return field.ErrorList{field.Invalid(p.Child("divisor"), f.Resource, d.text)}
	}
	return nil
}
