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
	loops  map[netip.Addr]int // how many parts name it

	frontends ledger.Ledger[Frontend, string]
	chains    ledger.Ledger[string, []Rule]
	memory    ledger.Ledger[string, time.Duration]
	hairpins  ledger.Ledger[netip.Addr, struct{}]
	serving   ledger.Ledger[netip.Addr, struct{}]
	serves    map[netip.Addr]int // how many parts name it
	lostUDP   map[netip.AddrPort]struct{}
}

// claim is a part's wish for a frontend. Two parts may wish for the same one (an external address, a host port); who came first has it.
type claim struct{ part, target string }

func NewTable() *Table {
	return &Table{
		parts:     map[string]Part{},
		claims:    map[Frontend][]claim{},
		loops:     map[netip.Addr]int{},
		frontends: ledger.New[Frontend](ledger.Same[string]),
		chains:    ledger.New[string](equalRules),
		memory:    ledger.New[string](ledger.Same[time.Duration]),
		hairpins:  ledger.New[netip.Addr](ledger.Same[struct{}]),
		serving:   ledger.New[netip.Addr](ledger.Same[struct{}]),
		serves:    map[netip.Addr]int{},
		lostUDP:   map[netip.AddrPort]struct{}{},
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
	for f := range old.Frontends {
		if _, still := part.Frontends[f]; !still {
			t.unclaim(f, name)
		}
	}
	for f, target := range part.Frontends {
		t.claim(f, claim{name, target})
	}
	for chain := range old.Chains {
		if _, still := part.Chains[chain]; !still {
			t.chains.Remove(chain)
			t.memory.Remove(chain)
		}
	}
	for chain, rules := range part.Chains {
		t.chains.Set(chain, rules)
		if d := stickiness(rules); d > 0 {
			t.memory.Set(chain, d)
		} else {
			t.memory.Remove(chain)
		}
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

func (t *Table) claim(f Frontend, c claim) {
	claims := t.claims[f]
	if i := slices.IndexFunc(claims, func(o claim) bool { return o.part == c.part }); i >= 0 {
		claims[i] = c
	} else {
		claims = append(claims, c)
	}
	t.claims[f] = claims
	t.frontends.Set(f, claims[0].target)
}

func (t *Table) unclaim(f Frontend, part string) {
	claims := slices.DeleteFunc(t.claims[f], func(c claim) bool { return c.part == part })
	if len(claims) == 0 {
		delete(t.claims, f)
		t.frontends.Remove(f)
		return
	}
	t.claims[f] = claims
	t.frontends.Set(f, claims[0].target)
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

// Delta is what changed. It is applied as a whole or not at all.
type Delta struct {
	Frontends     map[Frontend]string // new, or leading elsewhere
	GoneFrontends []Frontend
	Old           map[Frontend]bool // those of Frontends that led somewhere before
	Chains        map[string][]Rule // new, or changed
	NewChains     []string
	GoneChains    []string
	Memory        map[string]time.Duration // chains that begin to remember senders
	GoneMemory    []string                 // chains that stop
	Loops         []netip.Addr
	GoneLoops     []netip.Addr
	Withdrawn     []netip.Addr // backends on this node to which nothing is led any more, or only for want of others. Nothing to write.

	LostUDP  []netip.AddrPort // backends whose connections must be forgotten, because UDP knows no end
	FreshUDP []Frontend       // frontends that nobody answered before: connections that know no backend must be forgotten
}

// Empty tells that there is nothing to do.
func (d *Delta) Empty() bool {
	return len(d.Frontends) == 0 && len(d.GoneFrontends) == 0 && len(d.Chains) == 0 && len(d.GoneChains) == 0 &&
		len(d.Memory) == 0 && len(d.GoneMemory) == 0 && len(d.Loops) == 0 && len(d.GoneLoops) == 0
}

// Take hands out what changed since it was last called.
func (t *Table) Take() Delta {
	d := Delta{Old: map[Frontend]bool{}}
	for f, was := range t.frontends.Was {
		target, now := t.frontends.Now[f]
		d.Old[f] = was.Held
		if now && f.Protocol == UDP && answers(target) && !(was.Held && answers(was.Value)) {
			d.FreshUDP = append(d.FreshUDP, f)
		}
	}
	for c, was := range t.chains.Was {
		if _, now := t.chains.Now[c]; now && !was.Held {
			d.NewChains = append(d.NewChains, c)
		}
	}
	for m, was := range t.memory.Was {
		// A memory that keeps its chain but not its time is made anew.
		if now, held := t.memory.Now[m]; held && was.Held && now != was.Value {
			d.GoneMemory = append(d.GoneMemory, m)
		}
	}
	d.Frontends, d.GoneFrontends = t.frontends.Take()
	d.Chains, d.GoneChains = t.chains.Take()
	memory, gone := t.memory.Take()
	d.Memory, d.GoneMemory = memory, append(d.GoneMemory, gone...)
	loops, goneLoops := t.hairpins.Take()
	for a := range loops {
		d.Loops = append(d.Loops, a)
	}
	d.GoneLoops = goneLoops
	_, d.Withdrawn = t.serving.Take()
	for b := range t.lostUDP {
		d.LostUDP = append(d.LostUDP, b)
	}
	clear(t.lostUDP)
	slices.SortFunc(d.LostUDP, netip.AddrPort.Compare)
	slices.SortFunc(d.FreshUDP, compareFrontends)
	return d
}

func answers(target string) bool { return target != Reject && target != Drop }

// All is the whole table as one delta from nothing, and takes all changes.
func (t *Table) All() Delta {
	d := t.Take()
	d.Frontends, d.Chains, d.Memory = t.frontends.Now, t.chains.Now, t.memory.Now
	d.GoneFrontends, d.GoneChains, d.GoneMemory, d.GoneLoops, d.NewChains, d.Loops = nil, nil, nil, nil, nil, nil
	d.Old = nil
	for c := range d.Chains {
		d.NewChains = append(d.NewChains, c)
	}
	for a := range t.hairpins.Now {
		d.Loops = append(d.Loops, a)
	}
	return d
}
