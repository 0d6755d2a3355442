package network

import (
	"context"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// nodeShare is this node's share of the pods' addresses, once it is known. A node's share never changes.
type nodeShare struct {
	once  sync.Once
	given chan struct{} // closed when pods is set
	pods  netip.Prefix
	ready chan struct{} // closed when pods can be connected
}

func newNodeShare() *nodeShare {
	return &nodeShare{given: make(chan struct{}), ready: make(chan struct{})}
}

// learn looks into a Node object.
func (s *nodeShare) learn(node *corev1.Node) {
	for _, c := range append(append([]string{}, node.Spec.PodCIDRs...), node.Spec.PodCIDR) {
		if p, err := netip.ParsePrefix(c); err == nil && p.Addr().Is4() {
			s.once.Do(func() { s.pods = p.Masked(); close(s.given) })
			return
		}
	}
}

func (s *nodeShare) known() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// wait returns the gateway for pods when they can be connected.
func (s *nodeShare) wait(ctx context.Context, patience time.Duration) (netip.Addr, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.ready:
		return gatewayOf(s.pods), nil
	case <-timer.C:
		return netip.Addr{}, errNoPodCIDR
	case <-ctx.Done():
		return netip.Addr{}, ctx.Err()
	}
}
