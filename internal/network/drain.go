package network

import (
	"context"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const drainPoll = 20 * time.Millisecond

// drain returns when the programs behind these addresses have taken up what has reached their sockets: a program starved of CPU is told to
// stop while connections wait for it, and the kernel resets those. It looks twice, for what is read is not yet answered.
func (n *Network) drain(ctx context.Context, addrs []netip.Addr) {
	for _, a := range addrs {
		r := n.pool.holder(a)
		if r == nil {
			continue
		}
		sockets, err := socketsIn(r.Netns)
		if err != nil {
			n.cfg.Log.Debug("cannot see whether a pod has connections waiting", "pod", r.Pod, "err", err)
			continue
		}
		for quiet := 0; quiet < 2 && ctx.Err() == nil; wait(ctx, drainPoll) {
			quiet++
			if waiting(sockets) {
				quiet = 0
			}
		}
		sockets.Close()
	}
}

// socketsIn opens a view of a network namespace's sockets.
func socketsIn(path string) (*netlink.Handle, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return netlink.NewHandleAt(ns, unix.NETLINK_INET_DIAG)
}

// waiting says whether a connection waits to be accepted, or a peer's bytes to be read. A view that fails has nothing to wait for.
func waiting(sockets *netlink.Handle) bool {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		all, err := sockets.SocketDiagTCP(family)
		if err != nil {
			return false
		}
		for _, s := range all {
			if s.RQueue > 0 && (s.State == netlink.TCP_LISTEN || s.State == netlink.TCP_ESTABLISHED) {
				return true
			}
		}
	}
	return false
}
