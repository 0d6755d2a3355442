package servicelb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/api/loadbalancer"
)

// view is what a decision rests on.
type view struct {
	services []*corev1.Service     // those that are this controller's, oldest first
	nodes    []*corev1.Node        // that take traffic
	pool     loadbalancer.Pool     // empty: the nodes' addresses are the services'
	reserved map[port]string       // what the host itself listens on, and for what
	hosts    map[netip.Addr]string // addresses of all nodes, which no service may be given of the pool
	// local are the names of the nodes with a ready endpoint, for services that keep traffic on its node.
	local func(*corev1.Service) map[string]bool
}

// port on every node's address.
type port struct {
	number   int32
	protocol corev1.Protocol
}

// verdict for one service.
type verdict struct {
	ingress   []corev1.LoadBalancerIngress
	pooled    bool   // the address is the service's own, and has to be announced
	announcer string // by this node; "" for none
	refusal   string // why it has none, or none in one of its families
}

// plan gives every service an address of the pool, or all nodes' addresses, unless an older service holds one of its ports.
func plan(v view) []verdict {
	held := map[port]string{}
	for p, by := range v.reserved {
		held[p] = by
	}
	given := v.give()
	out := make([]verdict, len(v.services))
	for i, s := range v.services {
		if v.pooled(s) {
			out[i] = given[i]
			continue
		}
		if clash := take(held, s); clash != "" {
			out[i].refusal = clash
			continue
		}
		out[i].ingress = addresses(v, s)
	}
	return out
}

// take claims a service's ports, all of them or none.
func take(held map[port]string, s *corev1.Service) (clash string) {
	var mine []port
	for _, sp := range s.Spec.Ports {
		p := port{sp.Port, sp.Protocol}
		if by, taken := held[p]; taken {
			return fmt.Sprintf("port %d/%s of the nodes is held by %s", p.number, p.protocol, by)
		}
		mine = append(mine, p)
	}
	for _, p := range mine {
		held[p] = "service " + s.Namespace + "/" + s.Name
	}
	return ""
}

func addresses(v view, s *corev1.Service) []corev1.LoadBalancerIngress {
	families := s.Spec.IPFamilies
	if len(families) == 0 {
		families = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	var out []corev1.LoadBalancerIngress
	for _, n := range v.eligible(s) {
		for _, family := range families {
			if ip := address(n, family); ip != "" {
				out = append(out, ingress(ip))
			}
		}
	}
	slices.SortFunc(out, func(a, b corev1.LoadBalancerIngress) int { return strings.Compare(a.IP, b.IP) })
	return out
}

func ingress(ip string) corev1.LoadBalancerIngress {
	mode := corev1.LoadBalancerIPModeVIP
	return corev1.LoadBalancerIngress{IP: ip, IPMode: &mode}
}

// eligible are the nodes that may take a service's traffic from outside.
func (v view) eligible(s *corev1.Service) []*corev1.Node {
	if s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return v.nodes
	}
	only := v.local(s)
	return slices.DeleteFunc(slices.Clone(v.nodes), func(n *corev1.Node) bool { return !only[n.Name] })
}

// address under which the world reaches a node in a family: its external one where it has one.
func address(n *corev1.Node, family corev1.IPFamily) string {
	for _, kind := range []corev1.NodeAddressType{corev1.NodeExternalIP, corev1.NodeInternalIP} {
		for _, a := range n.Status.Addresses {
			if a.Type == kind && strings.Contains(a.Address, ":") == (family == corev1.IPv6Protocol) {
				return a.Address
			}
		}
	}
	return ""
}

// sameAddresses tells that two states of a node are reached by the world alike.
func sameAddresses(a, b *corev1.Node) bool {
	return address(a, corev1.IPv4Protocol) == address(b, corev1.IPv4Protocol) && address(a, corev1.IPv6Protocol) == address(b, corev1.IPv6Protocol)
}

// takesTraffic says whether a node may be one of the load balancer's.
func takesTraffic(n *corev1.Node) bool {
	if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded || n.DeletionTimestamp != nil {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// mine says whether a service is this controller's: of type LoadBalancer and of no other class.
func mine(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil && ofNoOther(s)
}

// ofNoOther says that a service's class, if it has one, is this controller's.
func ofNoOther(s *corev1.Service) bool {
	return s.Spec.LoadBalancerClass == nil || *s.Spec.LoadBalancerClass == Class
}

// leaving says whether a service still shows addresses although it is to have none any more.
func leaving(s *corev1.Service) bool {
	gone := s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.DeletionTimestamp != nil && ofNoOther(s)
	return gone && len(s.Status.LoadBalancer.Ingress) > 0
}
