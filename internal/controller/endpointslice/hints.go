package endpointslice

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// hint says for whom each endpoint is, as the Service's trafficDistribution asks: those of its own zone, or of its own node before them. Hints
// are for all endpoints or for none, because who misses one would send everything to those that have it.
func hint(service *corev1.Service, endpoints []discoveryv1.Endpoint) {
	sameNode := false
	switch d := service.Spec.TrafficDistribution; {
	case d == nil:
		return
	case *d == corev1.ServiceTrafficDistributionPreferSameNode:
		sameNode = true
	case *d != corev1.ServiceTrafficDistributionPreferClose && *d != corev1.ServiceTrafficDistributionPreferSameZone:
		return
	}
	zoned := !slices.ContainsFunc(endpoints, func(e discoveryv1.Endpoint) bool { return e.Zone == nil && counts(&e) })
	placed := !slices.ContainsFunc(endpoints, func(e discoveryv1.Endpoint) bool { return e.NodeName == nil && counts(&e) })
	for i := range endpoints {
		e := &endpoints[i]
		if !counts(e) {
			continue
		}
		var h discoveryv1.EndpointHints
		if zoned {
			h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
		}
		if sameNode && placed {
			h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
		}
		if h.ForZones != nil || h.ForNodes != nil {
			e.Hints = &h
		}
	}
}

// counts: endpoints that are not ready get no hint, and need none.
func counts(e *discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }
