package network

import (
	"context"
	"net/netip"
	"time"
)

const (
	withdrawPatience = 5 * time.Second        // how long endpoints may take to reach the table before a pod is stopped all the same
	underWay         = 50 * time.Millisecond  // for connections that were led to a backend just before
	elsewhere        = 200 * time.Millisecond // for the tables of other nodes, which hear of it at the same time as this one
)

// Withdraw returns when no new connection is led to these pods of this node: when the table no longer names them and what was under way has
// arrived and been taken up. A pod that is no service's backend is not waited for, and no pod for longer than a few seconds.
func (n *Network) Withdraw(ctx context.Context, addrs []netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, withdrawPatience)
	defer cancel()
	pause := underWay
	if n.cfg.Overlay.on() {
		pause = elsewhere
	}
	for {
		serves, last, moved := n.rules.withdrawn(addrs)
		if !serves {
			if !last.IsZero() {
				wait(ctx, time.Until(last.Add(pause)))
				n.drain(ctx, addrs)
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-moved:
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// withdrawn tells whether the table leads new connections to one of the addresses, else when the last of them went, and what is closed when
// that may have changed.
func (r *ruleset) withdrawn(addrs []netip.Addr) (serves bool, last time.Time, moved <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range addrs {
		serves = serves || r.table.Serves(a)
		if r.left[a].After(last) {
			last = r.left[a]
		}
	}
	return serves, last, r.moved
}

// noteWithdrawn remembers when backends went, for as long as it matters. The lock is held.
func (r *ruleset) noteWithdrawn(addrs []netip.Addr) {
	if len(addrs) == 0 {
		return
	}
	now := time.Now()
	for a, at := range r.left {
		if now.Sub(at) > withdrawPatience {
			delete(r.left, a)
		}
	}
	for _, a := range addrs {
		r.left[a] = now
	}
	close(r.moved)
	r.moved = make(chan struct{})
}
