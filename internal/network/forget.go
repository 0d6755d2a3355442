package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

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

// forgetter deletes the connections from and to the addresses of pods that are gone. A connection whose end nobody saw is tracked for minutes or
// days, and a client that takes its port again would be led where it led.
type forgetter struct {
	mu   sync.Mutex
	next *gone      // what is looked for next, and who waits for it
	work sync.Mutex // held while connections are looked through
}

// gone are addresses that are looked for together.
type gone struct {
	addrs flowsOf
	done  chan struct{}
	err   error
}

// forget returns when the connections of these addresses are deleted.
func (f *forgetter) forget(addrs []netip.Addr) error {
	var seek []netip.Addr
	for _, a := range addrs {
		if a.Is6() { // of IPv6 the kernel chooses all others (ctnetlink_filter_match_tuple, Linux 6.18)
			seek = append(seek, a)
			continue
		}
		err := errors.Join(forgetSource(nl.CTA_TUPLE_ORIG, filterOrigFlags, a), forgetSource(nl.CTA_TUPLE_REPLY, filterReplFlags, a))
		switch {
		case errors.Is(err, unix.EINVAL): // Linux before 6.8 does not choose by itself
			seek = append(seek, a)
		case err != nil && !errors.Is(err, unix.ENOENT):
			return fmt.Errorf("forget the connections of %s: %w", a, err)
		}
	}
	if len(seek) == 0 {
		return nil
	}
	return f.seek(seek)
}

// seek looks through all connections there are. Pods that go while that is done are waited for, and looked for together.
func (f *forgetter) seek(addrs []netip.Addr) error {
	f.mu.Lock()
	g, first := f.next, f.next == nil
	if first {
		g = &gone{addrs: flowsOf{}, done: make(chan struct{})}
		f.next = g
	}
	for _, a := range addrs {
		g.addrs[a] = true
	}
	f.mu.Unlock()
	if !first {
		<-g.done
		return g.err
	}
	f.work.Lock()
	defer f.work.Unlock()
	f.mu.Lock()
	f.next = nil
	f.mu.Unlock()
	defer close(g.done)
	g.err = g.addrs.forget()
	return g.err
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

// flowsOf picks the connections from and to addresses.
type flowsOf map[netip.Addr]bool

func (of flowsOf) forget() error {
	in := map[family]bool{}
	for a := range of {
		in[familyOf(a)] = true
	}
	for f := range in {
		_, err := complete(func() (uint, error) {
			return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(f), of)
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget the connections of pods that are gone: %w", err)
		}
	}
	return nil
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (of flowsOf) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return of[addrPort(f.Forward.SrcIP, 0).Addr()] || of[addrPort(f.Reverse.SrcIP, 0).Addr()]
}
