package proxy

import (
	"fmt"
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
func HostPorts(id string, pod []netip.Addr, ports []HostPort) Part {
	part := Part{Frontends: map[Frontend]string{}, Chains: map[string][]Rule{}}
	for _, a := range pod {
		for _, p := range ports {
			if !p.HostIP.IsValid() || p.HostIP.BitLen() == a.BitLen() {
				part.addHostPort(id, a, p)
			}
		}
	}
	slices.SortFunc(part.Loops, netip.Addr.Compare)
	part.Loops = slices.Compact(part.Loops)
	slices.SortFunc(part.UDP, netip.AddrPort.Compare)
	return part
}

func (part *Part) addHostPort(id string, pod netip.Addr, p HostPort) {
	f := Frontend{Addr: everywhere(pod), Protocol: p.Protocol, Port: p.HostPort}
	chain := fmt.Sprintf("%s/%s/%s/%d", kind("host", pod), id, p.Protocol, p.HostPort)
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		f.Addr = p.HostIP
		chain += "/" + f.Addr.String()
	}
	to := netip.AddrPortFrom(pod, p.Container)
	part.Frontends[f] = chain
	part.Chains[chain] = []Rule{{To: []netip.AddrPort{to}}}
	part.Loops = append(part.Loops, pod)
	if p.Protocol == UDP {
		part.UDP = append(part.UDP, to)
	}
}

// kind begins the name of a chain that leads to addresses of a family.
func kind(name string, like netip.Addr) string {
	if like.Is4() {
		return name
	}
	return name + "6"
}
