package proxy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is a backend of one service port.
type endpoint struct {
	at         netip.AddrPort
	local      bool // on this node
	ready      bool
	lastResort bool // shutting down, but still answering
	ending     bool // shutting down
	nodes      reach
	zones      reach
}

// reach is what an endpoint's hints say of a node, or of its zone.
type reach uint8

const (
	unsaid reach = iota // there is no hint
	others              // it is meant for others
	ours
)

func reached[T any](hints []T, match func(T) bool) reach {
	switch {
	case len(hints) == 0:
		return unsaid
	case slices.ContainsFunc(hints, match):
		return ours
	}
	return others
}

// endpointsOf collects a service port's endpoints of a family from all slices, sorted, each once: while an endpoint moves between slices it
// may be in two.
func endpointsOf(spec *corev1.ServicePort, eps []*discoveryv1.EndpointSlice, node Node, like netip.Addr) []endpoint {
	found := map[netip.AddrPort]endpoint{}
	for _, s := range eps {
		if s.AddressType != discoveryv1.AddressTypeIPv4 && s.AddressType != discoveryv1.AddressTypeIPv6 {
			continue
		}
		number, ok := portOf(spec, s)
		if !ok {
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			a, err := netip.ParseAddr(e.Addresses[0]) // further addresses of one endpoint have no meaning
			if err != nil || a.BitLen() != like.BitLen() {
				continue
			}
			one := endpoint{at: netip.AddrPortFrom(a, number), local: e.NodeName != nil && *e.NodeName == node.Name}
			one.ready, one.lastResort = conditions(&e.Conditions)
			one.ending = e.Conditions.Terminating != nil && *e.Conditions.Terminating
			if h := e.Hints; h != nil {
				one.nodes = reached(h.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == node.Name })
				one.zones = reached(h.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == node.Zone && node.Zone != "" })
			}
			if other, twice := found[one.at]; !twice || one.ready && !other.ready {
				found[one.at] = one
			}
		}
	}
	out := make([]endpoint, 0, len(found))
	for _, e := range found {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return a.at.Compare(b.at) })
	return out
}

func portOf(spec *corev1.ServicePort, s *discoveryv1.EndpointSlice) (uint16, bool) {
	for _, p := range s.Ports {
		name, protocol := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if p.Port != nil && name == spec.Name && protocolOf(protocol) == protocolOf(spec.Protocol) {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

func conditions(c *discoveryv1.EndpointConditions) (ready, lastResort bool) {
	ready = c.Ready == nil || *c.Ready
	serving := ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	return ready, serving && c.Terminating != nil && *c.Terminating
}

// usable are the endpoints that packets go to: the ready ones, or, when there is none, those that still answer while they shut down.
func usable(eps []endpoint) []endpoint {
	var ready, last []endpoint
	for _, e := range eps {
		if e.ready {
			ready = append(ready, e)
		} else if e.lastResort {
			last = append(last, e)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return last
}

// near are the endpoints meant for this node, else those meant for its zone, else all. Hints that some endpoints lack are not followed: they
// are on their way in or out.
func near(eps []endpoint) []endpoint {
	for _, of := range []func(endpoint) reach{
		func(e endpoint) reach { return e.nodes },
		func(e endpoint) reach { return e.zones },
	} {
		if slices.ContainsFunc(eps, func(e endpoint) bool { return of(e) == unsaid }) {
			continue
		}
		if mine := slices.DeleteFunc(slices.Clone(eps), func(e endpoint) bool { return of(e) != ours }); len(mine) > 0 {
			return mine
		}
	}
	return eps
}
