// Package downward reads what a pod may learn about itself: fieldRef and resourceFieldRef of environment variables and volumes. Pure.
package downward

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Field returns the value of a field path such as metadata.labels['app'].
func Field(pod *corev1.Pod, path string) (string, error) {
	if base, key, ok := subscript(path); ok {
		switch base {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("fieldPath %q does not support subscript", path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return lines(pod.Labels), nil
	case "metadata.annotations":
		return lines(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return pod.Status.HostIP, nil
	case "status.hostIPs":
		ips := make([]string, len(pod.Status.HostIPs))
		for i := range ips {
			ips[i] = pod.Status.HostIPs[i].IP
		}
		return strings.Join(ips, ","), nil
	case "status.podIP":
		return pod.Status.PodIP, nil
	case "status.podIPs":
		ips := make([]string, len(pod.Status.PodIPs))
		for i := range ips {
			ips[i] = pod.Status.PodIPs[i].IP
		}
		return strings.Join(ips, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (base, key string, ok bool) {
	if !strings.HasSuffix(path, "']") {
		return "", "", false
	}
	base, key, ok = strings.Cut(strings.TrimSuffix(path, "']"), "['")
	return base, key, ok && key != ""
}

// lines shows a map as downward API files do: sorted, one key="value" a line.
func lines(m map[string]string) string {
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(k + "=" + strconv.Quote(m[k]))
	}
	return b.String()
}

// Resource returns a container's request or limit in units of the selector's divisor, rounded up. What a container doesn't limit
// is limited by what the node can allocate.
func Resource(pod *corev1.Pod, container string, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	c := find(pod, container)
	if c == nil {
		return "", fmt.Errorf("container %s not found", container)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	r := corev1.ResourceName(name)
	var q resource.Quantity
	switch kind {
	case "limits":
		q = c.Resources.Limits[r]
		if q.IsZero() {
			q = allocatable[r]
		}
	case "requests":
		q = c.Resources.Requests[r]
		if q.IsZero() {
			q = c.Resources.Limits[r]
		}
	default:
		return "", fmt.Errorf("unsupported container resource: %v", ref.Resource)
	}
	switch {
	case r == corev1.ResourceCPU:
		divisor := int64(1000)
		if !ref.Divisor.IsZero() {
			divisor = ref.Divisor.MilliValue()
		}
		return ceil(q.MilliValue(), divisor), nil
	case r == corev1.ResourceMemory, r == corev1.ResourceEphemeralStorage, strings.HasPrefix(name, corev1.ResourceHugePagesPrefix):
		divisor := int64(1)
		if !ref.Divisor.IsZero() {
			divisor = ref.Divisor.Value()
		}
		return ceil(q.Value(), divisor), nil
	}
	return "", fmt.Errorf("unsupported container resource: %v", ref.Resource)
}

// ceil divides, rounding up. The value may be the largest there is.
func ceil(value, divisor int64) string {
	n := value / divisor
	if value%divisor > 0 {
		n++
	}
	return strconv.FormatInt(n, 10)
}

func find(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
