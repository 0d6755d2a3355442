package proxy

import (
	"net/netip"
	"slices"

	"skiff.dev/skiff/internal/ledger"
)

// Table is everything this node sends somewhere. It is not safe for use by several goroutines.
type Table struct {
	parts    map[string]Part
	claims   map[Frontend][]string // the parts that wish for it: an external address, or a host port, may be wished for by two. Who came first has it.
	sessions map[Session]uint32    // → number
	numbered uint32                // is the last number given
	loops    map[netip.Addr]int    // how many parts name it
	serves   map[netip.Addr]int    // likewise
	left     []Place               // are empty, and still written

	frontends ledger.Ledger[Frontend, Lead]
	members   ledger.Ledger[Member, struct{}]
	hairpins  ledger.Ledger[netip.Addr, struct{}]
	serving   ledger.Ledger[netip.Addr, struct{}]
	lostUDP   map[netip.AddrPort]struct{}
	deserted  map[netip.AddrPort]struct{}
}

func NewTable() *Table {
	return &Table{
		parts:     map[string]Part{},
		claims:    map[Frontend][]string{},
		sessions:  map[Session]uint32{},
		loops:     map[netip.Addr]int{},
		serves:    map[netip.Addr]int{},
		frontends: ledger.New[Frontend](Lead.equal),
		members:   ledger.New[Member](ledger.Same[struct{}]),
		hairpins:  ledger.New[netip.Addr](ledger.Same[struct{}]),
		serving:   ledger.New[netip.Addr](ledger.Same[struct{}]),
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
	t.setSessions(old, part)
	t.desert(old, part)
	for f := range old.Frontends {
		if _, still := part.Frontends[f]; !still {
			t.unclaim(f, name)
		}
	}
	for f := range part.Frontends {
		t.claim(f, name)
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

// setSessions replaces the sessions of a part. One whose time changes is another one, which remembers nobody.
func (t *Table) setSessions(old, now Part) {
	was, is := old.sessions(), now.sessions()
	for s, to := range was {
		for _, b := range to {
			t.members.Remove(Member{t.sessions[s], b})
		}
		if _, still := is[s]; !still {
			delete(t.sessions, s)
		}
	}
	for s, to := range is {
		if _, known := t.sessions[s]; !known {
			t.numbered++
			t.sessions[s] = t.numbered
		}
		for _, b := range to {
			t.members.Set(Member{t.sessions[s], b}, struct{}{})
		}
	}
}

// desert notes the backends to which a part led and leads no longer.
func (t *Table) desert(old, now Part) {
	if len(old.Frontends) == 0 {
		return
	}
	still := now.backends()
	for b := range old.backends() {
		if !still[b] {
			t.deserted[b] = struct{}{}
		}
	}
}

// claim has a part wish for a frontend. The one of what comes from outside goes with the one beside it, so that never two parts lead to one address.
func (t *Table) claim(f Frontend, part string) {
	if f.Outside {
		return
	}
	if !slices.Contains(t.claims[f], part) {
		t.claims[f] = append(t.claims[f], part)
	}
	t.lead(f)
}

func (t *Table) unclaim(f Frontend, part string) {
	if f.Outside {
		return
	}
	t.claims[f] = slices.DeleteFunc(t.claims[f], func(c string) bool { return c == part })
	t.lead(f)
}

// lead has a frontend lead where the part says that has it, and the one of what comes from outside too.
func (t *Table) lead(f Frontend) {
	has := Part{}
	if claims := t.claims[f]; len(claims) > 0 {
		has = t.parts[claims[0]]
	} else {
		delete(t.claims, f)
	}
	for _, f := range []Frontend{f, f.outside()} {
		l, ok := has.Frontends[f]
		if !ok {
			t.frontends.Remove(f)
			continue
		}
		l.Session.Number = t.sessions[l.Session]
		l.To = arrange(t.frontends.Now[f].To, l.To)
		t.frontends.Set(f, l)
	}
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
