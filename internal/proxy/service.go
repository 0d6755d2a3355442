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
	Pods []netip.Prefix // the addresses of all pods of the cluster, a range for each family that it carries
}

// labelProxyName on a service says that somebody else carries its packets.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// Service is the part of one service: what leads to it, and where that leads, given all its EndpointSlices.
func Service(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, node Node) Part {
	part := Part{Frontends: map[Frontend]string{}, Chains: map[string][]Rule{}}
	if !proxied(svc) {
		return part
	}
	local := 0 // a pod with two addresses is one endpoint
	for _, pods := range node.Pods {
		before := len(part.Serving)
		part.addFamily(svc, eps, node, pods)
		local = max(local, len(part.Serving)-before)
	}
	if n := svc.Spec.HealthCheckNodePort; n != 0 {
		part.Health = &Health{Namespace: svc.Namespace, Name: svc.Name, Port: uint16(n), Local: local}
	}
	slices.SortFunc(part.Loops, netip.Addr.Compare)
	slices.SortFunc(part.Serving, netip.Addr.Compare)
	slices.SortFunc(part.UDP, netip.AddrPort.Compare)
	part.UDP = slices.Compact(part.UDP)
	return part
}

// addFamily adds what leads to a service in the family of these pods, if it has that.
func (part *Part) addFamily(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, node Node, pods netip.Prefix) {
	if !slices.ContainsFunc(clusterIPs(svc), func(ip string) bool { return isLike(ip, pods.Addr()) }) {
		return
	}
	seen, serving := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for i := range svc.Spec.Ports {
		p := newPort(svc, &svc.Spec.Ports[i], eps, node, pods)
		p.addTo(part)
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
}

// isLike tells that a text is an address of the family of another.
func isLike(ip string, other netip.Addr) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && a.BitLen() == other.BitLen()
}

// clusterIPs are a service's own addresses.
func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	return []string{svc.Spec.ClusterIP}
}

func proxied(svc *corev1.Service) bool {
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return false
	}
	_, elsewhere := svc.Labels[labelProxyName]
	return !elsewhere
}

// port is one port of a service in one family, while its part is made.
type port struct {
	svc        *corev1.Service
	spec       *corev1.ServicePort
	pods       netip.Prefix // of the cluster, of this family
	protocol   Protocol
	name       string     // the tail of its chains' names
	all, local []endpoint // that packets may go to
}

func newPort(svc *corev1.Service, spec *corev1.ServicePort, eps []*discoveryv1.EndpointSlice, node Node, pods netip.Prefix) *port {
	p := &port{svc: svc, spec: spec, pods: pods, protocol: protocolOf(spec.Protocol)}
	p.name = fmt.Sprintf("%s/%s/%s/%d", svc.Namespace, svc.Name, p.protocol, spec.Port)
	found := endpointsOf(spec, eps, node, pods.Addr())
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
	clusterChain, localChain, external := p.chain("svc"), p.chain("local"), p.chain("ext")
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
			{From: p.pods, Goto: clusterChain},
			{FromHost: true, Masquerade: true, Goto: clusterChain},
			{Goto: orDrop(localChain, localChain, p.local)},
		}
	}
	target := external
	if len(balancers) > 0 && len(p.svc.Spec.LoadBalancerSourceRanges) > 0 { // ranges of one family forbid the other
		target = p.chain("allow")
		rules := []Rule{}
		for _, r := range p.sourceRanges() {
			rules = append(rules, Rule{From: r, Goto: external})
		}
		part.Chains[target] = append(rules, Rule{Goto: Drop})
	}
	for _, f := range balancers {
		part.Frontends[f] = target
	}
}

func (p *port) chain(name string) string { return kind(name, p.pods.Addr()) + "/" + p.name }

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

// at adds a frontend of this port when the address is of its family.
func (p *port) at(list []Frontend, ip string) []Frontend {
	if a, err := netip.ParseAddr(ip); err == nil && a.BitLen() == p.pods.Addr().BitLen() {
		return append(list, Frontend{a, p.protocol, uint16(p.spec.Port)})
	}
	return list
}

func (p *port) frontends() (out []Frontend) {
	for _, ip := range clusterIPs(p.svc) {
		out = p.at(out, ip)
	}
	return out
}

// externalFrontends are the node port and the external addresses.
func (p *port) externalFrontends() (out []Frontend) {
	if p.spec.NodePort != 0 {
		out = append(out, Frontend{everywhere(p.pods.Addr()), p.protocol, uint16(p.spec.NodePort)})
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
		if r, err := netip.ParsePrefix(s); err == nil && r.Addr().BitLen() == p.pods.Addr().BitLen() {
			out = append(out, r.Masked())
		}
	}
	return out
}
