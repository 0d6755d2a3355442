// Package backend says which pods stand behind a Service and on which ports, for the controllers of EndpointSlices and of Endpoints alike.
//
// Apart from Watcher it is pure. Its invariant is upstream's: a pod is a backend once it has an address and until it is terminal.
package backend

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skiff.dev/skiff/internal/controller/podstate"
)

// Backend is one pod behind a Service.
type Backend struct {
	Pod                         *corev1.Pod
	Ready, Serving, Terminating bool
	Hostname                    string // only where DNS should know it
	Ports                       []Port
}

// Port is a Service's port as this pod serves it.
type Port struct {
	Name     string
	Protocol corev1.Protocol
	Number   int32
	App      *string
}

// Of lists the backends of a Service among pods, which its selector already chose, ordered by pod name.
func Of(service *corev1.Service, pods []*corev1.Pod) []Backend {
	backends := make([]Backend, 0, len(pods))
	for _, p := range pods {
		if p.Status.PodIP == "" || podstate.Terminal(p) {
			continue
		}
		b := Backend{Pod: p, Serving: podstate.Ready(p), Terminating: p.DeletionTimestamp != nil, Ports: ports(service, p)}
		b.Ready = service.Spec.PublishNotReadyAddresses || b.Serving && !b.Terminating
		if p.Spec.Hostname != "" && p.Spec.Subdomain == service.Name {
			b.Hostname = p.Spec.Hostname
		}
		backends = append(backends, b)
	}
	slices.SortFunc(backends, func(a, b Backend) int { return strings.Compare(a.Pod.Name, b.Pod.Name) })
	return backends
}

// ports resolves a Service's target ports against a pod. A named port the pod doesn't have is left out.
func ports(service *corev1.Service, pod *corev1.Pod) []Port {
	var found []Port
	for i := range service.Spec.Ports {
		p := &service.Spec.Ports[i]
		if number, ok := resolve(p, pod); ok {
			found = append(found, Port{Name: p.Name, Protocol: p.Protocol, Number: number, App: p.AppProtocol})
		}
	}
	return found
}

func resolve(p *corev1.ServicePort, pod *corev1.Pod) (int32, bool) {
	if p.TargetPort.Type == intstr.Int {
		if p.TargetPort.IntVal == 0 {
			return p.Port, true
		}
		return p.TargetPort.IntVal, true
	}
	has := func(c *corev1.Container) (int32, bool) {
		for _, cp := range c.Ports {
			if cp.Name == p.TargetPort.StrVal && (cp.Protocol == p.Protocol || cp.Protocol == "") {
				return cp.ContainerPort, true
			}
		}
		return 0, false
	}
	for i := range pod.Spec.Containers {
		if n, ok := has(&pod.Spec.Containers[i]); ok {
			return n, true
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			if n, ok := has(c); ok {
				return n, true
			}
		}
	}
	return 0, false
}

// PortsKey is equal for backends that serve a Service on the same ports.
func (b *Backend) PortsKey() string {
	var key strings.Builder
	for _, p := range b.Ports {
		app := ""
		if p.App != nil {
			app = *p.App
		}
		fmt.Fprintf(&key, "%s/%s/%d/%s;", p.Name, p.Protocol, p.Number, app)
	}
	return key.String()
}

// Addresses are the pod's of one family.
func (b *Backend) Addresses(family corev1.IPFamily) []string {
	var list []string
	add := func(ip string) {
		if ip != "" && (family == corev1.IPv6Protocol) == strings.Contains(ip, ":") && !slices.Contains(list, ip) {
			list = append(list, ip)
		}
	}
	for _, ip := range b.Pod.Status.PodIPs {
		add(ip.IP)
	}
	add(b.Pod.Status.PodIP)
	return list
}

// Families are a Service's, IPv4 unless it says otherwise.
func Families(service *corev1.Service) []corev1.IPFamily {
	if len(service.Spec.IPFamilies) == 0 {
		return []corev1.IPFamily{corev1.IPv4Protocol}
	}
	return service.Spec.IPFamilies
}

// Headless services have no address of their own.
func Headless(service *corev1.Service) bool { return service.Spec.ClusterIP == corev1.ClusterIPNone }

// Triggered is when the newest of the facts behind these backends came to be, which tells how long the network took to follow.
func Triggered(service *corev1.Service, backends []Backend) string {
	at := service.CreationTimestamp.Time
	for i := range backends {
		if c := podstate.Condition(backends[i].Pod, corev1.PodReady); c != nil && c.LastTransitionTime.After(at) {
			at = c.LastTransitionTime.Time
		}
	}
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

// Labels are a Service's labels as its endpoints carry them: without those the controllers set themselves.
func Labels(service *corev1.Service, own map[string]string) map[string]string {
	labels := map[string]string{}
	for k, v := range service.Labels {
		if k != corev1.IsHeadlessService {
			labels[k] = v
		}
	}
	if Headless(service) {
		labels[corev1.IsHeadlessService] = ""
	}
	for k, v := range own {
		labels[k] = v
	}
	return labels
}
