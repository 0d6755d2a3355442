package endpoints

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/controller/backend"
)

// capacity is how many addresses an Endpoints object holds at most.
const capacity = 1000

// subsets packs backends by the ports they serve: one subset a distinct set of ports, addresses and ports in order. Pods that terminate are
// in none, unless the Service publishes pods that are not ready. truncated says that some didn't fit; ready ones go first.
func subsets(service *corev1.Service, backends []backend.Backend) (list []corev1.EndpointSubset, truncated bool) {
	family := backend.Families(service)[0]
	at := map[string]int{}
	left := capacity
	for _, ready := range []bool{true, false} {
		for i := range backends {
			b := &backends[i]
			addresses := b.Addresses(family)
			if b.Ready != ready || b.Terminating && !service.Spec.PublishNotReadyAddresses || len(addresses) == 0 || len(b.Ports) == 0 &&
				len(service.Spec.Ports) > 0 {
				continue
			}
			if left == 0 {
				truncated = true
				continue
			}
			left--
			n, known := at[b.PortsKey()]
			if !known {
				n = len(list)
				at[b.PortsKey()] = n
				list = append(list, corev1.EndpointSubset{Ports: endpointPorts(b.Ports)})
			}
			if ready {
				list[n].Addresses = append(list[n].Addresses, address(b, addresses[0]))
			} else {
				list[n].NotReadyAddresses = append(list[n].NotReadyAddresses, address(b, addresses[0]))
			}
		}
	}
	for i := range list {
		slices.SortFunc(list[i].Addresses, byAddress)
		slices.SortFunc(list[i].NotReadyAddresses, byAddress)
	}
	slices.SortFunc(list, func(a, b corev1.EndpointSubset) int {
		return slices.CompareFunc(a.Ports, b.Ports, byPort)
	})
	return list, truncated
}

func address(b *backend.Backend, ip string) corev1.EndpointAddress {
	a := corev1.EndpointAddress{
		IP: ip, Hostname: b.Hostname,
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: b.Pod.Namespace, Name: b.Pod.Name, UID: b.Pod.UID},
	}
	if name := b.Pod.Spec.NodeName; name != "" {
		a.NodeName = &name
	}
	return a
}

func endpointPorts(ports []backend.Port) []corev1.EndpointPort {
	var list []corev1.EndpointPort
	for _, p := range ports {
		list = append(list, corev1.EndpointPort{Name: p.Name, Port: p.Number, Protocol: p.Protocol, AppProtocol: p.App})
	}
	slices.SortFunc(list, byPort)
	return list
}

func byAddress(a, b corev1.EndpointAddress) int {
	return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(a.TargetRef.UID, b.TargetRef.UID))
}

func byPort(a, b corev1.EndpointPort) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
}
