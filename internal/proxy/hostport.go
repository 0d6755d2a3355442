package proxy

import (
	"net/netip"
	"slices"
)

// HostPort leads a port of the node to a pod's.
type HostPort struct {
	Protocol  Protocol
	HostIP    netip.Addr // zero: every address of the node; unspecified: every address of that family
	HostPort  uint16
	Container uint16
}

// HostPorts is the part of one pod's host ports. The pod has an address of each family, or of one.
func HostPorts(pod []netip.Addr, ports []HostPort) Part {
	part := Part{Frontends: map[Frontend]Lead{}}
	for _, a := range pod {
		for _, p := range ports {
			if !p.HostIP.IsValid() || p.HostIP.BitLen() == a.BitLen() {
				part.addHostPort(a, p)
			}
		}
	}
	slices.SortFunc(part.Loops, netip.Addr.Compare)
	part.Loops = slices.Compact(part.Loops)
	slices.SortFunc(part.UDP, netip.AddrPort.Compare)
	return part
}

func (part *Part) addHostPort(pod netip.Addr, p HostPort) {
	f := Frontend{Addr: everywhere(pod), Protocol: p.Protocol, Port: p.HostPort}
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		f.Addr = p.HostIP
	}
	to := netip.AddrPortFrom(pod, p.Container)
	part.Frontends[f] = Lead{To: []netip.AddrPort{to}}
	part.Loops = append(part.Loops, pod)
	if p.Protocol == UDP {
		part.UDP = append(part.UDP, to)
	}
}
