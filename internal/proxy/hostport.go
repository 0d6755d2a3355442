package proxy

import (
	"fmt"
	"net/netip"
	"slices"
)

// HostPort leads a port of the node to a pod's.
type HostPort struct {
	Protocol  Protocol
	HostIP    netip.Addr // zero or unspecified: every address of the node
	HostPort  uint16
	Container uint16
}

// HostPorts is the part of one pod's host ports.
func HostPorts(id string, pod netip.Addr, ports []HostPort) Part {
	part := Part{Frontends: map[Frontend]string{}, Chains: map[string][]Rule{}}
	for _, p := range ports {
		f := Frontend{Protocol: p.Protocol, Port: p.HostPort}
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			f.Addr = p.HostIP
		}
		chain := fmt.Sprintf("host/%s/%s/%d", id, p.Protocol, p.HostPort)
		if f.Addr.IsValid() {
			chain += "/" + f.Addr.String()
		}
		to := netip.AddrPortFrom(pod, p.Container)
		part.Frontends[f] = chain
		part.Chains[chain] = []Rule{{To: []netip.AddrPort{to}}}
		part.Loops = []netip.Addr{pod}
		if p.Protocol == UDP {
			part.UDP = append(part.UDP, to)
		}
	}
	slices.SortFunc(part.UDP, netip.AddrPort.Compare)
	return part
}
