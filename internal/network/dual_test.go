package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// with6 starts a cluster of these families, where there is IPv6.
func with6(t *testing.T, of ...family) *world {
	t.Helper()
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("this kernel has no IPv6")
	}
	return newWorldOf(t, true, of...)
}

// of is the one of a list that is of a family.
func of(list []netip.Addr, f family) netip.Addr {
	for _, a := range list {
		if familyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// dual has a service have addresses of several families.
func dual(ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = ips[0], ips }
}

func TestPacketsOfIPv6(t *testing.T) {
	t.Run("dual-stack", func(t *testing.T) { packetsOfIPv6(t, with6(t, v4, v6)) })
	t.Run("alone", func(t *testing.T) { packetsOfIPv6(t, with6(t, v6)) })
}

func packetsOfIPv6(t *testing.T, w *world) {
	outside := w.outside()
	a, b := w.pod("a", ""), w.pod("b", `{"runtimeConfig": {"portMappings": [{"hostPort": 8088, "containerPort": 8080, "protocol": "TCP"}]}}`)
	a.serve("a", 8080)
	b.serve("b", 8080)
	a6, b6 := of(a.addrs, v6), of(b.addrs, v6)
	const gateway = "fd42::1"
	nodePort := func(number int32, local bool) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeNodePort
			s.Spec.Ports[0].NodePort, s.Spec.Ports[1].NodePort = number, number
			if local {
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			}
		}
	}
	w.client.put(
		service("both", "fd43::20", nil), endpoints("both", a6, b6),
		service("only-b", "fd43::21", func(s *corev1.Service) {
			nodePort(30080, false)(s)
			s.Spec.ExternalIPs = []string{"2001:db8:7::7"}
		}), endpoints("only-b", b6),
		service("local-b", "fd43::22", nodePort(30081, true)), endpoints("local-b", b6),
		service("nobody", "fd43::23", nodePort(30082, false)),
		service("sticky", "fd43::24", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }), endpoints("sticky", a6, b6),
	)
	eventually(t, "service both is programmed", func() bool { _, _, err := a.ask("[fd43::20]:80"); return err == nil })

	t.Run("pod to pod", func(t *testing.T) { wantAnswer(t, a, at(b6, 8080), "b", a6.String()) })
	t.Run("node to pod", func(t *testing.T) { wantAnswer(t, nil, at(b6, 8080), "b", gateway) })
	t.Run("pod to node", func(t *testing.T) {
		newHost(t).serve("host", 9001)
		wantAnswer(t, a, "["+gateway+"]:9001", "host", a6.String())
	})
	t.Run("pod to the world", func(t *testing.T) {
		outside.serve("outside", 9000)
		wantAnswer(t, a, "[2001:db8::2]:9000", "outside", "2001:db8::1")
	})
	t.Run("cluster address", func(t *testing.T) {
		wantAnswer(t, a, "[fd43::21]:80", "b", a6.String())
		if seen := spread(t, a, "[fd43::20]:80", 40); seen["a"] == 0 || seen["b"] == 0 {
			t.Errorf("not spread: %v", seen)
		}
		if name, err := talk(a.udp(t, "[fd43::21]:80")); name != "b" {
			t.Errorf("UDP: %q, %v", name, err)
		}
	})
	t.Run("cluster address from the node", func(t *testing.T) { wantAnswer(t, nil, "[fd43::21]:80", "b", "") })
	t.Run("affinity", func(t *testing.T) {
		if seen := spread(t, b, "[fd43::24]:80", 30); len(seen) != 1 {
			t.Errorf("one client, but answers of %v", seen)
		}
	})
	t.Run("hairpin", func(t *testing.T) { wantAnswer(t, b, "[fd43::21]:80", "b", gateway) })
	t.Run("node port", func(t *testing.T) {
		wantAnswer(t, outside, "[2001:db8::1]:30080", "b", gateway)
		wantAnswer(t, a, "[2001:db8::1]:30080", "b", "")
		wantAnswer(t, b, "[2001:db8::1]:30080", "b", gateway)
		wantAnswer(t, nil, "[2001:db8::1]:30080", "b", gateway)
		if _, _, err := (*namespace)(nil).ask("[::1]:30080"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("::1: got %v, want a refusal", err)
		}
	})
	t.Run("node port keeps the sender with policy Local", func(t *testing.T) {
		wantAnswer(t, outside, "[2001:db8::1]:30081", "b", "2001:db8::2")
	})
	t.Run("host port", func(t *testing.T) { wantAnswer(t, outside, "[2001:db8::1]:8088", "b", "2001:db8::2") })
	t.Run("external address", func(t *testing.T) { wantAnswer(t, outside, "[2001:db8:7::7]:80", "b", "") })
	t.Run("no endpoints", func(t *testing.T) {
		for where, from := range map[string]*namespace{"[fd43::23]:80": a, "[2001:db8::1]:30082": outside, "[fd43::99]:80": a} {
			if _, _, err := from.ask(where); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("TCP %s: got %v, want a refusal", where, err)
			}
		}
	})
	t.Run("a client of UDP is led to who is left", func(t *testing.T) {
		socket := a.udp(t, "[fd43::20]:80")
		before, err := talk(socket)
		if err != nil {
			t.Fatal(err)
		}
		stay, other := a6, "a"
		if before == "a" {
			stay, other = b6, "b"
		}
		w.client.put(endpoints("both", stay))
		eventually(t, "it is", func() bool { now, err := talk(socket); return err == nil && now == other })
	})
	t.Run("policies", func(t *testing.T) { policyOfIPv6(t, w, a, b, outside) })
	t.Run("a pod that is gone is forgotten", func(t *testing.T) {
		if _, err := w.cni("DEL", "b", "", ""); err != nil {
			t.Fatal(err)
		}
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET6)
		if err != nil || len(all) == 0 {
			t.Fatalf("%d connections, %v", len(all), err)
		}
		others := 0
		for _, f := range all {
			if (flowsOf{a6: true}).MatchConntrackFlow(f) {
				others++
			}
			if (flowsOf{b6: true}).MatchConntrackFlow(f) {
				t.Errorf("a connection of its is tracked: %v", f)
			}
		}
		if others == 0 {
			t.Error("another's connections are forgotten")
		}
	})
	if !w.intact() {
		t.Error("a change was refused")
	}
}

// policyOfIPv6 lets b be reached by one pod, and by a block that the neighbour is in.
func policyOfIPv6(t *testing.T, w *world, a, b, outside *namespace) {
	friend := w.pod("friend", "")
	for _, n := range []*namespace{a, b, friend} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: n.id, Labels: map[string]string{"who": n.id}}}
		p.Spec.NodeName = nodeName
		for _, ip := range n.addrs {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip.String()})
		}
		w.client.put(p)
	}
	w.client.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	select1 := func(who string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"who": who}}
	}
	w.client.put(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: *select1("b"), PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
			{PodSelector: select1("friend")}, {IPBlock: &networkingv1.IPBlock{CIDR: "2001:db8::/64", Except: []string{"2001:db8::100/120"}}},
		}}},
	}})
	for _, f := range families {
		to := of(b.addrs, f)
		if !to.IsValid() {
			continue
		}
		eventually(t, "a is kept out", func() bool { return silent(a, at(to, 8080)) })
		wantAnswer(t, friend, at(to, 8080), "b", of(friend.addrs, f).String())
	}
	wantAnswer(t, outside, "[2001:db8::1]:30081", "b", "2001:db8::2")
	w.client.remove(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}})
	eventually(t, "a is let in again", func() bool { return reaches(a, at(of(b.addrs, v6), 8080)) })
}

// TestBothFamilies has one service with addresses of both: what answers at one is what answers at the other.
func TestBothFamilies(t *testing.T) {
	w := with6(t, v4, v6)
	outside := w.outside()
	a, b := w.pod("a", ""), w.pod("b", "")
	a.serve("a", 8080)
	w.client.put(service("s", "", func(s *corev1.Service) {
		dual("10.43.0.20", "fd43::20")(s)
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	}), endpoints("s", a.addrs[0]), endpoints("s", a.addrs[1]))
	eventually(t, "the service answers", func() bool { _, _, err := b.ask("[fd43::20]:80"); return err == nil })
	for _, where := range []string{"10.43.0.20:80", "[fd43::20]:80"} {
		wantAnswer(t, b, where, "a", "")
		wantAnswer(t, nil, where, "a", "")
	}
	for _, where := range []string{"198.51.100.1:30080", "[2001:db8::1]:30080"} {
		wantAnswer(t, outside, where, "a", "")
	}
	gone := a.addrs
	if _, err := w.cni("DEL", "a", "", ""); err != nil {
		t.Fatal(err)
	}
	if c := w.pod("c", ""); c.addrs[0] == gone[0] || c.addrs[1] == gone[1] {
		t.Errorf("%v were given again at once", c.addrs)
	}
}

// TestAddressesOfBothOrNone has one family run out: nothing of the other is kept.
func TestAddressesOfBothOrNone(t *testing.T) {
	dir := t.TempDir()
	p, err := openPool(dir)
	if err != nil {
		t.Fatal(err)
	}
	p.setPods([]netip.Prefix{netip.MustParsePrefix("fd42::/64"), netip.MustParsePrefix("10.42.0.0/29")})
	for i := range 6 {
		r, err := p.reserve(reservation{ContainerID: fmt.Sprint(i), IfName: "eth0"})
		if (err == nil) != (i < 5) {
			t.Fatalf("%d: %+v, %v", i, r, err)
		}
		if err != nil && !strings.Contains(err.Error(), "10.42.0.0/29 are taken") {
			t.Error(err)
		}
	}
	if len(p.byAddr) != 10 {
		t.Errorf("%d addresses are held, want 10", len(p.byAddr))
	}
	if err := p.release("3-eth0"); err != nil || len(p.byAddr) != 8 {
		t.Errorf("%d addresses are held, want 8: %v", len(p.byAddr), err)
	}
	old := `{"containerID":"old","ifName":"eth0","netns":"/x","addr":"10.42.0.9"}` // as written before pods had several
	if err := os.WriteFile(dir+"/old-eth0.json", []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err = openPool(dir); err != nil || p.holder(netip.MustParseAddr("10.42.0.9")).ContainerID != "old" || len(p.byAddr) != 9 {
		t.Errorf("%v, %v", p.byAddr, err)
	}
}

func TestPeersOfBothFamilies(t *testing.T) {
	node := otherNode("a", "192.0.2.2", "10.42.1.0/24")
	node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, "fd42:0:0:1::/64")
	node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "2001:db8::2"})
	cluster := []netip.Prefix{testPods[v4], testPods[v6]}
	onLink := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	for what, c := range map[string]struct {
		under family
		links []netip.Prefix
		want  string
	}{
		"over IPv4":     {v4, nil, "10.42.1.0/24 192.0.2.2 false, fd42:0:0:1::/64 192.0.2.2 false, "},
		"over IPv6":     {v6, nil, "10.42.1.0/24 2001:db8::2 false, fd42:0:0:1::/64 2001:db8::2 false, "},
		"directly":      {v4, onLink, "10.42.1.0/24 192.0.2.2 true, fd42:0:0:1::/64 2001:db8::2 true, "},
		"one of them":   {v4, onLink[:1], "10.42.1.0/24 192.0.2.2 true, fd42:0:0:1::/64 192.0.2.2 false, "},
		"the other one": {v4, onLink[1:], "10.42.1.0/24 192.0.2.2 false, fd42:0:0:1::/64 2001:db8::2 true, "},
	} {
		got := ""
		for _, p := range peersOf(node, cluster, c.under, c.links) {
			got += fmt.Sprintf("%s %s %t, ", p.pods, p.addr, p.direct)
		}
		if got != c.want {
			t.Errorf("%s: %s; want %s", what, got, c.want)
		}
	}
}

// TestTunnelOfBothFamilies has a tunnel, over either family, that leads to pods of both.
func TestTunnelOfBothFamilies(t *testing.T) {
	w := with6(t, v4, v6)
	w.outside()
	pods := []netip.Prefix{netip.MustParsePrefix("10.42.0.0/24"), netip.MustParsePrefix("fd42::/64")}
	nodes := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}
	for _, order := range [][]netip.Addr{nodes, {nodes[1], nodes[0]}} {
		cfg := w.cfg
		cfg.NodeIPs, cfg.Overlay = order, Overlay{Number: 4711, Port: 8472}
		v, err := setUpTunnel(cfg, pods, 1430)
		if err != nil {
			t.Fatal(err)
		}
		end := map[family]string{v4: "203.0.113.7", v6: "2001:db8:9::7"}[familyOf(order[0])]
		far := []peer{
			{node: "far", addr: netip.MustParseAddr(end), pods: netip.MustParsePrefix("10.42.7.0/24")},
			{node: "far", addr: netip.MustParseAddr(end), pods: netip.MustParsePrefix("fd42:0:0:7::/64")},
			{node: "near", addr: netip.MustParseAddr("2001:db8::2"), pods: netip.MustParsePrefix("fd42:0:0:8::/64"), direct: true},
		}
		count := func() (routes, neighbours int) {
			old, err := overlayRoutes(pods)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
				list, err := netlink.NeighList(v.index, f)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range list {
					if n.LinkIndex == v.index && n.State&netlink.NUD_PERMANENT != 0 {
						neighbours++
					}
				}
			}
			return len(old), neighbours
		}
		for range 2 {
			for _, p := range far {
				if err := v.set(p); err != nil {
					t.Fatal(err)
				}
			}
		}
		if r, n := count(); r != 3 || n != 3 {
			t.Errorf("%d routes and %d neighbours, want 3 and 3", r, n)
		}
		if err := v.keep(far); err != nil {
			t.Fatal(err)
		}
		if r, n := count(); r != 3 || n != 3 {
			t.Errorf("after a restart: %d routes and %d neighbours, want 3 and 3", r, n)
		}
		if err := v.keep(far[:1]); err != nil {
			t.Fatal(err)
		}
		if r, n := count(); r != 1 || n != 2 {
			t.Errorf("of one family: %d routes and %d neighbours, want 1 and 2", r, n)
		}
		if err := errors.Join(v.remove(far[0]), v.remove(far[1])); err != nil {
			t.Fatal(err)
		}
		if r, n := count(); r != 0 || n != 0 {
			t.Errorf("%d routes and %d neighbours are left", r, n)
		}
	}
}
