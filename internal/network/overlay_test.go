package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func otherNode(name, ip, pods string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: pods, PodCIDRs: []string{pods}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}},
	}
}

// recorded is a tunnel that writes down what is asked of it.
type recorded struct {
	lines []string
	fail  bool
}

func (r *recorded) note(verb string, p peer) error {
	if r.fail {
		return errors.New("no")
	}
	how := ""
	if p.direct {
		how = " directly"
	}
	r.lines = append(r.lines, fmt.Sprintf("%s %s at %s%s", verb, p.pods, p.addr, how))
	return nil
}
func (r *recorded) set(p peer) error    { return r.note("+", p) }
func (r *recorded) remove(p peer) error { return r.note("-", p) }
func (r *recorded) keep([]peer) error   { return nil }

func TestPeersComeAndGo(t *testing.T) {
	tunnel := &recorded{}
	var warnings []string
	warn := func(msg string, _ ...any) { warnings = append(warnings, msg) }
	o := newOverlay("here", []netip.Prefix{netip.MustParsePrefix("10.42.0.0/24")}, v4, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, tunnel, warn)
	steps := []struct {
		what string
		do   func()
		want []string
	}{
		{"itself", func() { o.see(otherNode("here", "192.0.2.1", "10.42.0.0/24")) }, nil},
		{"a node on the link", func() { o.see(otherNode("a", "192.0.2.2", "10.42.1.0/24")) }, []string{"+ 10.42.1.0/24 at 192.0.2.2 directly"}},
		{"the same again", func() { o.see(otherNode("a", "192.0.2.2", "10.42.1.0/24")) }, nil},
		{"a node elsewhere", func() { o.see(otherNode("b", "198.51.100.9", "10.42.2.0/24")) }, []string{"+ 10.42.2.0/24 at 198.51.100.9"}},
		{"it moves", func() { o.see(otherNode("b", "198.51.100.8", "10.42.2.0/24")) }, []string{"- 10.42.2.0/24 at 198.51.100.9", "+ 10.42.2.0/24 at 198.51.100.8"}},
		{"one without pods yet", func() { o.see(otherNode("c", "192.0.2.3", "")) }, nil},
		{"one with this node's pods", func() { o.see(otherNode("d", "192.0.2.4", "10.42.0.0/23")) }, nil},
		{"a node goes", func() { o.gone(otherNode("a", "192.0.2.2", "10.42.1.0/24")) }, []string{"- 10.42.1.0/24 at 192.0.2.2 directly"}},
	}
	for _, s := range steps {
		tunnel.lines = nil
		s.do()
		if err := o.apply(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(tunnel.lines, s.want) {
			t.Errorf("%s: %q, want %q", s.what, tunnel.lines, s.want)
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "delete one of the two") {
		t.Errorf("warnings: %q", warnings)
	}
	tunnel.fail, tunnel.lines = true, nil
	o.see(otherNode("e", "192.0.2.5", "10.42.5.0/24"))
	if err := o.apply(); err == nil {
		t.Error("a failure was not told")
	}
	tunnel.fail = false
	if err := o.apply(); err != nil || !slices.Equal(tunnel.lines, []string{"+ 10.42.5.0/24 at 192.0.2.5 directly"}) {
		t.Errorf("after a failure: %q, %v", tunnel.lines, err)
	}
}

func TestHardwareAddresses(t *testing.T) {
	a, b := hardware("a"), hardware("b")
	if a.String() == b.String() || a.String() != hardware("a").String() || a[0]&3 != 2 {
		t.Errorf("%s, %s", a, b)
	}
}

// A tunnel holds what it is told, forgets nodes that went while no agent ran, and leaves nothing behind.
func TestTunnel(t *testing.T) {
	w := newWorld(t, true)
	w.outside()
	cfg := w.cfg
	cfg.NodeIPs, cfg.Overlay = []netip.Addr{netip.MustParseAddr("198.51.100.1")}, Overlay{Number: 4711, Port: 8472}
	pods := []netip.Prefix{netip.MustParsePrefix("10.42.0.0/24")}
	if err := setUpHost(cfg.Cluster, pods, cfg.ServiceCIDRs); err != nil {
		t.Fatal(err)
	}
	v, err := setUpTunnel(cfg, pods, 1450)
	if err != nil || fmt.Sprint(v.links(true)) != "[198.51.100.0/24]" {
		t.Fatalf("%+v, %v", v, err)
	}
	far := peer{node: "far", addr: netip.MustParseAddr("203.0.113.7"), pods: netip.MustParsePrefix("10.42.7.0/24")}
	near := peer{node: "near", addr: netip.MustParseAddr("198.51.100.2"), pods: netip.MustParsePrefix("10.42.8.0/24"), direct: true}
	holds := func(want ...string) {
		t.Helper()
		var got []string
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeOrigin}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			got = append(got, fmt.Sprintf("%s via %s", r.Dst, r.Gw))
		}
		for _, family := range []int{unix.AF_INET, unix.AF_BRIDGE} {
			list, err := netlink.NeighList(v.index, family)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list {
				if n.LinkIndex == v.index && n.State&netlink.NUD_PERMANENT != 0 {
					got = append(got, fmt.Sprintf("%s %s", n.IP, n.HardwareAddr))
				}
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("it holds %q, want %q", got, want)
		}
	}
	toFar := []string{"10.42.7.0/24 via 10.42.7.0", "10.42.7.0 " + hardware("far").String(), "203.0.113.7 " + hardware("far").String()}
	for range 2 { // doing it twice does no harm
		if err := errors.Join(v.set(far), v.set(near)); err != nil {
			t.Fatal(err)
		}
	}
	holds(append(toFar, "10.42.8.0/24 via 198.51.100.2")...)

	again, err := setUpTunnel(cfg, pods, 1400) // an agent that restarts finds its tunnel
	if err != nil || again.index != v.index {
		t.Fatalf("link %d became %d: %v", v.index, again.index, err)
	}
	if err := again.keep([]peer{far}); err != nil {
		t.Fatal(err)
	}
	holds(toFar...)
	if err := errors.Join(again.remove(far), again.remove(far), again.set(near)); err != nil {
		t.Fatal(err)
	}
	cfg.NodeName = "renamed"
	if other, err := setUpTunnel(cfg, pods, 1400); err != nil || other.index == v.index {
		t.Errorf("another node's tunnel was taken for its own: %v", err)
	}
	if err := removeDirect(cfg.PodCIDRs); err != nil {
		t.Fatal(err)
	}
	cfg.NodeIPs = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	if _, err := setUpTunnel(cfg, pods, 1400); err == nil || !strings.Contains(err.Error(), "--node-ip") {
		t.Errorf("an address that is not this host's: %v", err)
	}
}
