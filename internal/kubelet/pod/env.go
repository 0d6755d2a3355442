package pod

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/internal/kubelet/downward"
)

// envSources is where variables come from.
type envSources struct {
	configMap   func(name string) (*corev1.ConfigMap, error)
	secret      func(name string) (*corev1.Secret, error)
	folder      func(v *corev1.Volume) string // of a volume on this host
	services    []corev1.Service              // whose addresses the pod is told
	allocatable corev1.ResourceList
}

// env is a container's environment in order: services, envFrom, env; what comes later wins, and may use $(NAME) of what came before.
func env(pod *corev1.Pod, c *corev1.Container, src envSources) ([]*runtimeapi.KeyValue, map[string]string, error) {
	e := environment{values: serviceEnv(src.services)}
	for name := range e.values {
		e.order = append(e.order, name)
	}
	slices.Sort(e.order)
	for i := range c.EnvFrom {
		if err := e.from(&c.EnvFrom[i], src); err != nil {
			return nil, nil, err
		}
	}
	for i := range c.Env {
		v := &c.Env[i]
		if v.ValueFrom == nil {
			e.set(v.Name, Expand(v.Value, e.values))
			continue
		}
		value, ok, err := e.valueFrom(pod, c, v, src)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			e.set(v.Name, value)
		}
	}
	out := make([]*runtimeapi.KeyValue, len(e.order))
	for i, name := range e.order {
		out[i] = &runtimeapi.KeyValue{Key: name, Value: []byte(e.values[name])}
	}
	return out, e.values, nil
}

type environment struct {
	values map[string]string
	order  []string
}

func (e *environment) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.order = append(e.order, name)
	}
	e.values[name] = value
}

func (e *environment) from(f *corev1.EnvFromSource, src envSources) error {
	switch {
	case f.ConfigMapRef != nil:
		cm, err := src.configMap(f.ConfigMapRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && f.ConfigMapRef.Optional != nil && *f.ConfigMapRef.Optional {
				return nil
			}
			return err
		}
		for _, k := range sortedKeys(cm.Data) {
			e.setKey(f.Prefix+k, cm.Data[k])
		}
	case f.SecretRef != nil:
		s, err := src.secret(f.SecretRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && f.SecretRef.Optional != nil && *f.SecretRef.Optional {
				return nil
			}
			return err
		}
		for _, k := range sortedKeys(s.Data) {
			e.setKey(f.Prefix+k, string(s.Data[k]))
		}
	}
	return nil
}

// setKey leaves out what cannot be a variable's name.
func (e *environment) setKey(name, value string) {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		return
	}
	e.set(name, value)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (e *environment) valueFrom(pod *corev1.Pod, c *corev1.Container, v *corev1.EnvVar, src envSources) (string, bool, error) {
	switch f := v.ValueFrom; {
	case f.FieldRef != nil:
		text, err := downward.Field(pod, f.FieldRef.FieldPath)
		return text, true, err
	case f.ResourceFieldRef != nil:
		name := f.ResourceFieldRef.ContainerName
		if name == "" {
			name = c.Name
		}
		text, err := downward.Resource(pod, name, f.ResourceFieldRef, src.allocatable)
		return text, true, err
	case f.ConfigMapKeyRef != nil:
		optional := f.ConfigMapKeyRef.Optional != nil && *f.ConfigMapKeyRef.Optional
		cm, err := src.configMap(f.ConfigMapKeyRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional {
				return "", false, nil
			}
			return "", false, err
		}
		text, ok := cm.Data[f.ConfigMapKeyRef.Key]
		if !ok && !optional {
			return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", f.ConfigMapKeyRef.Key, pod.Namespace, f.ConfigMapKeyRef.Name)
		}
		return text, ok, nil
	case f.SecretKeyRef != nil:
		optional := f.SecretKeyRef.Optional != nil && *f.SecretKeyRef.Optional
		s, err := src.secret(f.SecretKeyRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional {
				return "", false, nil
			}
			return "", false, err
		}
		data, ok := s.Data[f.SecretKeyRef.Key]
		if !ok && !optional {
			return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", f.SecretKeyRef.Key, pod.Namespace, f.SecretKeyRef.Name)
		}
		return string(data), ok, nil
	case f.FileKeyRef != nil:
		of := volumeNamed(pod, f.FileKeyRef.VolumeName)
		if of == nil {
			return "", false, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", f.FileKeyRef.VolumeName)
		}
		return fromFile(src.folder(of), f.FileKeyRef)
	}
	return "", false, nil
}

// Expand replaces $(NAME) by values; $$ stands for $, and what isn't known stays as it is.
func Expand(text string, values map[string]string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		switch text[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(text[i+2:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			name := text[i+2 : i+2+end]
			if value, ok := values[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += 2 + end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// serviceEnv are the variables that name services' addresses, in the forms of Kubernetes and of Docker's links.
func serviceEnv(services []corev1.Service) map[string]string {
	out := map[string]string{}
	for i := range services {
		s := &services[i]
		ip := s.Spec.ClusterIP
		if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
		first := &s.Spec.Ports[0]
		out[prefix+"_SERVICE_HOST"] = ip
		out[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(first.Port))
		for j := range s.Spec.Ports {
			p := &s.Spec.Ports[j]
			number, protocol := strconv.Itoa(int(p.Port)), string(p.Protocol)
			if protocol == "" {
				protocol = string(corev1.ProtocolTCP)
			}
			url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, number)
			if p.Name != "" {
				out[prefix+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = number
			}
			if j == 0 {
				out[prefix+"_PORT"] = url
			}
			link := prefix + "_PORT_" + number + "_" + strings.ToUpper(protocol)
			out[link] = url
			out[link+"_PROTO"] = strings.ToLower(protocol)
			out[link+"_PORT"] = number
			out[link+"_ADDR"] = ip
		}
	}
	return out
}
