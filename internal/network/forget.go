package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
		s.fresh[proxy.Frontend{Addr: familyOf(asked.Addr()).whole().Addr(), Protocol: proxy.UDP, Port: asked.Port()}]
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
	s, of := stale{map[netip.AddrPort]bool{}, map[proxy.Frontend]bool{}}, map[family]bool{}
	for _, b := range d.LostUDP {
		s.lost[b], of[familyOf(b.Addr())] = true, true
	}
	for _, f := range d.FreshUDP {
		s.fresh[f], of[familyOf(f.Addr)] = true, true
	}
	for f := range of {
		_, err := complete(func() (uint, error) {
			return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(f), s)
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			log.Warn("UDP clients may go on to endpoints that are gone: could not forget their connections", "err", err)
		}
	}
}

// CTA_FILTER and what lies in it (linux/netfilter/nfnetlink_conntrack.h; not in package nl).
const (
	ctaFilter       = 25
	filterOrigFlags = 1
	filterReplFlags = 2
	filterBySource  = 1 << 0
)

// forgetAddress deletes the connections from and to the address of a pod that is gone. A connection whose end nobody saw is tracked for minutes
// or days, and a client that takes its port again would be led where it led.
func forgetAddress(a netip.Addr) error {
	var err error
	if a.Is4() {
		err = errors.Join(forgetSource(nl.CTA_TUPLE_ORIG, filterOrigFlags, a), forgetSource(nl.CTA_TUPLE_REPLY, filterReplFlags, a))
	}
	// Linux before 6.8 does not choose by itself, and of IPv6 it chooses all others (ctnetlink_filter_match_tuple, 6.18).
	if a.Is6() || errors.Is(err, unix.EINVAL) {
		_, err = complete(func() (uint, error) {
			return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(familyOf(a)), flowsOf(a))
		})
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget the connections of %s: %w", a, err)
	}
	return nil
}

// forgetSource has the kernel delete the connections that have an IPv4 address as the source of one of their directions.
func forgetSource(tuple, flags int, a netip.Addr) error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET})
	of := nl.NewRtAttr(unix.NLA_F_NESTED|tuple, nil)
	of.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil).AddRtAttr(nl.CTA_IP_V4_SRC, a.AsSlice())
	req.AddData(of)
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	filter.AddRtAttr(flags, nl.Uint32Attr(filterBySource))
	req.AddData(filter)
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

// flowsOf picks the connections from and to an address.
type flowsOf netip.Addr

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (e flowsOf) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	a := netip.Addr(e)
	return addrPort(f.Forward.SrcIP, 0).Addr() == a || addrPort(f.Reverse.SrcIP, 0).Addr() == a
}
