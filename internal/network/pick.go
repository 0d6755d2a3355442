package network

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/proxy"
)

// pick is what a chain does that leads to any of n backends of a frontend, each with the same probability. It serves all frontends of the family that
// are alike, and stays: the kernel walks through the map of all endpoints when another chain refers to it, and for each endpoint through all
// that do.
type pick struct {
	n          int
	onNode     bool // frontends are ports of the node
	masquerade bool
}

func pickFor(f proxy.Frontend, l proxy.Lead) pick {
	return pick{n: len(l.To), onNode: f.OnNode(), masquerade: l.Masquerade}
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
	if p.onNode {
		kind += "-node"
	}
	if p.masquerade {
		kind += "-masquerade"
	}
	return fmt.Sprintf("%s%s/%d", kind, f.digit(), p.n)
}

// chainOf is the chain to which a frontend leads.
func (f family) chainOf(front proxy.Frontend, l proxy.Lead) string {
	if len(l.To) > 0 {
		return pickFor(front, l).name(f)
	}
	return l.Chain
}

// addPick adds the chain, unless it is there.
func (b *base) addPick(c *nftables.Conn, s *side, p pick) {
	if p.n == 0 || s == nil || s.picks[p] {
		return
	}
	s.picks[p] = true
	name := p.name(s.family)
	c.AddChain(b.chain(name))
	if p.masquerade {
		p.masquerade = false
		b.addPick(c, s, p)
		b.rule(c, name, mark(), gotoChain(p.name(s.family)))
		return
	}
	front, draw := s.loadFrontend(), reg2+s.width()
	if p.onNode { // whichever of the node's addresses it is
		front[0] = &expr.Immediate{Register: reg0, Data: s.whole().Addr().AsSlice()}
	}
	b.rule(c, name, isFamily(s.family), front, []expr.Any{
		&expr.Numgen{Register: draw, Modulus: uint32(p.n), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: s.endpoints.Name, SetID: s.endpoints.ID},
	}, s.redirect(reg0))
}
