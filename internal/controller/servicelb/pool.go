package servicelb

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/api/loadbalancer"
)

// pooled says whether a service's addresses are of the pool.
func (v view) pooled(s *corev1.Service) bool {
	return !v.pool.Empty() && s.Spec.LoadBalancerClass == nil
}

// give hands out the pool: who has an address that he may have keeps it, then the oldest comes first. The verdicts are by the place of the service.
func (v view) give() map[int]verdict {
	held := map[netip.Addr]string{}
	for a, by := range v.hosts {
		held[a] = by
	}
	kept, out := map[int]map[corev1.IPFamily]netip.Addr{}, map[int]verdict{}
	for i, s := range v.services {
		if v.pooled(s) {
			kept[i] = v.keep(s, held)
		}
	}
	for i, s := range v.services {
		if v.pooled(s) {
			out[i] = v.complete(s, kept[i], held)
		}
	}
	return out
}

func holder(s *corev1.Service) string { return "service " + s.Namespace + "/" + s.Name }

// families in which a service wants an address, where the pool has any. One that the pool cannot serve at all keeps its families, and is refused.
func (v view) families(s *corev1.Service) []corev1.IPFamily {
	all := s.Spec.IPFamilies
	if len(all) == 0 {
		all = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	served := slices.DeleteFunc(slices.Clone(all), func(f corev1.IPFamily) bool { return v.pool.Of(f).Empty() })
	if len(served) == 0 {
		return all
	}
	return served
}

// keep the addresses that a service has and may have, one in each of its families.
func (v view) keep(s *corev1.Service, held map[netip.Addr]string) map[corev1.IPFamily]netip.Addr {
	out := map[corev1.IPFamily]netip.Addr{}
	for _, a := range loadbalancer.Addresses(s) {
		f := loadbalancer.FamilyOf(a)
		_, twice := out[f]
		wish := v.wish(s, f)
		if !twice && slices.Contains(v.families(s), f) && v.pool.Contains(a) && held[a] == "" && (wish == "" || wish == a.String()) {
			out[f], held[a] = a, holder(s)
		}
	}
	return out
}

// complete a service's addresses: what it cannot have does not take away what it has.
func (v view) complete(s *corev1.Service, kept map[corev1.IPFamily]netip.Addr, held map[netip.Addr]string) verdict {
	out := verdict{pooled: true}
	var first netip.Addr
	for _, f := range v.families(s) {
		a, has := kept[f]
		if !has {
			var refusal string
			if a, refusal = v.choose(s, f, held); refusal != "" {
				out.refusal = refusal
				continue
			}
			held[a] = holder(s)
		}
		if !first.IsValid() {
			first = a
		}
		out.ingress = append(out.ingress, ingress(a.String()))
	}
	if first.IsValid() {
		out.announcer = elect(s, first, v.answering(s))
	}
	return out
}

// wish is the address that a service asks for in a family, if it asks for one. What is no address at all counts in every family, so that it is refused.
func (v view) wish(s *corev1.Service, f corev1.IPFamily) string {
	a, err := netip.ParseAddr(s.Spec.LoadBalancerIP)
	if err == nil && loadbalancer.FamilyOf(a) != f && slices.Contains(v.families(s), loadbalancer.FamilyOf(a)) {
		return ""
	}
	return s.Spec.LoadBalancerIP
}

// choose an address that nobody holds: the one that the service asks for, or the first.
func (v view) choose(s *corev1.Service, f corev1.IPFamily, held map[netip.Addr]string) (a netip.Addr, refusal string) {
	pool := v.pool.Of(f)
	if wish := v.wish(s, f); wish != "" {
		a, err := netip.ParseAddr(wish)
		switch {
		case err != nil || !pool.Contains(a):
			return a, fmt.Sprintf("spec.loadBalancerIP %s is not in the pool %s", wish, v.pool)
		case held[a] != "":
			return a, fmt.Sprintf("spec.loadBalancerIP %s is held by %s", wish, held[a])
		}
		return a, ""
	}
	if pool.Empty() {
		return a, fmt.Sprintf("the pool %s has no %s addresses; give the server some with --lb-pool, or change spec.ipFamilies", v.pool, f)
	}
	for a := range pool.All() {
		if held[a] == "" {
			return a, ""
		}
	}
	return a, fmt.Sprintf("all addresses of the pool %s are in use; delete a service of type LoadBalancer, or give the server a larger --lb-pool", pool)
}

// answering are the nodes that may answer for a service's addresses on the link.
func (v view) answering(s *corev1.Service) []*corev1.Node {
	return slices.DeleteFunc(slices.Clone(v.eligible(s)), loadbalancer.Stopped)
}

// elect the node that answers for a service: the one that does already while it may, so that nothing moves without need; else the one whose name and
// the address hash highest, which spreads addresses over the nodes.
func elect(s *corev1.Service, a netip.Addr, nodes []*corev1.Node) (best string) {
	var most uint64
	for _, n := range nodes {
		if n.Name == loadbalancer.Announcer(s) && slices.Contains(loadbalancer.Addresses(s), a) {
			return n.Name
		}
		hash := sha256.Sum256([]byte(n.Name + "/" + a.String()))
		if score := binary.BigEndian.Uint64(hash[:]); best == "" || score > most {
			best, most = n.Name, score
		}
	}
	return best
}
