package proxy

import (
	"net/netip"
	"slices"
	"time"

	"skiff.dev/skiff/internal/ledger"
)

// Table is everything this node sends somewhere. It is not safe for use by several goroutines.
type Table struct {
	parts  map[string]Part
	claims map[Frontend][]claim
	direct map[string]Lead    // of chains that are not written, because their frontends lead to the backends themselves
	loops  map[netip.Addr]int // how many parts name it
	left   []Place            // are empty, and still written

	frontends ledger.Ledger[Frontend, Lead]
	chains    ledger.Ledger[string, []Rule]
	memory    ledger.Ledger[string, time.Duration]
	hairpins  ledger.Ledger[netip.Addr, struct{}]
	serving   ledger.Ledger[netip.Addr, struct{}]
	serves    map[netip.Addr]int // how many parts name it
	lostUDP   map[netip.AddrPort]struct{}
	deserted  map[netip.AddrPort]struct{}
}

// claim is a part's wish for a frontend. Two parts may wish for the same one (an external address, a host port); who came first has it.
type claim struct{ part, target string }

func NewTable() *Table {
	return &Table{
		parts:     map[string]Part{},
		claims:    map[Frontend][]claim{},
		direct:    map[string]Lead{},
		loops:     map[netip.Addr]int{},
		frontends: ledger.New[Frontend](Lead.equal),
		chains:    ledger.New[string](equalRules),
		memory:    ledger.New[string](ledger.Same[time.Duration]),
		hairpins:  ledger.New[netip.Addr](ledger.Same[struct{}]),
		serving:   ledger.New[netip.Addr](ledger.Same[struct{}]),
		serves:    map[netip.Addr]int{},
		lostUDP:   map[netip.AddrPort]struct{}{},
		deserted:  map[netip.AddrPort]struct{}{},
	}
}

// Set replaces what the named part contributes; a zero part removes it.
func (t *Table) Set(name string, part Part) {
	old := t.parts[name]
	if len(part.Frontends) == 0 {
		delete(t.parts, name)
	} else {
		t.parts[name] = part
	}
	t.setChains(old.Chains, part)
	t.desert(old.Chains, part.Chains)
	for f := range old.Frontends {
		if _, still := part.Frontends[f]; !still {
			t.unclaim(f, name)
		}
	}
	for f, target := range part.Frontends {
		t.claim(f, claim{name, target})
	}
	count(t.loops, &t.hairpins, old.Loops, part.Loops)
	count(t.serves, &t.serving, old.Serving, part.Serving)
	for _, b := range part.UDP {
		delete(t.lostUDP, b)
	}
	for _, b := range old.UDP {
		if _, still := slices.BinarySearchFunc(part.UDP, b, netip.AddrPort.Compare); !still {
			t.lostUDP[b] = struct{}{}
		}
	}
}

// setChains replaces the chains of a part.
func (t *Table) setChains(old map[string][]Rule, part Part) {
	for chain := range old {
		if _, still := part.Chains[chain]; !still {
			t.removeChain(chain)
			delete(t.direct, chain)
		}
	}
	direct := part.direct()
	for chain, rules := range part.Chains {
		if l, ok := direct[chain]; ok {
			t.removeChain(chain)
			t.direct[chain] = l
			continue
		}
		delete(t.direct, chain)
		t.chains.Set(chain, rules)
		if d := stickiness(rules); d > 0 {
			t.memory.Set(chain, d)
		} else {
			t.memory.Remove(chain)
		}
	}
}

// desert notes the backends to which a part's chains led and lead no longer.
func (t *Table) desert(old, now map[string][]Rule) {
	for name, rules := range old {
		if equalRules(rules, now[name]) {
			continue
		}
		for _, r := range rules {
			for _, b := range r.To {
				if !leads(now, b) {
					t.deserted[b] = struct{}{}
				}
			}
		}
	}
}

func leads(chains map[string][]Rule, to netip.AddrPort) bool {
	for _, rules := range chains {
		for _, r := range rules {
			if _, found := slices.BinarySearchFunc(r.To, to, netip.AddrPort.Compare); found {
				return true
			}
		}
	}
	return false
}

func (t *Table) removeChain(chain string) {
	t.chains.Remove(chain)
	t.memory.Remove(chain)
}

func (t *Table) claim(f Frontend, c claim) {
	claims := t.claims[f]
	if i := slices.IndexFunc(claims, func(o claim) bool { return o.part == c.part }); i >= 0 {
		claims[i] = c
	} else {
		claims = append(claims, c)
	}
	t.claims[f] = claims
	t.lead(f, claims[0].target)
}

func (t *Table) unclaim(f Frontend, part string) {
	claims := slices.DeleteFunc(t.claims[f], func(c claim) bool { return c.part == part })
	if len(claims) == 0 {
		delete(t.claims, f)
		t.frontends.Remove(f)
		return
	}
	t.claims[f] = claims
	t.lead(f, claims[0].target)
}

// lead has a frontend lead to a chain, or to what the chain would lead to.
func (t *Table) lead(f Frontend, target string) {
	l, direct := t.direct[target]
	if direct {
		l.To = arrange(t.frontends.Now[f].To, l.To)
	} else {
		l.Chain = target
	}
	t.frontends.Set(f, l)
}

// count keeps in the ledger the addresses that at least one part names.
func count(times map[netip.Addr]int, l *ledger.Ledger[netip.Addr, struct{}], old, now []netip.Addr) {
	for _, a := range now {
		times[a]++
		l.Set(a, struct{}{})
	}
	for _, a := range old {
		if times[a]--; times[a] == 0 {
			delete(times, a)
			l.Remove(a)
		}
	}
}

// Serves tells whether new connections are led to a backend on this node that is not on its way out.
func (t *Table) Serves(a netip.Addr) bool { return t.serves[a] > 0 }
