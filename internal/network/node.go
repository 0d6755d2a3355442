package network

import (
	"context"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// nodeShare is this node's share of the pods' addresses, once it is known: one range, or one of each family. A node's share never changes.
type nodeShare struct {
	cluster []netip.Prefix // all pods'
	once    sync.Once
	given   chan struct{} // closed when pods is set
	pods    []netip.Prefix
	ready   chan struct{} // closed when pods can be connected
}

func newNodeShare(cluster []netip.Prefix) *nodeShare {
	return &nodeShare{cluster: cluster, given: make(chan struct{}), ready: make(chan struct{})}
}

// learn looks into a Node object.
func (s *nodeShare) learn(node *corev1.Node) {
	if pods := podsOf(node, s.cluster); len(pods) > 0 {
		s.once.Do(func() { s.pods = pods; close(s.given) })
	}
}

// podsOf are the ranges of a node's pods, of those families that the cluster has, in the cluster's order.
func podsOf(node *corev1.Node, cluster []netip.Prefix) (out []netip.Prefix) {
	var all []netip.Prefix
	for _, c := range append(append([]string{}, node.Spec.PodCIDRs...), node.Spec.PodCIDR) {
		if p, err := netip.ParsePrefix(c); err == nil {
			all = append(all, p.Masked())
		}
	}
	for _, of := range cluster {
		if p := ofFamily(all, familyOf(of.Addr())); p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

func (s *nodeShare) known() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// wait returns when pods can be connected.
func (s *nodeShare) wait(ctx context.Context, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.ready:
		return nil
	case <-timer.C:
		return errNoPodCIDR
	case <-ctx.Done():
		return ctx.Err()
	}
}
