// Package proxy decides where a node sends packets for services and host ports: facts in (Services, EndpointSlices, the node), a table of
// frontends and chains out. It does no I/O, keeps no clock and starts no goroutine; package network puts the table into the kernel.
//
// What one service or one pod contributes is a Part. A Table holds all parts, and knows what changed since its changes were last taken, so
// that the cost of a change does not grow with the number of services. Its invariant: what Take has handed out so far, added up, is what
// the table holds.
package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
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
}

// OnNode tells that a frontend is a port on every address of the node.
func (f Frontend) OnNode() bool { return f.Addr.IsUnspecified() }

// everywhere is the address of such a frontend, of the family of another.
func everywhere(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func compareFrontends(a, b Frontend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
}

// Chains that every table has: where packets go for which nobody answers.
const (
	Reject = "reject" // the sender is told
	Drop   = "drop"   // the sender is not told: another node may answer
)

// Rule is one step of a chain. A packet that does not match goes on to the next.
type Rule struct {
	From     netip.Prefix // only packets from there; zero: any
	FromHost bool         // only packets from this node itself

	Masquerade bool             // the answer has to come back through this node
	To         []netip.AddrPort // go to one of these, each as likely as the others. Sorted.
	Sticky     time.Duration    // a sender seen within this time goes where it went before
	Goto       string           // go on in this chain
}

func (r Rule) equal(o Rule) bool {
	return r.From == o.From && r.FromHost == o.FromHost && r.Masquerade == o.Masquerade && r.Sticky == o.Sticky && r.Goto == o.Goto &&
		slices.Equal(r.To, o.To)
}

func equalRules(a, b []Rule) bool { return slices.EqualFunc(a, b, Rule.equal) }

// Part is what one service, or one pod's host ports, put into the table. Its chains carry names that no other part's carry.
type Part struct {
	Frontends map[Frontend]string // → name of a chain
	Chains    map[string][]Rule
	Loops     []netip.Addr     // backends on this node: when one of them is sent to itself, the answer must still pass here. Sorted.
	Health    *Health          // nil: nobody asks
	Serving   []netip.Addr     // those of Loops that are not on their way out. Sorted.
	UDP       []netip.AddrPort // UDP backends: connections to those that go away have to be forgotten. Sorted.
}

// stickiness is the time for which a chain remembers senders, 0 for most.
func stickiness(rules []Rule) time.Duration {
	for _, r := range rules {
		if r.Sticky > 0 {
			return r.Sticky
		}
	}
	return 0
}
