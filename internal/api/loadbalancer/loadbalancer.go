// Package loadbalancer is what the service controller and the nodes agree on about addresses from a pool (--lb-pool): which addresses there are, and
// where a Service says which node answers for its own.
//
// The controller alone decides, and writes the decision as a condition into the Service's status, which nobody else may write: a node that took it from
// anywhere else, such as an annotation, could be told by any user to answer for any address on the link.
package loadbalancer

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Announced is the type of the condition. True: the node that is its message answers for the Service's addresses on the link.
const Announced = "skiff.dev/Announced"

// AgentStopped is the condition of a Node whose agent was stopped in order: pods and services go on there, and nobody answers on the link for it.
const AgentStopped corev1.NodeConditionType = "skiff.dev/AgentStopped"

// Stopped says whether a node's agent was stopped in order and has not come back.
func Stopped(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == AgentStopped && c.Status == corev1.ConditionTrue })
}

// Elected is the condition that names a node; none if the name is empty.
func Elected(node string, generation int64) metav1.Condition {
	c := metav1.Condition{Type: Announced, Status: metav1.ConditionTrue, Reason: "NodeElected", Message: node, ObservedGeneration: generation}
	if node == "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "NoNode", "no ready node may answer for the address"
	}
	return c
}

// Announcer is the node that answers for a Service's addresses, "" for none.
func Announcer(s *corev1.Service) string {
	if c := meta.FindStatusCondition(s.Status.Conditions, Announced); c != nil && c.Status == metav1.ConditionTrue {
		return c.Message
	}
	return ""
}

// Addresses that a Service has, and that packets carry when they arrive.
func Addresses(s *corev1.Service) (out []netip.Addr) {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			out = append(out, a)
		}
	}
	return out
}

// Pool of addresses, in the order in which they are given out. The zero value is no pool.
type Pool struct {
	ranges []span
}

// span is all addresses from first to last.
type span struct{ first, last netip.Addr }

// ParsePool reads CIDRs (192.0.2.0/28, 2001:db8::/124) and ranges (192.0.2.10-192.0.2.20). The first address of a CIDR is left out, and of IPv4 the last,
// as no host can have them on a link of that size; a range is taken as it is given.
func ParsePool(entries []string) (Pool, error) {
	var p Pool
	for _, e := range entries {
		s, err := parseSpan(strings.TrimSpace(e))
		if err != nil {
			return Pool{}, err
		}
		p.ranges = append(p.ranges, s)
	}
	return p, nil
}

func parseSpan(e string) (span, error) {
	var s span
	if low, high, ok := strings.Cut(e, "-"); ok {
		var err1, err2 error
		s.first, err1 = netip.ParseAddr(strings.TrimSpace(low))
		s.last, err2 = netip.ParseAddr(strings.TrimSpace(high))
		if err1 != nil || err2 != nil || s.last.Less(s.first) || s.first.BitLen() != s.last.BitLen() {
			return span{}, fmt.Errorf("%q is no range of addresses such as 192.0.2.10-192.0.2.20", e)
		}
	} else {
		cidr, err := netip.ParsePrefix(e)
		if err != nil || cidr != cidr.Masked() {
			return span{}, fmt.Errorf("%q is neither a CIDR such as 192.0.2.0/28 nor a range such as 192.0.2.10-192.0.2.20", e)
		}
		s = spanOf(cidr)
		if cidr.Addr().BitLen()-cidr.Bits() > 1 {
			s.first = s.first.Next()
			if s.last.Is4() {
				s.last = s.last.Prev()
			}
		}
	}
	if s.first.Zone()+s.last.Zone() != "" || slices.ContainsFunc(nobodys, s.overlaps) {
		return span{}, fmt.Errorf("%q has addresses that no host on a link can have", e)
	}
	return s, nil
}

// nobodys are the addresses that mean something else than one host on a link: this network, the host itself, groups, IPv4 in disguise, and those that
// mean another host on each link.
var nobodys = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/95"), netip.MustParsePrefix("::ffff:0:0/95"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

func spanOf(cidr netip.Prefix) span {
	last := cidr.Addr().AsSlice()
	for i := cidr.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(last)
	return span{cidr.Addr(), to}
}

func (s span) overlaps(cidr netip.Prefix) bool {
	o := spanOf(cidr.Masked())
	return s.first.BitLen() == o.first.BitLen() && !s.last.Less(o.first) && !o.last.Less(s.first)
}

func (s span) String() string { return s.first.String() + "-" + s.last.String() }

// Empty says that there is no pool.
func (p Pool) Empty() bool { return len(p.ranges) == 0 }

// Overlap is the part of the pool that shares addresses with a CIDR, "" if none does.
func (p Pool) Overlap(cidr netip.Prefix) string {
	for _, s := range p.ranges {
		if s.overlaps(cidr) {
			return s.String()
		}
	}
	return ""
}

// Of are the addresses of the pool that are of one family.
func (p Pool) Of(family corev1.IPFamily) (out Pool) {
	for _, s := range p.ranges {
		if FamilyOf(s.first) == family {
			out.ranges = append(out.ranges, s)
		}
	}
	return out
}

// FamilyOf an address.
func FamilyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// Contains says whether an address is one of the pool's.
func (p Pool) Contains(a netip.Addr) bool {
	for _, s := range p.ranges {
		if a.BitLen() == s.first.BitLen() && !a.Less(s.first) && !s.last.Less(a) {
			return true
		}
	}
	return false
}

// All addresses, in order.
func (p Pool) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, s := range p.ranges {
			for a := s.first; a.IsValid() && !s.last.Less(a); a = a.Next() {
				if !yield(a) {
					return
				}
			}
		}
	}
}

// String is the pool as ranges.
func (p Pool) String() string {
	all := make([]string, len(p.ranges))
	for i, s := range p.ranges {
		all[i] = s.String()
	}
	return strings.Join(all, ",")
}
