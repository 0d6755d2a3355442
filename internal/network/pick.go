package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/proxy"
)

// pick is what a chain does that leads to any of n backends of a frontend, each with the same probability. It serves all frontends of the family that
// are alike, and stays: the kernel walks through the map of all endpoints when another chain refers to it, and for each endpoint through all
// that do. Only those that remember senders go when no frontend needs them, for there may be one of each number of seconds.
type pick struct {
	n          int
	onNode     bool          // frontends are ports of the node
	outside    bool          // what comes from outside has backends of its own
	keep       time.Duration // for how long a sender goes to the same backend, 0: not at all
	masquerade proxy.Masquerade
	guarded    bool // senders have to be in one of the frontend's ranges
}

func pickFor(f proxy.Frontend, l proxy.Lead) pick {
	if len(l.To) == 0 {
		return pick{}
	}
	return pick{n: len(l.To), onNode: f.OnNode(), outside: f.Outside, keep: l.Session.Keep, masquerade: l.Masquerade, guarded: len(l.Ranges) > 0}
}

// usualPicks are those that services find there, and do not wait for.
func usualPicks() (out []pick) {
	for n := 1; n <= 32; n++ {
		out = append(out, pick{n: n})
	}
	return out
}

// name of the chain.
func (p pick) name(f family) string {
	kind := "pick"
	for _, k := range []struct {
		is   bool
		name string
	}{
		{p.outside, "-outside"}, {p.onNode, "-node"}, {p.guarded, "-ranges"},
		{p.masquerade == proxy.MasqueradeAll, "-masquerade"}, {p.masquerade == proxy.MasqueradeNode, "-local"},
		{p.keep > 0, fmt.Sprintf("-sticky-%d", p.keep/time.Second)},
	} {
		if k.is {
			kind += k.name
		}
	}
	return fmt.Sprintf("%s%s/%d", kind, f.digit(), p.n)
}

// next is the pick in which the chain of another goes on, having done its part. One that only draws has none, and one that remembers needs it when it cannot.
func (p pick) next() (pick, bool) {
	switch {
	case p.guarded:
		p.guarded = false
	case p.masquerade != proxy.MasqueradeNobody:
		p.masquerade = proxy.MasqueradeNobody
	case p.keep > 0:
		p.keep = 0
	default:
		return pick{}, false
	}
	return p, true
}

// chainOf is the chain to which a frontend leads.
func (f family) chainOf(front proxy.Frontend, l proxy.Lead) string {
	switch {
	case len(l.To) > 0:
		return pickFor(front, l).name(f)
	case l.Drop:
		return chainDrop
	}
	return chainReject
}

// addPick adds the chain, unless it is there, for one more that leads to it.
func (b *base) addPick(c *nftables.Conn, s *side, p pick) {
	if p.n == 0 {
		return
	}
	if s.picks[p]++; s.picks[p] > 1 {
		return
	}
	name := p.name(s.family)
	c.AddChain(b.chain(name))
	next, more := p.next()
	if !more {
		b.rule(c, name, isFamily(s.family), s.loadPicked(p), s.draw(p, reg0), s.redirect(reg0))
		return
	}
	b.addPick(c, s, next)
	onward := gotoChain(next.name(s.family))
	switch {
	case p.guarded:
		b.rule(c, name, verdict(expr.VerdictJump, chainRanges+s.digit()))
		b.rule(c, name, onward)
	case p.masquerade != proxy.MasqueradeNobody:
		if p.masquerade == proxy.MasqueradeNode {
			b.rule(c, name, isFamily(s.family), from(s.pods), onward)
		}
		b.rule(c, name, mark(), onward)
	default:
		b.rule(c, name, isFamily(s.family), s.session(p).recall())
		b.rule(c, name, isFamily(s.family), s.session(p).begin())
		b.rule(c, name, onward)
	}
}

// removePick says that one leads to the chain no longer.
func (b *base) removePick(c *nftables.Conn, s *side, p pick) {
	if p.n == 0 || p.keep == 0 {
		return
	}
	if s.picks[p]--; s.picks[p] > 0 {
		return
	}
	delete(s.picks, p)
	c.FlushChain(b.chain(p.name(s.family)))
	c.DelChain(b.chain(p.name(s.family)))
	if next, more := p.next(); more {
		b.removePick(c, s, next)
	}
}

// loadPicked loads the frontend by which a pick's backends are found: for a port of the node, whichever of its addresses it is.
func (s *side) loadPicked(p pick) []expr.Any {
	front := s.loadFrontend()
	if p.onNode {
		front[0] = s.loadEverywhere()
	}
	return front
}

// loadEverywhere loads the address that stands for all of the node's.
func (f family) loadEverywhere() expr.Any {
	return &expr.Immediate{Register: reg0, Data: f.whole().Addr().AsSlice()}
}

// draw finds any backend of the frontend that was loaded.
func (s *side) draw(p pick, to uint32) []expr.Any {
	endpoints := s.space(p.outside).endpoints
	return []expr.Any{
		&expr.Numgen{Register: reg2 + s.width(), Modulus: uint32(p.n), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: reg0, DestRegister: to, IsDestRegSet: true, SetName: endpoints.Name, SetID: endpoints.ID},
	}
}

// addLength has the chain of source ranges look for those of a length, unless it does. A rule for each length that any service names is all there is,
// so a packet's cost does not grow with their number.
func (b *base) addLength(c *nftables.Conn, s *side, bits int) {
	if s.lengths[bits] {
		return
	}
	s.lengths[bits] = true
	source, size := reg2+s.width(), int(s.size())
	c.InsertRule(&nftables.Rule{Table: b.table, Chain: b.chain(chainRanges + s.digit()), Exprs: exprs(isFamily(s.family), s.loadFrontend(), []expr.Any{
		s.loadSource(source),
		&expr.Bitwise{SourceRegister: source, DestRegister: source, Len: s.size(), Mask: net.CIDRMask(bits, 8*size), Xor: make([]byte, size)},
		&expr.Immediate{Register: source + s.width(), Data: number(uint32(bits))},
		&expr.Lookup{SourceRegister: reg0, SetName: s.ranges.Name, SetID: s.ranges.ID},
	}, verdict(expr.VerdictReturn, ""))})
}

func rangeKey(f proxy.Frontend, from netip.Prefix) []byte {
	return slices.Concat(f.Addr.AsSlice(), portKey(f), from.Addr().AsSlice(), number(uint32(from.Bits())))
}
