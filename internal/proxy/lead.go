package proxy

import (
	"net/netip"
	"slices"
)

// Most frontends share their chain with nobody, and the chain does nothing but balance. Such chains are not written: their frontends lead to
// the backends themselves, which lie in numbered places of one map for all services. So a service costs no objects of its own, and a change
// of its backends a few elements.

// Lead is where a frontend leads: to a chain, or to one of several backends, each as likely as the others.
type Lead struct {
	Chain string
	To    []netip.AddrPort // by place
}

// Place is where one of a frontend's backends lies.
type Place struct {
	Frontend
	Index int
}

func (l Lead) equal(o Lead) bool { return l.Chain == o.Chain && slices.Equal(l.To, o.To) }

func (l Lead) answers() bool { return l.Chain != Reject && l.Chain != Drop }

// direct are the chains that need not be written.
func (p Part) direct() map[string]bool {
	out := map[string]bool{}
	for name, rules := range p.Chains {
		out[name] = len(rules) == 1 && rules[0].balances()
	}
	for _, rules := range p.Chains {
		for _, r := range rules {
			delete(out, r.Goto)
		}
	}
	for f, name := range p.Frontends {
		if f.OnNode() {
			delete(out, name) // ports of the node have no place
		}
	}
	return out
}

// balances tells that a rule does nothing else.
func (r Rule) balances() bool {
	return len(r.To) > 0 && r.equal(Rule{To: r.To})
}

// arrange puts backends, which are sorted, into places. Who has one stays there, unless it is past the end.
func arrange(held, all []netip.AddrPort) []netip.AddrPort {
	if len(held) == 0 {
		return all
	}
	out, placed := make([]netip.AddrPort, len(all)), make([]bool, len(all))
	for i, b := range held[:min(len(held), len(all))] {
		if at, stays := slices.BinarySearchFunc(all, b, netip.AddrPort.Compare); stays {
			out[i], placed[at] = b, true
		}
	}
	free := 0
	for at, b := range all {
		if placed[at] {
			continue
		}
		for out[free].IsValid() {
			free++
		}
		out[free] = b
	}
	return out
}

// replaced are the places whose backend is another one now.
func replaced(f Frontend, was, now []netip.AddrPort) (out []Place) {
	for i := range min(len(was), len(now)) {
		if was[i] != now[i] {
			out = append(out, Place{f, i})
		}
	}
	return out
}

// places are those from one index up to another.
func places(f Frontend, from, to int) (out []Place) {
	for i := from; i < to; i++ {
		out = append(out, Place{f, i})
	}
	return out
}
