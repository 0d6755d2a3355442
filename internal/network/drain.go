package network

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	drainPoll = 20 * time.Millisecond
	// inWork is for how long a request without an answer is waited for, or a connection without a request. What takes longer is the program's to finish, which knows of it by then.
	inWork = 2 * time.Second
)

// drain returns when the programs behind these addresses have taken up what has reached their sockets: a program starved of CPU is told to
// stop while connections wait for it, and the kernel resets those, or it drops what it has read and not looked at. It looks twice.
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

// waiting says whether a connection from outside is about to be made, or waits to be accepted, for its bytes to be read, or for an answer. A view
// that fails has nothing to wait for.
func waiting(sockets *netlink.Handle) bool {
	var all []*netlink.InetDiagTCPInfoResp
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		some, err := sockets.SocketDiagTCPInfo(family)
		if err != nil {
			return false
		}
		all = append(all, some...)
	}
	return anyWaits(all)
}

func anyWaits(all []*netlink.InetDiagTCPInfoResp) bool {
	served := map[uint16]bool{}
	for _, s := range all {
		if s.InetDiagMsg.State == netlink.TCP_LISTEN {
			served[s.InetDiagMsg.ID.SourcePort] = true
			if s.InetDiagMsg.RQueue > 0 {
				return true
			}
		}
	}
	return slices.ContainsFunc(all, func(s *netlink.InetDiagTCPInfoResp) bool {
		if s.InetDiagMsg.State == netlink.TCP_SYN_RECV { // its sender may hold it for made; one that is silent for a second does not
			return s.InetDiagMsg.Retrans == 0
		}
		return s.InetDiagMsg.State == netlink.TCP_ESTABLISHED && served[s.InetDiagMsg.ID.SourcePort] &&
			(s.InetDiagMsg.RQueue > 0 || unanswered(s.TCPInfo))
	})
}

// unanswered says whether a peer has lately connected and nothing has gone either way yet, or has sent something and got nothing since: a program that
// is told to stop in between may close the connection on the request that is under way (Go's http.Server does). The kernel counts the times in
// milliseconds back from now; they are equal, and those of the connection's beginning, as long as nothing was sent.
func unanswered(i *netlink.TCPInfo) bool {
	if i == nil || time.Duration(i.Last_data_recv)*time.Millisecond >= inWork {
		return false
	}
	return i.Last_data_recv < i.Last_data_sent || i.Bytes_sent == 0
}
