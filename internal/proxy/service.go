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
	part := Part{Frontends: map[Frontend]Lead{}}
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
	all, local []endpoint // that packets may go to
}

func newPort(svc *corev1.Service, spec *corev1.ServicePort, eps []*discoveryv1.EndpointSlice, node Node, pods netip.Prefix) *port {
	p := &port{svc: svc, spec: spec, pods: pods, protocol: protocolOf(spec.Protocol)}
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
	all, local := p.lead("cluster", p.all), p.lead("local", p.local)
	local.Drop = len(p.all) > 0 // on other nodes
	internal, external := all, all
	if p.svc.Spec.InternalTrafficPolicy != nil && *p.svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal {
		internal = local
	}
	externalLocal := p.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && len(p.all) > 0
	switch {
	case externalLocal:
		external.Masquerade = MasqueradeNode
	case len(p.all) > 0:
		external.Masquerade = MasqueradeAll
	}
	for _, f := range p.frontends() {
		part.Frontends[f] = internal
	}
	lead := func(f Frontend, external, local Lead) {
		part.Frontends[f] = external
		if externalLocal {
			// Pods and the node itself are not outside: they reach every endpoint, as they would through the cluster address.
			part.Frontends[f.outside()] = local
		}
	}
	for _, f := range p.externalFrontends() {
		lead(f, external, local)
	}
	for _, f := range p.loadBalancers() {
		lead(f, p.guard(external), p.guard(local))
	}
}

// lead is where a port leads that has such endpoints. What is remembered for it bears a name of this kind.
func (p *port) lead(kind string, eps []endpoint) (l Lead) {
	for _, e := range eps {
		l.To = append(l.To, e.at)
	}
	if keep := affinity(p.svc); keep > 0 && len(eps) > 0 {
		name := fmt.Sprintf("%s/%s/%s/%s/%d", kind, p.svc.Namespace, p.svc.Name, p.protocol, p.spec.Port)
		if p.pods.Addr().Is6() {
			name += "/6"
		}
		l.Session = Session{Name: name, Keep: keep}
	}
	return l
}

// guard keeps out who is in none of the source ranges that the service names. If those are of the other family, that is everybody.
func (p *port) guard(l Lead) Lead {
	if !l.answers() || len(p.svc.Spec.LoadBalancerSourceRanges) == 0 {
		return l
	}
	if l.Ranges = p.sourceRanges(); len(l.Ranges) == 0 {
		return Lead{Drop: true}
	}
	return l
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
		return append(list, Frontend{a, p.protocol, uint16(p.spec.Port), false})
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
		out = append(out, Frontend{everywhere(p.pods.Addr()), p.protocol, uint16(p.spec.NodePort), false})
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
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}
