package proxy

import (
	"net/netip"
	"slices"
	"time"
)

// Table is everything this node sends somewhere. It is not safe for use by several goroutines.
type Table struct {
	parts  map[string]Part
	claims map[Frontend][]claim
	loops  map[netip.Addr]int // how many parts name it

	frontends ledger[Frontend, string]
	chains    ledger[string, []Rule]
	memory    ledger[string, time.Duration]
	hairpins  ledger[netip.Addr, struct{}]
	lostUDP   map[netip.AddrPort]struct{}
}

// claim is a part's wish for a frontend. Two parts may wish for the same one (an external address, a host port); who came first has it.
type claim struct{ part, target string }

func NewTable() *Table {
	return &Table{
		parts:     map[string]Part{},
		claims:    map[Frontend][]claim{},
		loops:     map[netip.Addr]int{},
		frontends: newLedger[Frontend](func(a, b string) bool { return a == b }),
		chains:    newLedger[string](equalRules),
		memory:    newLedger[string](func(a, b time.Duration) bool { return a == b }),
		hairpins:  newLedger[netip.Addr](func(_, _ struct{}) bool { return true }),
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
			t.chains.remove(chain)
			t.memory.remove(chain)
		}
	}
	for chain, rules := range part.Chains {
		t.chains.set(chain, rules)
		if d := stickiness(rules); d > 0 {
			t.memory.set(chain, d)
		} else {
			t.memory.remove(chain)
		}
	}
	t.setLoops(old.Loops, part.Loops)
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
	t.frontends.set(f, claims[0].target)
}

func (t *Table) unclaim(f Frontend, part string) {
	claims := slices.DeleteFunc(t.claims[f], func(c claim) bool { return c.part == part })
	if len(claims) == 0 {
		delete(t.claims, f)
		t.frontends.remove(f)
		return
	}
	t.claims[f] = claims
	t.frontends.set(f, claims[0].target)
}

func (t *Table) setLoops(old, now []netip.Addr) {
	for _, a := range now {
		t.loops[a]++
		t.hairpins.set(a, struct{}{})
	}
	for _, a := range old {
		if t.loops[a]--; t.loops[a] == 0 {
			delete(t.loops, a)
			t.hairpins.remove(a)
		}
	}
}

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
	for f, was := range t.frontends.was {
		target, now := t.frontends.now[f]
		d.Old[f] = was.held
		if now && f.Protocol == UDP && answers(target) && !(was.held && answers(was.value)) {
			d.FreshUDP = append(d.FreshUDP, f)
		}
	}
	for c, was := range t.chains.was {
		if _, now := t.chains.now[c]; now && !was.held {
			d.NewChains = append(d.NewChains, c)
		}
	}
	for m, was := range t.memory.was {
		// A memory that keeps its chain but not its time is made anew.
		if now, held := t.memory.now[m]; held && was.held && now != was.value {
			d.GoneMemory = append(d.GoneMemory, m)
		}
	}
	d.Frontends, d.GoneFrontends = t.frontends.take()
	d.Chains, d.GoneChains = t.chains.take()
	memory, gone := t.memory.take()
	d.Memory, d.GoneMemory = memory, append(d.GoneMemory, gone...)
	loops, goneLoops := t.hairpins.take()
	for a := range loops {
		d.Loops = append(d.Loops, a)
	}
	d.GoneLoops = goneLoops
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
	d.Frontends, d.Chains, d.Memory = t.frontends.now, t.chains.now, t.memory.now
	d.GoneFrontends, d.GoneChains, d.GoneMemory, d.GoneLoops, d.NewChains, d.Loops = nil, nil, nil, nil, nil, nil
	d.Old = nil
	for c := range d.Chains {
		d.NewChains = append(d.NewChains, c)
	}
	for a := range t.hairpins.now {
		d.Loops = append(d.Loops, a)
	}
	return d
}

// ledger is a map that remembers what it held when its changes were last taken.
type ledger[K comparable, V any] struct {
	now   map[K]V
	was   map[K]before[V]
	equal func(a, b V) bool
}

type before[V any] struct {
	value V
	held  bool
}

func newLedger[K comparable, V any](equal func(a, b V) bool) ledger[K, V] {
	return ledger[K, V]{now: map[K]V{}, was: map[K]before[V]{}, equal: equal}
}

func (l *ledger[K, V]) set(k K, v V) {
	old, held := l.now[k]
	if held && l.equal(old, v) {
		return
	}
	l.note(k, old, held)
	l.now[k] = v
}

func (l *ledger[K, V]) remove(k K) {
	if old, held := l.now[k]; held {
		l.note(k, old, held)
		delete(l.now, k)
	}
}

func (l *ledger[K, V]) note(k K, old V, held bool) {
	if _, noted := l.was[k]; !noted {
		l.was[k] = before[V]{old, held}
	}
}

// take returns what is new or different, and what is gone.
func (l *ledger[K, V]) take() (changed map[K]V, gone []K) {
	changed = map[K]V{}
	for k, was := range l.was {
		now, held := l.now[k]
		switch {
		case held && (!was.held || !l.equal(was.value, now)):
			changed[k] = now
		case !held && was.held:
			gone = append(gone, k)
		}
	}
	clear(l.was)
	return changed, gone
}
