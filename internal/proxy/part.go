// Package proxy decides where a node sends packets for services and host ports: facts in (Services, EndpointSlices, the node), a table of
// frontends and their backends out. It does no I/O, keeps no clock and starts no goroutine; package network puts the table into the kernel.
//
// What one service or one pod contributes is a Part. A Table holds all parts, and knows what changed since its changes were last taken, so
// that the cost of a change does not grow with the number of services. Its invariant: what Take has handed out so far, added up, is what
// the table holds.
package proxy

import (
	"cmp"
	"net/netip"
)

// Protocol is the number IP gives a transport.
type Protocol uint8

const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "unknown"
}

// Frontend is what a packet is sent to. With 0.0.0.0 or :: for an address it is a port on every address that the node has of that family.
type Frontend struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
	Outside  bool // only what neither pods nor this node send there, which goes its own way. There is one for all others beside it.
}

// OnNode tells that a frontend is a port on every address of the node.
func (f Frontend) OnNode() bool { return f.Addr.IsUnspecified() }

// outside is the frontend of what comes from outside.
func (f Frontend) outside() Frontend {
	f.Outside = true
	return f
}

// everywhere is the address of such a frontend, of the family of another.
func everywhere(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func compareFrontends(a, b Frontend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), compareBools(a.Outside, b.Outside))
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Part is what one service, or one pod's host ports, put into the table.
type Part struct {
	Frontends map[Frontend]Lead
	Loops     []netip.Addr     // backends on this node: when one of them is sent to itself, the answer must still pass here. Sorted.
	Health    *Health          // nil: nobody asks
	Serving   []netip.Addr     // those of Loops that are not on their way out. Sorted.
	UDP       []netip.AddrPort // UDP backends: connections to those that go away have to be forgotten. Sorted.
}

// backends are those that any frontend leads to.
func (p Part) backends() map[netip.AddrPort]bool {
	out := map[netip.AddrPort]bool{}
	for _, l := range p.Frontends {
		for _, b := range l.To {
			out[b] = true
		}
	}
	return out
}

// sessions are those of all frontends, with the backends that each leads to.
func (p Part) sessions() map[Session][]netip.AddrPort {
	var out map[Session][]netip.AddrPort
	for _, l := range p.Frontends {
		if l.Session.Keep == 0 {
			continue
		}
		if out == nil {
			out = map[Session][]netip.AddrPort{}
		}
		out[l.Session] = l.To
	}
	return out
}
