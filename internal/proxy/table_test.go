package proxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func addr(s string) netip.Addr           { return netip.MustParseAddr(s) }
func at(s string) netip.AddrPort         { return netip.MustParseAddrPort(s) }
func vip(s string, port uint16) Frontend { return Frontend{Addr: addr(s), Protocol: UDP, Port: port} }

func simple(front Frontend, to ...string) Part {
	p := Part{Frontends: map[Frontend]Lead{}}
	l := Lead{}
	for _, s := range to {
		l.To = append(l.To, at(s))
		p.UDP = append(p.UDP, at(s))
		p.Loops = append(p.Loops, at(s).Addr())
	}
	p.Frontends[front] = l
	return p
}

func TestNothingChangedIsAnEmptyDelta(t *testing.T) {
	table := NewTable()
	table.Set("a", simple(vip("10.43.0.5", 53), "10.42.0.1:53"))
	if d := table.Take(); d.Empty() || len(d.Frontends) != 1 || len(d.Loops) != 1 {
		t.Fatalf("the first delta lacks something: %+v", d)
	}
	table.Set("a", simple(vip("10.43.0.5", 53), "10.42.0.1:53"))
	table.Set("b", simple(vip("10.43.0.6", 53), "10.42.0.2:53"))
	table.Set("b", Part{})
	if d := table.Take(); !d.Empty() {
		t.Errorf("nothing changed, but the delta is %+v", d)
	}
}

func TestStaleUDP(t *testing.T) {
	front := vip("10.43.0.5", 53)
	table := NewTable()
	table.Set("a", simple(front))
	if d := table.Take(); len(d.LostUDP)+len(d.FreshUDP) != 0 {
		t.Errorf("no endpoints: %+v", d)
	}
	table.Set("a", simple(front, "10.42.0.1:53", "10.42.0.2:53"))
	if d := table.Take(); !slices.Equal(d.FreshUDP, []Frontend{front}) || len(d.LostUDP) != 0 {
		t.Errorf("first endpoints: %+v", d)
	}
	table.Set("a", simple(front, "10.42.0.2:53"))
	if d := table.Take(); !slices.Equal(d.LostUDP, []netip.AddrPort{at("10.42.0.1:53")}) || len(d.FreshUDP) != 0 {
		t.Errorf("an endpoint went away: %+v", d)
	}
	table.Set("a", Part{})
	if d := table.Take(); !slices.Equal(d.LostUDP, []netip.AddrPort{at("10.42.0.2:53")}) {
		t.Errorf("the service went away: %+v", d)
	}
}

func TestDeserted(t *testing.T) {
	front := vip("10.43.0.5", 53)
	table := NewTable()
	for _, step := range []struct {
		to, deserted []string
	}{
		{[]string{"10.42.0.1:53", "10.42.0.2:53"}, nil},
		{[]string{"10.42.0.1:53", "10.42.0.2:53"}, nil},
		{[]string{"10.42.0.2:53", "10.42.0.3:53"}, []string{"10.42.0.1:53"}},
		{nil, []string{"10.42.0.2:53", "10.42.0.3:53"}},
	} {
		table.Set("a", simple(front, step.to...))
		if got := fmt.Sprint(table.Take().Deserted); got != fmt.Sprint(step.deserted) {
			t.Errorf("led to %v: deserted are %s, want %v", step.to, got, step.deserted)
		}
	}
}

func TestWhoComesFirstHasTheFrontend(t *testing.T) {
	front := vip("192.0.2.1", 53)
	table := NewTable()
	table.Set("b", simple(front, "10.42.0.1:53"))
	table.Set("a", simple(front, "10.42.0.2:53"))
	if d := table.Take(); !d.Frontends[front].equal(Lead{To: []netip.AddrPort{at("10.42.0.1:53")}}) {
		t.Errorf("got %v, want b: it came first", d.Frontends[front])
	}
	table.Set("b", Part{})
	if d := table.Take(); !d.Frontends[front].equal(Lead{To: []netip.AddrPort{at("10.42.0.2:53")}}) || len(d.Old[front].To) != 1 {
		t.Errorf("got %v, want a: it is the only one left", d.Frontends[front])
	}
}

// TestOneAddressIsOneParts has two parts wish for an address. What comes from outside goes with all other, also when who has it begins to tell the two apart.
func TestOneAddressIsOneParts(t *testing.T) {
	front := vip("192.0.2.1", 53)
	apart := func(to string) Part {
		p := simple(front, to)
		p.Frontends[front.outside()] = Lead{Drop: true}
		return p
	}
	table, first, second := NewTable(), "10.42.0.1:53", "10.42.0.2:53"
	for i, step := range []struct {
		part    string
		is      Part
		to      string
		outside bool
	}{
		{"a", simple(front, first), first, false},
		{"b", apart(second), first, false},
		{"a", apart(first), first, true},
		{"b", Part{}, first, true},
		{"b", simple(front, second), first, true},
		{"a", Part{}, second, false},
		{"b", Part{}, "", false},
	} {
		table.Set(step.part, step.is)
		table.Take()
		to := ""
		if l := table.frontends.Now[front]; l.answers() {
			to = l.To[0].String()
		}
		if _, outside := table.frontends.Now[front.outside()]; to != step.to || outside != step.outside {
			t.Errorf("%d: it leads to %q, told apart: %t; want %q, %t", i, to, outside, step.to, step.outside)
		}
	}
	if len(table.claims) != 0 {
		t.Errorf("claims are left: %v", table.claims)
	}
}

// TestSessions: a session has the same number as long as it is the same, and knows its backends.
func TestSessions(t *testing.T) {
	front, port := vip("10.43.0.5", 53), vip("0.0.0.0", 30053)
	table := NewTable()
	sessions := map[uint32]bool{}
	for i, step := range []struct {
		keep     time.Duration
		to       []string
		fresh    bool
		now, not int // members that begin and end
	}{
		{time.Hour, []string{"10.42.0.1:53", "10.42.0.2:53"}, true, 2, 0},
		{time.Hour, []string{"10.42.0.1:53", "10.42.0.2:53"}, false, 0, 0},
		{time.Hour, []string{"10.42.0.2:53", "10.42.0.3:53"}, false, 1, 1},
		{time.Minute, []string{"10.42.0.2:53", "10.42.0.3:53"}, true, 2, 2},
		{0, []string{"10.42.0.2:53"}, false, 0, 2},
		{time.Minute, []string{"10.42.0.2:53"}, true, 1, 0},
		{time.Minute, nil, false, 0, 1},
	} {
		part := simple(front, step.to...)
		if len(step.to) > 0 {
			l := part.Frontends[front]
			l.Session = Session{Name: "s", Keep: step.keep}
			part.Frontends[front], part.Frontends[port] = l, l
		}
		table.Set("a", part)
		d := table.Take()
		if len(d.Members) != step.now || len(d.GoneMembers) != step.not {
			t.Errorf("%d: members %v begin and %v end, want %d and %d", i, d.Members, d.GoneMembers, step.now, step.not)
		}
		n := table.frontends.Now[front].Session.Number
		if step.keep == 0 || len(step.to) == 0 {
			if n != 0 || len(table.sessions) != 0 {
				t.Errorf("%d: there is no session, and it has the number %d", i, n)
			}
			continue
		}
		if sessions[n] == step.fresh || table.frontends.Now[port].Session.Number != n {
			t.Errorf("%d: its number is %d; want a new one: %t", i, n, step.fresh)
		}
		sessions[n] = true
	}
}

func TestRanges(t *testing.T) {
	front := vip("192.0.2.1", 53)
	table := NewTable()
	for i, step := range []struct{ ranges, now, gone string }{
		{"", "[]", "[]"},
		{"198.51.100.0/24 203.0.113.9/32", "[198.51.100.0/24 203.0.113.9/32]", "[]"},
		{"198.51.100.0/24", "[]", "[203.0.113.9/32]"},
		{"203.0.113.9/32", "[203.0.113.9/32]", "[198.51.100.0/24]"},
		{"", "[]", "[203.0.113.9/32]"},
	} {
		part := simple(front, "10.42.0.1:53")
		l := part.Frontends[front]
		for _, r := range strings.Fields(step.ranges) {
			l.Ranges = append(l.Ranges, netip.MustParsePrefix(r))
		}
		part.Frontends[front], part.Frontends[front.outside()] = l, l
		table.Set("a", part)
		d := table.Take()
		text := func(all []Range) string {
			out := []string{}
			for _, r := range all {
				out = append(out, r.From.String())
			}
			slices.Sort(out)
			return fmt.Sprint(out)
		}
		if text(d.Ranges) != step.now || text(d.GoneRanges) != step.gone {
			t.Errorf("%d: %v begin and %v end; want %s and %s", i, d.Ranges, d.GoneRanges, step.now, step.gone)
		}
	}
}

// TestPlaces: a change moves few backends, and what a packet may still be led to goes with the next one.
func TestPlaces(t *testing.T) {
	front := vip("10.43.0.5", 53)
	table := NewTable()
	for _, step := range []struct{ backends, places, written, gone string }{
		{"1 2 3 4", "1 2 3 4", "0=1 1=2 2=3 3=4", ""},
		{"1 2 3 4 5", "1 2 3 4 5", "4=5", ""},
		{"2 3 4 5", "5 2 3 4", "0=5", "0"},
		{"1 2 3 4 5", "5 2 3 4 1", "4=1", "4"},
		{"3 4", "3 4", "0=3 1=4", "0 1"},
		{"3 6", "3 6", "1=6", "1 2 3 4"},
		{"", "", "", ""},
		{"7", "7", "0=7", "0 1"},
	} {
		var to []string
		for _, n := range strings.Fields(step.backends) {
			to = append(to, "10.42.0."+n+":53")
		}
		table.Set("a", simple(front, to...))
		d := table.Take()
		last := func(b netip.AddrPort) string { return fmt.Sprint(b.Addr().As4()[3]) }
		var places, written, gone []string
		for _, b := range table.frontends.Now[front].To {
			places = append(places, last(b))
		}
		for p, b := range d.Places() {
			written = append(written, fmt.Sprintf("%d=%s", p.Index, last(b)))
		}
		for _, p := range d.GonePlaces {
			gone = append(gone, fmt.Sprint(p.Index))
		}
		slices.Sort(gone)
		got := [3]string{strings.Join(places, " "), strings.Join(written, " "), strings.Join(gone, " ")}
		if want := [3]string{step.places, step.written, step.gone}; got != want {
			t.Errorf("backends %s: got places, written, gone %q, want %q", step.backends, got, want)
		}
	}
}

// TestDeltasAddUp replays random changes and compares what all deltas make with what the table holds.
func TestDeltasAddUp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	table, k := NewTable(), newKernel()
	for range 10000 {
		name := fmt.Sprintf("s%d", rnd.IntN(12))
		var to []string
		for range rnd.IntN(6) {
			to = append(to, fmt.Sprintf("10.42.0.%d:53", 1+rnd.IntN(8)))
		}
		slices.Sort(to)
		front := vip(fmt.Sprintf("10.43.0.%d", 1+rnd.IntN(6)), 53)
		part := simple(front, slices.Compact(to)...)
		l, node := part.Frontends[front], Frontend{Addr: netip.IPv4Unspecified(), Protocol: UDP, Port: uint16(1 + rnd.IntN(3))}
		outside := func(f Frontend, m Masquerade) {
			l.Masquerade = m
			part.Frontends[f] = l
		}
		switch rnd.IntN(10) {
		case 0, 1:
			part = Part{}
		case 2:
			part.Frontends[node] = l
		case 3, 4:
			outside(node, MasqueradeAll)
		case 5:
			outside(node, MasqueradeNode)
			part.Frontends[node.outside()] = Lead{Drop: true}
			if len(l.To) > 1 {
				part.Frontends[node.outside()] = Lead{To: l.To[:1], Drop: true}
			}
		case 6:
			l.Ranges = []netip.Prefix{netip.PrefixFrom(addr("198.51.100.0"), 24+rnd.IntN(3))}
			outside(vip("192.0.2.1", 53), MasqueradeAll)
		case 7:
			if len(l.To) > 0 {
				l.Session = Session{Name: name, Keep: time.Duration(1+rnd.IntN(2)) * time.Minute}
			}
			part.Frontends[front] = l
			outside(node, MasqueradeAll)
		}
		table.Set(name, part)
		if rnd.IntN(3) == 0 {
			k.apply(t, table.Take())
			k.check(t, table)
		}
	}
}

// kernel holds what deltas make, and is as strict as the real one: nothing is added twice, or deleted that is not there.
type kernel struct {
	frontends map[Frontend]Lead
	places    map[Place]netip.AddrPort
	members   map[Member]bool
	ranges    map[Range]bool
	loops     map[netip.Addr]bool
}

func newKernel() *kernel {
	return &kernel{map[Frontend]Lead{}, map[Place]netip.AddrPort{}, map[Member]bool{}, map[Range]bool{}, map[netip.Addr]bool{}}
}

func add[K comparable, V any](t *testing.T, m map[K]V, k K, v V) {
	t.Helper()
	if _, had := m[k]; had {
		t.Fatalf("%v is added twice", k)
	}
	m[k] = v
}

func remove[K comparable, V any](t *testing.T, m map[K]V, k K) {
	t.Helper()
	if _, had := m[k]; !had {
		t.Fatalf("%v is deleted, and was not there", k)
	}
	delete(m, k)
}

func (k *kernel) apply(t *testing.T, d Delta) {
	t.Helper()
	for _, p := range d.GonePlaces {
		remove(t, k.places, p)
	}
	for p, b := range d.Places() {
		add(t, k.places, p, b)
	}
	for _, f := range d.GoneFrontends {
		remove(t, k.frontends, f)
	}
	for f, lead := range d.Frontends {
		if was, had := d.Old[f]; had {
			if !k.frontends[f].equal(was) {
				t.Fatalf("frontend %v led to %v, and the delta says %v", f, k.frontends[f], was)
			}
			remove(t, k.frontends, f)
			for i := range was.To { // for packets that are on their way
				if _, there := k.places[Place{f, i}]; !there {
					t.Fatalf("frontend %v: place %d went with the change that left it", f, i)
				}
			}
		}
		add(t, k.frontends, f, lead)
	}
	for _, m := range d.GoneMembers {
		remove(t, k.members, m)
	}
	for _, m := range d.Members {
		add(t, k.members, m, true)
	}
	for _, r := range d.GoneRanges {
		remove(t, k.ranges, r)
	}
	for _, r := range d.Ranges {
		add(t, k.ranges, r, true)
	}
	for _, a := range d.GoneLoops {
		remove(t, k.loops, a)
	}
	for _, a := range d.Loops {
		add(t, k.loops, a, true)
	}
}

// check compares the kernel with the table, and what leads with what it leads to.
func (k *kernel) check(t *testing.T, table *Table) {
	t.Helper()
	if !maps.EqualFunc(k.frontends, table.frontends.Now, Lead.equal) || !maps.Equal(k.members, keys(table.members.Now)) || len(k.loops) != len(table.hairpins.Now) {
		t.Fatal("the deltas do not add up to the table")
	}
	places, ranges := len(table.left), 0
	for f, lead := range k.frontends {
		for _, r := range lead.Ranges {
			if ranges++; !k.ranges[Range{f, r}] {
				t.Fatalf("frontend %v lacks the range %s", f, r)
			}
		}
		for _, b := range lead.To {
			if lead.Session.Keep > 0 && !k.members[Member{lead.Session.Number, b}] {
				t.Fatalf("frontend %v: its session does not know %v", f, b)
			}
		}
		for i, b := range lead.To {
			if k.places[Place{f, i}] != b {
				t.Fatalf("frontend %v: place %d is %v, want %v", f, i, k.places[Place{f, i}], b)
			}
		}
		places += len(lead.To)
	}
	if len(k.ranges) != ranges {
		t.Fatalf("%d ranges are written; want %d", len(k.ranges), ranges)
	}
	if len(k.places) != places {
		t.Fatalf("%d places are written; want %d", len(k.places), places)
	}
}

func keys[K comparable](of map[K]struct{}) map[K]bool {
	out := map[K]bool{}
	for k := range of {
		out[k] = true
	}
	return out
}

func TestHostPorts(t *testing.T) {
	got := text(HostPorts([]netip.Addr{addr("10.42.0.9"), addr("fd42::9")}, []HostPort{
		{Protocol: TCP, HostPort: 8080, Container: 80},
		{Protocol: TCP, HostIP: addr("127.0.0.1"), HostPort: 8080, Container: 81},
		{Protocol: UDP, HostIP: addr("0.0.0.0"), HostPort: 53, Container: 53},
	}))
	want := `* tcp 8080 -> 10.42.0.9:80
* udp 53 -> 10.42.0.9:53
127.0.0.1 tcp 8080 -> 10.42.0.9:81
*6 tcp 8080 -> [fd42::9]:80
loops [10.42.0.9 fd42::9]
udp [10.42.0.9:53]
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
