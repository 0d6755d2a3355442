package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Node is what a decision needs to know of this node.
type Node struct {
	Name string
	Zone string
	Pods netip.Prefix // the addresses of all pods of the cluster
}

// labelProxyName on a service says that somebody else carries its packets.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// Service is the part of one service: what leads to it, and where that leads, given all its EndpointSlices.
func Service(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, node Node) Part {
	part := Part{Frontends: map[Frontend]string{}, Chains: map[string][]Rule{}}
	if !proxied(svc) {
		return part
	}
	seen, serving := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for i := range svc.Spec.Ports {
		p := newPort(svc, &svc.Spec.Ports[i], eps, node)
		p.addTo(&part)
		for _, e := range slices.Concat(p.all, p.local) {
			if e.local && !seen[e.at.Addr()] {
				seen[e.at.Addr()] = true
				part.Loops = append(part.Loops, e.at.Addr())
			}
			if e.local && !e.ending && !serving[e.at.Addr()] {
				serving[e.at.Addr()] = true
				part.Serving = append(part.Serving, e.at.Addr())
			}
			if p.protocol == UDP {
				part.UDP = append(part.UDP, e.at)
			}
		}
	}
	if n := svc.Spec.HealthCheckNodePort; n != 0 {
		part.Health = &Health{Namespace: svc.Namespace, Name: svc.Name, Port: uint16(n), Local: len(serving)}
	}
	slices.SortFunc(part.Loops, netip.Addr.Compare)
	slices.SortFunc(part.Serving, netip.Addr.Compare)
	slices.SortFunc(part.UDP, netip.AddrPort.Compare)
	part.UDP = slices.Compact(part.UDP)
	return part
}

func proxied(svc *corev1.Service) bool {
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return false
	}
	_, elsewhere := svc.Labels[labelProxyName]
	return !elsewhere
}

// port is one port of a service while its part is made.
type port struct {
	svc        *corev1.Service
	spec       *corev1.ServicePort
	node       Node
	protocol   Protocol
	name       string     // the tail of its chains' names
	all, local []endpoint // that packets may go to
}

func newPort(svc *corev1.Service, spec *corev1.ServicePort, eps []*discoveryv1.EndpointSlice, node Node) *port {
	p := &port{svc: svc, spec: spec, node: node, protocol: protocolOf(spec.Protocol)}
	p.name = fmt.Sprintf("%s/%s/%s/%d", svc.Namespace, svc.Name, p.protocol, spec.Port)
	found := endpointsOf(spec, eps, node)
	p.all = near(usable(found))
	p.local = usable(slices.DeleteFunc(slices.Clone(found), func(e endpoint) bool { return !e.local }))
	return p
}

func protocolOf(p corev1.Protocol) Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return UDP
	case corev1.ProtocolSCTP:
		return SCTP
	}
	return TCP
}

func (p *port) addTo(part *Part) {
	clusterChain, localChain, external := "svc/"+p.name, "local/"+p.name, "ext/"+p.name
	internalLocal := p.svc.Spec.InternalTrafficPolicy != nil && *p.svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	externalLocal := p.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal

	internal := clusterChain
	if internalLocal {
		internal = localChain
	}
	clusterIPs, outside := p.frontends(), p.externalFrontends()
	if len(p.all) == 0 {
		for _, f := range slices.Concat(clusterIPs, outside) {
			part.Frontends[f] = Reject
		}
		for _, f := range p.loadBalancers() {
			part.Frontends[f] = Reject
		}
		return
	}
	for _, f := range clusterIPs {
		part.Frontends[f] = orDrop(internal, localChain, p.local)
	}
	part.Chains[clusterChain] = []Rule{p.balance(p.all)}
	balancers := p.loadBalancers()
	anyExternal := len(outside)+len(balancers) > 0
	if len(p.local) > 0 && (internalLocal || externalLocal && anyExternal) {
		part.Chains[localChain] = []Rule{p.balance(p.local)}
	}
	if !anyExternal {
		if internalLocal {
			delete(part.Chains, clusterChain)
		}
		return
	}
	for _, f := range outside {
		part.Frontends[f] = external
	}
	part.Chains[external] = []Rule{{Masquerade: true, Goto: clusterChain}}
	if externalLocal {
		// Pods and the node itself are not outside: they reach every endpoint, as they would through the cluster address.
		part.Chains[external] = []Rule{
			{From: p.node.Pods, Goto: clusterChain},
			{FromHost: true, Masquerade: true, Goto: clusterChain},
			{Goto: orDrop(localChain, localChain, p.local)},
		}
	}
	target := external
	if ranges := p.sourceRanges(); len(balancers) > 0 && len(ranges) > 0 {
		target = "allow/" + p.name
		rules := []Rule{}
		for _, r := range ranges {
			rules = append(rules, Rule{From: r, Goto: external})
		}
		part.Chains[target] = append(rules, Rule{Goto: Drop})
	}
	for _, f := range balancers {
		part.Frontends[f] = target
	}
}

// orDrop is the chain, unless it is the local one and there is no local endpoint.
func orDrop(chain, localChain string, local []endpoint) string {
	if chain == localChain && len(local) == 0 {
		return Drop
	}
	return chain
}

func (p *port) balance(eps []endpoint) Rule {
	r := Rule{Sticky: affinity(p.svc)}
	for _, e := range eps {
		r.To = append(r.To, e.at)
	}
	return r
}

func affinity(svc *corev1.Service) time.Duration {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	return time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
}

// at adds a frontend of this port when the address is one that this table carries.
func (p *port) at(list []Frontend, ip string) []Frontend {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is4() {
		return append(list, Frontend{a, p.protocol, uint16(p.spec.Port)})
	}
	return list
}

func (p *port) frontends() (out []Frontend) {
	ips := p.svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{p.svc.Spec.ClusterIP}
	}
	for _, ip := range ips {
		out = p.at(out, ip)
	}
	return out
}

// externalFrontends are the node port and the external addresses.
func (p *port) externalFrontends() (out []Frontend) {
	if p.spec.NodePort != 0 {
		out = append(out, Frontend{Protocol: p.protocol, Port: uint16(p.spec.NodePort)})
	}
	for _, ip := range p.svc.Spec.ExternalIPs {
		out = p.at(out, ip)
	}
	return out
}

// loadBalancers are the addresses of load balancers that hand packets on as they came.
func (p *port) loadBalancers() (out []Frontend) {
	if p.svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	for _, in := range p.svc.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			out = p.at(out, in.IP)
		}
	}
	return out
}

func (p *port) sourceRanges() (out []netip.Prefix) {
	for _, s := range p.svc.Spec.LoadBalancerSourceRanges {
		if r, err := netip.ParsePrefix(s); err == nil && r.Addr().Is4() {
			out = append(out, r.Masked())
		}
	}
	return out
}
