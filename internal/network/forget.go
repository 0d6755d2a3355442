package network

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/proxy"
)

// stale picks the tracked UDP connections that the table no longer means: UDP has no end that the kernel could see, so a client that keeps
// its port would go on to a backend that is gone, or to nobody at all.
type stale struct {
	lost  map[netip.AddrPort]bool
	fresh map[proxy.Frontend]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s stale) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	asked, answers := addrPort(f.Forward.DstIP, f.Forward.DstPort), addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort)
	if asked != answers {
		return s.lost[answers]
	}
	return s.fresh[proxy.Frontend{Addr: asked.Addr(), Protocol: proxy.UDP, Port: asked.Port()}] ||
		s.fresh[proxy.Frontend{Protocol: proxy.UDP, Port: asked.Port()}]
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// forgetConnections deletes the connections that a change made stale.
func forgetConnections(d *proxy.Delta, log *slog.Logger) {
	if len(d.LostUDP)+len(d.FreshUDP) == 0 {
		return
	}
	s := stale{map[netip.AddrPort]bool{}, map[proxy.Frontend]bool{}}
	for _, b := range d.LostUDP {
		s.lost[b] = true
	}
	for _, f := range d.FreshUDP {
		s.fresh[f] = true
	}
	_, err := complete(func() (uint, error) { return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		log.Warn("UDP clients may go on to endpoints that are gone: could not forget their connections", "err", err)
	}
}
