package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// compiled is a policy with its selectors ready to match.
type compiled struct {
	selects labels.Selector
	rules   [2][]rule // by direction
	applies [2]bool
	names   bool // its egress names ports: they are looked up in the pods at the other end
}

type rule struct {
	peers []peer // none: anybody
	ports []portSpec
}

// peer is one kind of other end.
type peer struct {
	name      string // says all that follows
	ranges    []Range
	namespace string          // the one namespace, or
	spaces    labels.Selector // those it selects; nil: namespace
	pods      labels.Selector
	port      namedPort // only pods that call this port by this name; zero: any
}

type portSpec struct {
	protocol    Protocol
	name        string // instead of numbers
	first, last uint16
}

// namedPort is a container's port.
type namedPort struct {
	name     string
	protocol Protocol
	number   uint16
}

func compile(p *networkingv1.NetworkPolicy) *compiled {
	c := &compiled{selects: selector(&p.Spec.PodSelector)}
	for _, t := range p.Spec.PolicyTypes {
		if t == networkingv1.PolicyTypeEgress {
			c.applies[Egress] = true
		} else {
			c.applies[Ingress] = true
		}
	}
	for _, in := range p.Spec.Ingress {
		c.rules[Ingress] = append(c.rules[Ingress], rule{peers(p.Namespace, in.From), ports(in.Ports)})
	}
	for _, out := range p.Spec.Egress {
		r := rule{peers(p.Namespace, out.To), ports(out.Ports)}
		c.names = c.names || slices.ContainsFunc(r.ports, func(s portSpec) bool { return s.name != "" })
		c.rules[Egress] = append(c.rules[Egress], r)
	}
	return c
}

// selector is what a selector of the API selects; one that can not be read, which validation refuses, selects nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return out
}

func peers(namespace string, list []networkingv1.NetworkPolicyPeer) (out []peer) {
	for i := range list {
		out = append(out, newPeer(namespace, &list[i]))
	}
	return out
}

func newPeer(namespace string, from *networkingv1.NetworkPolicyPeer) peer {
	if b := from.IPBlock; b != nil {
		var except []netip.Prefix
		for _, s := range b.Except {
			if e, err := netip.ParsePrefix(s); err == nil {
				except = append(except, e)
			}
		}
		p := peer{name: "block " + b.CIDR + " except " + strings.Join(b.Except, " ")}
		if whole, err := netip.ParsePrefix(b.CIDR); err == nil {
			p.ranges = block(whole, except)
		}
		return p
	}
	p := peer{namespace: namespace, pods: labels.Everything()}
	if from.PodSelector != nil {
		p.pods = selector(from.PodSelector)
	}
	if from.NamespaceSelector != nil {
		p.namespace, p.spaces = "", selector(from.NamespaceSelector)
		p.name = fmt.Sprintf("pods %q in namespaces %q", p.pods, p.spaces)
	} else {
		p.name = fmt.Sprintf("pods %q in namespace %s", p.pods, namespace)
	}
	return p
}

func ports(list []networkingv1.NetworkPolicyPort) (out []portSpec) {
	for i := range list {
		s := portSpec{protocol: TCP, last: 65535}
		if list[i].Protocol != nil {
			s.protocol = protocolOf(*list[i].Protocol)
		}
		if at := list[i].Port; at != nil && at.Type == intstr.String {
			s.name = at.StrVal
		} else if at != nil {
			s.first, s.last = uint16(at.IntVal), uint16(at.IntVal)
			if list[i].EndPort != nil {
				s.last = uint16(*list[i].EndPort)
			}
		}
		out = append(out, s)
	}
	return out
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

// pod is what policies look at in a Pod.
type pod struct {
	namespace string
	labels    labels.Set
	addrs     []netip.Addr
	ports     []namedPort
}

// newPod reads a Pod; nil if it has no addresses of its own: it is on its node's network, or has ended.
func newPod(p *corev1.Pod) *pod {
	if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	out := &pod{namespace: p.Namespace, labels: p.Labels}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out.addrs = append(out.addrs, a)
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range list {
			for _, port := range list[i].Ports {
				if port.Name != "" {
					out.ports = append(out.ports, namedPort{port.Name, protocolOf(port.Protocol), uint16(port.ContainerPort)})
				}
			}
		}
	}
	return out
}

func (p *pod) equal(o *pod) bool {
	return labels.Equals(p.labels, o.labels) && slices.Equal(p.addrs, o.addrs) && slices.Equal(p.ports, o.ports)
}

// number is what a pod calls a port.
func (p *pod) number(name string, protocol Protocol) (uint16, bool) {
	for _, port := range p.ports {
		if port.name == name && port.protocol == protocol {
			return port.number, true
		}
	}
	return 0, false
}
