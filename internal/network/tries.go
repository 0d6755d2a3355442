package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tries are connections that somebody tries to make to an endpoint that is none any more. The kernel tracks a try from its first packet on, so when that
// was lost on its way, as happens on a busy host, the next one follows it to where nobody listens any more and its sender is refused. A try
// that is forgotten is led anew.
type tries struct {
	log  *slog.Logger
	wake chan struct{}

	mu       sync.Mutex
	deserted map[netip.AddrPort]bool
}

func newTries(log *slog.Logger) *tries {
	return &tries{log: log, wake: make(chan struct{}, 1), deserted: map[netip.AddrPort]bool{}}
}

// leadAnew has the tries to these endpoints forgotten soon.
func (t *tries) leadAnew(deserted []netip.AddrPort) {
	if len(deserted) == 0 {
		return
	}
	t.mu.Lock()
	for _, d := range deserted {
		t.deserted[d] = true
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run forgets until ctx ends. It lets those go first that are just being answered; a sender tries again after a second at the earliest.
func (t *tries) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		if wait(ctx, underWay); ctx.Err() != nil {
			return nil
		}
		t.mu.Lock()
		now := t.deserted
		t.deserted = map[netip.AddrPort]bool{}
		t.mu.Unlock()
		if err := forgetTries(now); err != nil {
			t.log.Warn("clients may try again to reach endpoints that are gone: could not forget their tries", "err", err)
		}
	}
}

// forgetTries deletes the unanswered TCP connections to endpoints.
func forgetTries(to map[netip.AddrPort]bool) error {
	var errs []error
	seek := map[family]triesTo{}
	for d := range to {
		err := error(unix.EINVAL)
		if d.Addr().Is4() { // as in forget
			err = forgetTriesTo(d)
		}
		switch {
		case errors.Is(err, unix.EINVAL):
			f := familyOf(d.Addr())
			if seek[f] == nil {
				seek[f] = triesTo{}
			}
			seek[f][d] = true
		case err != nil && !errors.Is(err, unix.ENOENT):
			errs = append(errs, err)
		}
	}
	for f, these := range seek {
		_, err := complete(func() (uint, error) {
			return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(f), these)
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// CTA_STATUS_MASK, and further flags of CTA_FILTER (not in package nl).
const (
	ctaStatusMask    = 26
	statusSeenReply  = 1 << 1
	filterByProtocol = 1 << 3
	filterByPort     = 1 << 4 // of the source
)

// forgetTriesTo has the kernel find them, for IPv4.
func forgetTriesTo(d netip.AddrPort) error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET})
	answers := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_REPLY, nil)
	answers.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil).AddRtAttr(nl.CTA_IP_V4_SRC, d.Addr().AsSlice())
	proto := answers.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
	proto.AddRtAttr(nl.CTA_PROTO_NUM, nl.Uint8Attr(unix.IPPROTO_TCP))
	proto.AddRtAttr(nl.CTA_PROTO_SRC_PORT, nl.BEUint16Attr(d.Port()))
	req.AddData(answers)
	req.AddData(nl.NewRtAttr(nl.CTA_STATUS, nl.BEUint32Attr(0)))
	req.AddData(nl.NewRtAttr(ctaStatusMask, nl.BEUint32Attr(statusSeenReply)))
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	filter.AddRtAttr(filterReplFlags, nl.Uint32Attr(filterBySource|filterByProtocol|filterByPort))
	req.AddData(filter)
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

// triesTo picks them, where the kernel does not.
type triesTo map[netip.AddrPort]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (to triesTo) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP)
	return ok && tcp.State == nl.TCP_CONNTRACK_SYN_SENT && to[addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort)]
}
