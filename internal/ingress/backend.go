package ingress

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// appProtocolH2C on a Service's port says that its pods speak HTTP/2 without TLS (KEP-3726).
const appProtocolH2C = "kubernetes.io/h2c"

// target is what an Ingress calls a backend.
type target struct {
	service types.NamespacedName
	port    networkingv1.ServiceBackendPort
}

func (t target) String() string {
	if t.port.Name != "" {
		return t.service.String() + ":" + t.port.Name
	}
	return fmt.Sprintf("%s:%d", t.service, t.port.Number)
}

// Backend is one port of a service. Its endpoints take turns.
type Backend struct {
	Name      string
	Endpoints []string // addresses with ports
	Problem   string   // why there are no Endpoints
	H2C       bool

	turn atomic.Uint32
}

// Next is the endpoint whose turn it is. There must be one.
func (b *Backend) Next() string {
	return b.Endpoints[int(b.turn.Add(1)-1)%len(b.Endpoints)]
}

func (b *builder) backend(namespace string, of *networkingv1.IngressBackend) *Backend {
	if of.Service == nil {
		return &Backend{Problem: "its Ingress names a backend that is no Service, which is not supported"}
	}
	t := target{types.NamespacedName{Namespace: namespace, Name: of.Service.Name}, of.Service.Port}
	if known := b.backends[t]; known != nil {
		return known
	}
	out := b.find(t)
	if old := b.before.backends[t]; old != nil {
		out.turn.Store(old.turn.Load())
	}
	b.backends[t] = out
	return out
}

// find looks a backend up. It says what is missing.
func (b *builder) find(t target) *Backend {
	out := &Backend{Name: t.String()}
	s := b.services[t.service]
	if s == nil {
		out.Problem = fmt.Sprintf("there is no service %s", t.service)
		return out
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		out.Problem = fmt.Sprintf("the service %s is of type ExternalName, which is not supported", t.service)
		return out
	}
	i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		return t.port.Name != "" && p.Name == t.port.Name || t.port.Name == "" && p.Port == t.port.Number
	})
	if i < 0 {
		out.Problem = fmt.Sprintf("the service %s has no such port", t)
		return out
	}
	port := s.Spec.Ports[i]
	out.H2C = port.AppProtocol != nil && *port.AppProtocol == appProtocolH2C
	if out.Endpoints = endpoints(b.slices[t.service], port.Name); len(out.Endpoints) == 0 {
		out.Problem = fmt.Sprintf("the service %s has no endpoint that is ready", t)
	}
	return out
}

// endpoints are the ready ones; where there are none, those that are about to end and still serve (KEP-1669).
func endpoints(of []*discoveryv1.EndpointSlice, port string) []string {
	var ready, ending []string
	for _, s := range of {
		if s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for _, p := range s.Ports {
			if p.Port == nil || p.Name == nil && port != "" || p.Name != nil && *p.Name != port {
				continue
			}
			for _, e := range s.Endpoints {
				if len(e.Addresses) == 0 {
					continue
				}
				at := net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port)))
				switch c := e.Conditions; {
				case c.Ready == nil || *c.Ready:
					ready = append(ready, at)
				case isTrue(c.Serving) && isTrue(c.Terminating):
					ending = append(ending, at)
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.Sort(ready)
	return slices.Compact(ready) // an endpoint may be in two slices while it moves
}

func isTrue(b *bool) bool { return b != nil && *b }
