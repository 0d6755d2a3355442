package proxy

import (
	"net/netip"
	"slices"
)

// Most chains do nothing but balance, or ask for masquerade and go on in one that does nothing but balance. Such chains are not written: their
// frontends lead to the backends themselves, which lie in numbered places of one map for all services. So a service costs no objects of its
// own, and a change of its backends a few elements.

// Lead is where a frontend leads: to a chain, or to one of several backends, each as likely as the others.
type Lead struct {
	Chain      string
	To         []netip.AddrPort // by place
	Masquerade bool             // the answer has to come back through this node
}

// Place is where one of a frontend's backends lies.
type Place struct {
	Frontend
	Index int
}

func (l Lead) equal(o Lead) bool {
	return l.Chain == o.Chain && l.Masquerade == o.Masquerade && slices.Equal(l.To, o.To)
}

func (l Lead) answers() bool { return l.Chain != Reject && l.Chain != Drop }

// direct are the chains that need not be written, and where their frontends lead instead: the plain ones in which no chain goes on that is
// written.
func (p Part) direct() map[string]Lead {
	out := map[string]Lead{}
	for name := range p.Chains {
		if l, ok := p.plain(name); ok {
			out[name] = l
		}
	}
	for name, rules := range p.Chains {
		if _, ok := p.plain(name); !ok {
			p.write(rules, out)
		}
	}
	return out
}

// write takes out of the direct chains those in which written rules go on, and in which these go on in turn.
func (p Part) write(rules []Rule, direct map[string]Lead) {
	for _, r := range rules {
		if _, ok := direct[r.Goto]; ok {
			delete(direct, r.Goto)
			p.write(p.Chains[r.Goto], direct)
		}
	}
}

// plain tells where a chain leads that does nothing but balance, or masquerade and balance.
func (p Part) plain(chain string) (Lead, bool) {
	rules := p.Chains[chain]
	if len(rules) != 1 {
		return Lead{}, false
	}
	r := rules[0]
	if r.balances() {
		return Lead{To: r.To}, true
	}
	next := p.Chains[r.Goto]
	if len(next) != 1 || !next[0].balances() || !r.equal(Rule{Masquerade: true, Goto: r.Goto}) {
		return Lead{}, false
	}
	return Lead{To: next[0].To, Masquerade: true}, true
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
