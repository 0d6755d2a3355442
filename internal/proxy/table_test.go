package proxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
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
	if d := table.Take(); d.Empty() || len(d.NewChains) != 1 || len(d.Loops) != 1 {
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

func TestWhoComesFirstHasTheFrontend(t *testing.T) {
	front := vip("192.0.2.1", 53)
	table := NewTable()
	table.Set("b", simple("b", front, "10.42.0.1:53"))
	table.Set("a", simple("a", front, "10.42.0.2:53"))
	if d := table.Take(); d.Frontends[front] != "b" {
		t.Errorf("got %q, want b: it came first", d.Frontends[front])
	}
	table.Set("b", Part{})
	if d := table.Take(); d.Frontends[front] != "a" || !d.Old[front] {
		t.Errorf("got %q, want a: it is the only one left", d.Frontends[front])
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

// TestDeltasAddUp replays random changes and compares what all deltas make with what the table holds.
func TestDeltasAddUp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	table := NewTable()
	frontends, chains, loops := map[Frontend]string{}, map[string][]Rule{}, map[netip.Addr]bool{}
	for range 2000 {
		name := fmt.Sprintf("s%d", rnd.IntN(12))
		var to []string
		for range rnd.IntN(4) {
			to = append(to, fmt.Sprintf("10.42.0.%d:53", 1+rnd.IntN(6)))
		}
		slices.Sort(to)
		part := simple(name, vip(fmt.Sprintf("10.43.0.%d", 1+rnd.IntN(6)), 53), slices.Compact(to)...)
		if rnd.IntN(4) == 0 {
			part = Part{}
		}
		table.Set(name, part)
		if rnd.IntN(3) > 0 {
			continue
		}
		d := table.Take()
		for _, f := range d.GoneFrontends {
			delete(frontends, f)
		}
		for f, target := range d.Frontends {
			if _, had := frontends[f]; had != d.Old[f] {
				t.Fatalf("frontend %v: Old is %t, it was there: %t", f, d.Old[f], had)
			}
			frontends[f] = target
		}
		for _, c := range d.NewChains {
			if _, had := chains[c]; had {
				t.Fatalf("chain %s is not new", c)
			}
		}
		for _, c := range d.GoneChains {
			delete(chains, c)
		}
		maps.Copy(chains, d.Chains)
		for _, a := range d.GoneLoops {
			delete(loops, a)
		}
		for _, a := range d.Loops {
			loops[a] = true
		}
		if !maps.Equal(frontends, table.frontends.Now) || !maps.EqualFunc(chains, table.chains.Now, equalRules) || len(loops) != len(table.hairpins.Now) {
			t.Fatal("the deltas do not add up to the table")
		}
		for f, target := range frontends {
			if _, ok := chains[target]; !ok && target != Reject {
				t.Fatalf("frontend %v leads to chain %s, which is not there", f, target)
			}
		}
	}
}

func TestHostPorts(t *testing.T) {
	got := text(HostPorts("abc-eth0", addr("10.42.0.9"), []HostPort{
		{Protocol: TCP, HostPort: 8080, Container: 80},
		{Protocol: TCP, HostIP: addr("127.0.0.1"), HostPort: 8080, Container: 81},
		{Protocol: UDP, HostIP: addr("0.0.0.0"), HostPort: 53, Container: 53},
	}))
	want := `* tcp 8080 -> host/abc-eth0/tcp/8080
* udp 53 -> host/abc-eth0/udp/53
127.0.0.1 tcp 8080 -> host/abc-eth0/tcp/8080/127.0.0.1
chain host/abc-eth0/tcp/8080
  to 10.42.0.9:80
chain host/abc-eth0/tcp/8080/127.0.0.1
  to 10.42.0.9:81
chain host/abc-eth0/udp/53
  to 10.42.0.9:53
loops [10.42.0.9]
udp [10.42.0.9:53]
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
