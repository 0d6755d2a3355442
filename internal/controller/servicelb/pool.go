package servicelb

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/api/loadbalancer"
)

// pooled says whether a service's address is one of the pool's.
func (v view) pooled(s *corev1.Service) bool {
	return !v.pool.Empty() && s.Spec.LoadBalancerClass == nil
}

// give hands out the pool: who has an address that he may have keeps it, then the oldest comes first. The verdicts are by the place of the service.
func (v view) give() map[int]verdict {
	held := map[netip.Addr]string{}
	for a, by := range v.hosts {
		held[a] = by
	}
	kept, out := map[int]netip.Addr{}, map[int]verdict{}
	for i, s := range v.services {
		if a := holds(s); v.pooled(s) && v.pool.Contains(a) && held[a] == "" && (s.Spec.LoadBalancerIP == "" || s.Spec.LoadBalancerIP == a.String()) {
			kept[i], held[a] = a, holder(s)
		}
	}
	for i, s := range v.services {
		if !v.pooled(s) {
			continue
		}
		a, has := kept[i]
		if !has {
			var refusal string
			if a, refusal = v.choose(s, held); refusal != "" {
				out[i] = verdict{pooled: true, refusal: refusal}
				continue
			}
			held[a] = holder(s)
		}
		out[i] = verdict{pooled: true, ingress: []corev1.LoadBalancerIngress{ingress(a.String())}, announcer: elect(s, a, v.eligible(s))}
	}
	return out
}

func holder(s *corev1.Service) string { return "service " + s.Namespace + "/" + s.Name }

// holds is the one address that a service has, if it has one.
func holds(s *corev1.Service) (a netip.Addr) {
	if all := loadbalancer.Addresses(s); len(all) == 1 {
		a = all[0]
	}
	return a
}

// choose an address that nobody holds: the one that the service asks for, or the first.
func (v view) choose(s *corev1.Service, held map[netip.Addr]string) (a netip.Addr, refusal string) {
	if wish := s.Spec.LoadBalancerIP; wish != "" {
		a, err := netip.ParseAddr(wish)
		switch {
		case err != nil || !v.pool.Contains(a):
			return a, fmt.Sprintf("spec.loadBalancerIP %s is not in the pool %s", wish, v.pool)
		case held[a] != "":
			return a, fmt.Sprintf("spec.loadBalancerIP %s is held by %s", wish, held[a])
		}
		return a, ""
	}
	for a := range v.pool.All() {
		if held[a] == "" {
			return a, ""
		}
	}
	return a, fmt.Sprintf("all addresses of the pool %s are in use; delete a service of type LoadBalancer, or give the server a larger --lb-pool", v.pool)
}

// elect the node that answers for an address: the one that does already while it may, so that nothing moves without need; else the one whose name and
// the address hash highest, which spreads addresses over the nodes.
func elect(s *corev1.Service, a netip.Addr, nodes []*corev1.Node) (best string) {
	var most uint64
	for _, n := range nodes {
		if n.Name == loadbalancer.Announcer(s) && holds(s) == a {
			return n.Name
		}
		hash := sha256.Sum256([]byte(n.Name + "/" + a.String()))
		if score := binary.BigEndian.Uint64(hash[:]); best == "" || score > most {
			best, most = n.Name, score
		}
	}
	return best
}
