package network

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/internal/network/cniwire"
)

func TestAddIsRepeatableAndDelToo(t *testing.T) {
	w := newWorld(t, true)
	a := w.pod("a", "")
	for range 2 {
		result, err := w.cni("ADD", "a", a.path, "")
		if err != nil {
			t.Fatal(err)
		}
		if again := podAddr(t, result); again != a.addr {
			t.Errorf("the second ADD gave %s, the first %s", again, a.addr)
		}
	}
	b := w.pod("b", "")
	b.serve("b", 8080)
	wantAnswer(t, a, b.addr.String()+":8080", "b", a.addr.String())
	if _, err := w.cni("CHECK", "a", a.path, ""); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := w.cni("DEL", "a", "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.cni("CHECK", "a", a.path, ""); err == nil {
		t.Error("CHECK finds a container that was deleted")
	}
	if c := w.pod("c", ""); c.addr == a.addr {
		t.Errorf("address %s was given again at once", c.addr)
	}
	if got := len(w.net.pool.all()); got != 2 {
		t.Errorf("%d addresses are reserved, want 2", got)
	}
}

// BenchmarkAdd connects and disconnects one pod, without the plug-in's own start.
func BenchmarkAdd(b *testing.B) {
	w := newWorld(b, true)
	ns := newNamespace(b)
	conf := &cniConfig{CNIVersion: "1.1.0"}
	for b.Loop() {
		if _, err := w.net.add(b.Context(), &cniwire.Request{ContainerID: "a", IfName: "eth0", Netns: ns.path}, conf); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := w.net.del("a-eth0"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func TestGarbageIsCollected(t *testing.T) {
	w := newWorld(t, true)
	w.pod("a", "")
	w.pod("b", "")
	if _, err := w.cni("GC", "", "", ""); err == nil {
		t.Error("a GC that says nothing about what must stay was obeyed")
	}
	if _, err := w.cni("GC", "", "", `{"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]}`); err != nil {
		t.Fatal(err)
	}
	if left := w.net.pool.all(); len(left) != 1 || left[0].ContainerID != "b" {
		t.Errorf("left: %v", left)
	}
}

func TestPodsWaitForTheNodesAddresses(t *testing.T) {
	w := newWorld(t, false)
	if result, err := w.cni("STATUS", "", "", ""); err == nil || result["code"] != 50.0 {
		t.Errorf("STATUS: got %v (%v), want code 50", result, err)
	}
	if _, err := os.Stat(w.cfg.conflistPath()); err == nil {
		t.Error("the conflist is there before pods can be connected")
	}
	time.AfterFunc(200*time.Millisecond, func() { w.client.put(w.node()) })
	a := w.pod("a", "")
	if !netip.MustParsePrefix("10.42.0.0/24").Contains(a.addr) {
		t.Errorf("got %s", a.addr)
	}
	if _, err := w.cni("STATUS", "", "", ""); err != nil {
		t.Error(err)
	}
	eventually(t, "the conflist is there", func() bool { _, err := os.Stat(w.cfg.conflistPath()); return err == nil })
}

func TestAgentDown(t *testing.T) {
	w := newWorld(t, true)
	a := w.pod("a", "")
	w.stop()
	for _, command := range []string{"ADD", "DEL"} {
		if result, err := w.cni(command, "a", a.path, ""); err == nil || result["code"] != 11.0 {
			t.Errorf("%s: got %v (%v), want code 11", command, result, err)
		}
	}
	w.start()
	if got := len(w.net.pool.all()); got != 1 {
		t.Errorf("%d reservations survived, want 1", got)
	}
}

func TestWrongCommands(t *testing.T) {
	w := newWorld(t, true)
	if _, err := w.cni("ADD", "../x", "/nowhere", ""); err == nil || !strings.Contains(err.Error(), "is no name") {
		t.Errorf("got %v", err)
	}
	if _, err := w.cni("ADD", "x", "/nowhere", ""); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("got %v", err)
	}
	if len(w.net.pool.all()) != 0 {
		t.Error("a failed ADD keeps its address")
	}
	if result, err := w.cni("VERSION", "", "", ""); err != nil || len(result["supportedVersions"].([]any)) != 3 {
		t.Errorf("VERSION: %v (%v)", result, err)
	}
}

func TestPool(t *testing.T) {
	dir := t.TempDir()
	p, err := openPool(dir)
	if err != nil {
		t.Fatal(err)
	}
	p.setPods([]netip.Prefix{netip.MustParsePrefix("10.42.0.0/29")}) // .2 to .6 for pods
	seen := map[netip.Addr]bool{}
	for i := range 5 {
		r, err := p.reserve(reservation{ContainerID: fmt.Sprint(i), IfName: "eth0"})
		if err != nil {
			t.Fatal(err)
		}
		if seen[r.Addrs[0]] || r.Addrs[0].Compare(netip.MustParseAddr("10.42.0.2")) < 0 || r.Addrs[0].Compare(netip.MustParseAddr("10.42.0.6")) > 0 {
			t.Errorf("got %s", r.Addrs)
		}
		seen[r.Addrs[0]] = true
	}
	if _, err := p.reserve(reservation{ContainerID: "x", IfName: "eth0"}); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("got %v, want an error that says that all are taken", err)
	}
	freed := p.get("3-eth0").Addrs[0]
	if err := p.release("3-eth0"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/broken-eth0.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err = openPool(dir); err != nil {
		t.Fatal(err)
	}
	p.setPods([]netip.Prefix{netip.MustParsePrefix("10.42.0.0/29")})
	if r, err := p.reserve(reservation{ContainerID: "y", IfName: "eth0"}); err != nil || r.Addrs[0] != freed {
		t.Errorf("got %v (%v), want the one free address, %s", r, err, freed)
	}
	if len(p.all()) != 5 {
		t.Errorf("%d reservations, want 5", len(p.all()))
	}
}
