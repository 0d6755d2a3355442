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
func vip(s string, port uint16) Frontend { return Frontend{addr(s), UDP, port} }

func simple(name string, front Frontend, to ...string) Part {
	p := Part{Frontends: map[Frontend]string{front: Reject}, Chains: map[string][]Rule{}}
	if len(to) == 0 {
		return p
	}
	r := Rule{}
	for _, s := range to {
		r.To = append(r.To, at(s))
		p.UDP = append(p.UDP, at(s))
		p.Loops = append(p.Loops, at(s).Addr())
	}
	p.Frontends[front] = name
	p.Chains[name] = []Rule{r}
	return p
}

func TestNothingChangedIsAnEmptyDelta(t *testing.T) {
	table := NewTable()
	table.Set("a", simple("a", vip("10.43.0.5", 53), "10.42.0.1:53"))
	if d := table.Take(); d.Empty() || len(d.Frontends) != 1 || len(d.Loops) != 1 {
		t.Fatalf("the first delta lacks something: %+v", d)
	}
	table.Set("a", simple("a", vip("10.43.0.5", 53), "10.42.0.1:53"))
	table.Set("b", simple("b", vip("10.43.0.6", 53), "10.42.0.2:53"))
	table.Set("b", Part{})
	if d := table.Take(); !d.Empty() {
		t.Errorf("nothing changed, but the delta is %+v", d)
	}
}

func TestStaleUDP(t *testing.T) {
	front := vip("10.43.0.5", 53)
	table := NewTable()
	table.Set("a", simple("a", front))
	if d := table.Take(); len(d.LostUDP)+len(d.FreshUDP) != 0 {
		t.Errorf("no endpoints: %+v", d)
	}
	table.Set("a", simple("a", front, "10.42.0.1:53", "10.42.0.2:53"))
	if d := table.Take(); !slices.Equal(d.FreshUDP, []Frontend{front}) || len(d.LostUDP) != 0 {
		t.Errorf("first endpoints: %+v", d)
	}
	table.Set("a", simple("a", front, "10.42.0.2:53"))
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
		table.Set("a", simple("a", front, step.to...))
		if got := fmt.Sprint(table.Take().Deserted); got != fmt.Sprint(step.deserted) {
			t.Errorf("led to %v: deserted are %s, want %v", step.to, got, step.deserted)
		}
	}
}

func TestWhoComesFirstHasTheFrontend(t *testing.T) {
	front := vip("192.0.2.1", 53)
	table := NewTable()
	table.Set("b", simple("b", front, "10.42.0.1:53"))
	table.Set("a", simple("a", front, "10.42.0.2:53"))
	if d := table.Take(); !d.Frontends[front].equal(Lead{To: []netip.AddrPort{at("10.42.0.1:53")}}) {
		t.Errorf("got %v, want b: it came first", d.Frontends[front])
	}
	table.Set("b", Part{})
	if d := table.Take(); !d.Frontends[front].equal(Lead{To: []netip.AddrPort{at("10.42.0.2:53")}}) || len(d.Old[front].To) != 1 {
		t.Errorf("got %v, want a: it is the only one left", d.Frontends[front])
	}
}

func TestMemoryFollowsItsChain(t *testing.T) {
	front := vip("10.43.0.5", 53)
	sticky := func(d time.Duration) Part {
		p := simple("a", front, "10.42.0.1:53")
		p.Chains["a"][0].Sticky = d
		return p
	}
	table := NewTable()
	table.Set("a", sticky(time.Hour))
	if d := table.Take(); d.Memory["a"] != time.Hour {
		t.Errorf("begins to remember: %+v", d)
	}
	table.Set("a", sticky(time.Minute))
	if d := table.Take(); d.Memory["a"] != time.Minute || !slices.Equal(d.GoneMemory, []string{"a"}) {
		t.Errorf("remembers for another time: %+v", d)
	}
	table.Set("a", sticky(0))
	if d := table.Take(); len(d.Memory) != 0 || !slices.Equal(d.GoneMemory, []string{"a"}) {
		t.Errorf("stops to remember: %+v", d)
	}
}

func TestMostChainsAreNotWritten(t *testing.T) {
	front, other := vip("10.43.0.5", 53), vip("0.0.0.0", 30053)
	table := NewTable()
	part := simple("a", front, "10.42.0.1:53", "10.42.0.2:53")
	table.Set("a", part)
	if d := table.Take(); len(d.Chains) != 0 || len(d.Frontends[front].To) != 2 {
		t.Errorf("a frontend alone: %+v", d)
	}
	for what, step := range map[string]struct {
		change     func(*Part)
		masquerade bool
	}{
		"a port of the node": {func(p *Part) { p.Frontends[other] = "a" }, false},
		"masquerade":         {func(p *Part) { p.Frontends[other], p.Chains["b"] = "b", []Rule{{Masquerade: true, Goto: "a"}} }, true},
	} {
		plain := simple("a", front, "10.42.0.1:53", "10.42.0.2:53")
		step.change(&plain)
		table.Set("a", plain)
		if d := table.Take(); len(d.Chains) != 0 || !d.Frontends[other].equal(Lead{To: plain.Chains["a"][0].To, Masquerade: step.masquerade}) {
			t.Errorf("%s needs no chain: %+v", what, d)
		}
		table.Set("a", part)
		table.Take()
	}
	for what, change := range map[string]func(*Part){
		"a chain that chooses": func(p *Part) {
			p.Frontends[other], p.Chains["b"] = "b", []Rule{{FromHost: true, Masquerade: true, Goto: "a"}, {Goto: Drop}}
		},
		"a chain that chooses before masquerade": func(p *Part) {
			p.Frontends[other], p.Chains["c"] = "c", []Rule{{FromHost: true, Goto: "b"}, {Goto: Drop}}
			p.Chains["b"] = []Rule{{Masquerade: true, Goto: "a"}}
		},
		"affinity": func(p *Part) { p.Chains["a"][0].Sticky = time.Hour },
		"affinity behind masquerade": func(p *Part) {
			p.Frontends[other], p.Chains["b"], p.Chains["a"][0].Sticky = "b", []Rule{{Masquerade: true, Goto: "a"}}, time.Hour
		},
	} {
		special := simple("a", front, "10.42.0.1:53", "10.42.0.2:53")
		change(&special)
		table.Set("a", special)
		if d := table.Take(); d.Frontends[front].Chain != "a" || len(d.Chains["a"]) != 1 {
			t.Errorf("%s needs the chain: %+v", what, d)
		}
		table.Set("a", part)
		if d := table.Take(); len(d.Frontends[front].To) != 2 || !slices.Contains(d.GoneChains, "a") {
			t.Errorf("without %s it needs none: %+v", what, d)
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
		table.Set("a", simple("a", front, to...))
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
		part := simple(name, vip(fmt.Sprintf("10.43.0.%d", 1+rnd.IntN(6)), 53), slices.Compact(to)...)
		node := Frontend{netip.IPv4Unspecified(), UDP, uint16(1 + rnd.IntN(3))}
		switch rnd.IntN(10) {
		case 0, 1:
			part = Part{}
		case 2:
			part.Frontends[node] = slices.Collect(maps.Values(part.Frontends))[0]
		case 3, 4:
			part.addOutside(node, name, Rule{Masquerade: true, Goto: name})
		case 5:
			part.addOutside(node, name, Rule{FromHost: true, Masquerade: true, Goto: name}, Rule{Goto: Drop})
		case 6:
			part.addOutside(vip("192.0.2.1", 53), name, Rule{Masquerade: true, Goto: name})
		}
		table.Set(name, part)
		if rnd.IntN(3) == 0 {
			k.apply(t, table.Take())
			k.check(t, table)
		}
	}
}

// addOutside has a frontend lead by rules to a part's chain, if it has one.
func (part *Part) addOutside(f Frontend, chain string, rules ...Rule) {
	if _, ok := part.Chains[chain]; ok {
		part.Frontends[f], part.Chains["ext/"+chain] = "ext/"+chain, rules
	}
}

// kernel holds what deltas make, and is as strict as the real one: nothing is added twice, or deleted that is not there.
type kernel struct {
	frontends map[Frontend]Lead
	places    map[Place]netip.AddrPort
	chains    map[string][]Rule
	loops     map[netip.Addr]bool
}

func newKernel() *kernel {
	return &kernel{map[Frontend]Lead{}, map[Place]netip.AddrPort{}, map[string][]Rule{}, map[netip.Addr]bool{}}
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
	for _, c := range d.NewChains {
		add(t, k.chains, c, nil)
	}
	for _, c := range d.GoneChains {
		remove(t, k.chains, c)
	}
	maps.Copy(k.chains, d.Chains)
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
	if !maps.EqualFunc(k.frontends, table.frontends.Now, Lead.equal) || !maps.EqualFunc(k.chains, table.chains.Now, equalRules) || len(k.loops) != len(table.hairpins.Now) {
		t.Fatal("the deltas do not add up to the table")
	}
	places := len(table.left)
	for f, lead := range k.frontends {
		if _, ok := k.chains[lead.Chain]; !ok && lead.Chain != Reject && len(lead.To) == 0 {
			t.Fatalf("frontend %v leads to chain %s, which is not there", f, lead.Chain)
		}
		for i, b := range lead.To {
			if k.places[Place{f, i}] != b {
				t.Fatalf("frontend %v: place %d is %v, want %v", f, i, k.places[Place{f, i}], b)
			}
		}
		places += len(lead.To)
	}
	if len(k.places) != places {
		t.Fatalf("%d places are written; want %d", len(k.places), places)
	}
}

func TestHostPorts(t *testing.T) {
	got := text(HostPorts("abc-eth0", []netip.Addr{addr("10.42.0.9"), addr("fd42::9")}, []HostPort{
		{Protocol: TCP, HostPort: 8080, Container: 80},
		{Protocol: TCP, HostIP: addr("127.0.0.1"), HostPort: 8080, Container: 81},
		{Protocol: UDP, HostIP: addr("0.0.0.0"), HostPort: 53, Container: 53},
	}))
	want := `* tcp 8080 -> host/abc-eth0/tcp/8080
* udp 53 -> host/abc-eth0/udp/53
127.0.0.1 tcp 8080 -> host/abc-eth0/tcp/8080/127.0.0.1
*6 tcp 8080 -> host6/abc-eth0/tcp/8080
chain host/abc-eth0/tcp/8080
  to 10.42.0.9:80
chain host/abc-eth0/tcp/8080/127.0.0.1
  to 10.42.0.9:81
chain host/abc-eth0/udp/53
  to 10.42.0.9:53
chain host6/abc-eth0/tcp/8080
  to [fd42::9]:80
loops [10.42.0.9 fd42::9]
udp [10.42.0.9:53]
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
