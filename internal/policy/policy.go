// Package policy decides which packets a node lets pass to and from its pods: NetworkPolicies, Pods and Namespaces in, a table of chains and
// address sets out. It does no I/O, keeps no clock and starts no goroutine; package network puts the table into the kernel.
//
// A packet costs the same however many policies there are. Whether a pod is isolated is one look-up by its address; that leads to a chain in
// which one look-up by destination port leads to the chain of those who may use that port, and there one look-up says whether the other end
// is among them. Chains are named by what they say, so pods with the same rules share them. A pod that comes or goes elsewhere changes
// members of sets and nothing else.
//
// Invariants: what Take has handed out so far, added up, is what the table holds; a pod whose labels are not known yet is isolated by every
// policy of its namespace.
package policy

import (
	"net/netip"
	"slices"
)

// Protocol is the number IP gives a transport; 0 is any.
type Protocol uint8

const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

var transports = []Protocol{TCP, UDP, SCTP}

// Key names a pod or a policy.
type Key struct{ Namespace, Name string }

// Direction is a pod's view of a packet.
type Direction uint8

const (
	Ingress Direction = iota
	Egress
)

// Verdicts, in the place of a chain's name. Whatever reaches the end of a chain is allowed to pass on.
const (
	Allow = "allow"
	Drop  = "drop"
)

// Rule is one step of a chain. A packet that does not match goes on to the next.
type Rule struct {
	Protocol Protocol // only of this transport

	Ports  []Ports // go where the destination port leads; otherwise to the next rule
	Set    string  // only if the other end is a member
	Ranges []Range // only if the other end is in one of these: sorted, disjoint, of one family

	Goto string // a chain or a verdict
}

// Ports leads a range of destination ports somewhere.
type Ports struct {
	First, Last uint16
	Goto        string
}

// Range is addresses that follow one another.
type Range struct{ First, Last netip.Addr }

// Chain says what happens to packets of a direction.
type Chain struct {
	Direction Direction // of the packet; the other end is its source for Ingress
	Rules     []Rule
}

func (c Chain) equal(o Chain) bool {
	return c.Direction == o.Direction && slices.EqualFunc(c.Rules, o.Rules, func(a, b Rule) bool {
		return a.Protocol == b.Protocol && a.Set == b.Set && a.Goto == b.Goto && slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Ranges, b.Ranges)
	})
}

// Member is an address in a set.
type Member struct {
	Set  string
	Addr netip.Addr
}

// Isolated is a pod of this node that something is forbidden to.
type Isolated struct {
	Direction Direction
	Addr      netip.Addr
}
