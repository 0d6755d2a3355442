package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

// TestServiceChangesItsWay has a service that asks for other things all the time: it answers all the time, as it should, and nothing is left in the kernel of
// what it asked for before.
func TestServiceChangesItsWay(t *testing.T) {
	w := newWorld(t, true)
	outside := w.outside()
	a := w.pod("a", "")
	a.serve("a", 8080)
	plain := func(*corev1.Service) {}
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	sticky := func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }
	ranges := func(s *corev1.Service) {
		s.Spec.LoadBalancerSourceRanges = []string{"203.0.113.9/32", "198.51.100.0/30", "10.42.0.0/16"}
	}
	const masqueraded, itself = "10.42.0.1", "198.51.100.2"
	var before []string
	for i, step := range []struct {
		name, saw string
		changes   []func(*corev1.Service)
	}{
		{"plain", masqueraded, nil},
		{"policy Local", itself, []func(*corev1.Service){local}},
		{"plain again", masqueraded, nil},
		{"affinity", masqueraded, []func(*corev1.Service){sticky}},
		{"affinity and policy Local", itself, []func(*corev1.Service){sticky, local}},
		{"source ranges", masqueraded, []func(*corev1.Service){ranges}},
		{"source ranges and policy Local", itself, []func(*corev1.Service){ranges, local}},
		{"all of them", itself, []func(*corev1.Service){ranges, local, sticky}},
		{"plain at last", masqueraded, nil},
	} {
		svc := service("s", "10.43.0.20", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeLoadBalancer
			s.Spec.Ports = s.Spec.Ports[:1]
			s.Spec.Ports[0].NodePort = 30080
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.8"}}
			for _, change := range append(step.changes, plain) {
				change(s)
			}
		})
		part := proxy.Service(svc, []*discoveryv1.EndpointSlice{endpoints("s", a.addr)}, proxy.Node{Name: nodeName, Pods: w.cfg.PodCIDRs})
		if err := w.net.rules.Change(func(t *proxy.Table, _ *policy.Table) { t.Set("service/default/s", part) }); err != nil {
			t.Fatal(err)
		}
		if !w.intact() {
			t.Errorf("%d, %s: the change was refused", i, step.name)
		}
		t.Log(step.name)
		for _, to := range []string{"198.51.100.1:30080", "192.0.2.8:80"} {
			wantAnswer(t, outside, to, "a", step.saw)
			wantAnswer(t, a, to, "a", masqueraded) // which is the hairpin
		}
		wantAnswer(t, nil, "127.0.0.1:30080", "a", masqueraded)
		wantAnswer(t, a, "10.43.0.20:80", "a", masqueraded)
		if len(step.changes) > 0 {
			continue
		}
		now := chainsOf(t, "sticky")
		for _, set := range []string{"map inet w outside", "map inet w sessions", "set inet w members", "set inet w ranges"} {
			if left := elementsOf(w, set); left != "" {
				now = append(now, set+": "+left)
			}
		}
		if i > 0 && !slices.Equal(now, before) {
			t.Errorf("%s: there is %q, and was %q", step.name, now, before)
		}
		before = now
	}
}

// elementsOf is what nft prints of a set's elements.
func elementsOf(w *world, set string) string {
	_, after, _ := strings.Cut(w.nft(append([]string{"list"}, strings.Fields(set)...)...), "elements = {")
	elements, _, _ := strings.Cut(after, "}")
	return strings.TrimSpace(elements)
}

// chainsOf are the kernel's chains in whose names a word stands.
func chainsOf(t *testing.T, word string) (names []string) {
	t.Helper()
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseLasting()
	all, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range all {
		if strings.Contains(chain.Name, word) {
			names = append(names, chain.Name)
		}
	}
	return names
}

// TestSessionOfAllAddresses has one client come by several addresses of a service: it goes to the same backend by all of them, and in the policy Local to another
// one by those, if the first is elsewhere.
func TestSessionOfAllAddresses(t *testing.T) {
	w := newWorld(t, true)
	outside := w.outside()
	var addrs []netip.Addr
	for i := range 4 {
		pod := w.pod(fmt.Sprintf("p%d", i), "")
		pod.serve(fmt.Sprintf("p%d", i), 8080)
		addrs = append(addrs, pod.addr)
	}
	slice := endpoints("s", addrs...)
	elsewhere := "elsewhere"
	for i := range 3 { // on the way to that node the packet meets the pod here
		slice.Endpoints[i].NodeName = &elsewhere
	}
	sticky := func(s *corev1.Service) {
		s.Spec.SessionAffinity, s.Spec.Type = corev1.ServiceAffinityClientIP, corev1.ServiceTypeLoadBalancer
		s.Spec.Ports[0].NodePort, s.Spec.ExternalIPs = 30080, []string{"192.0.2.7"}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.8"}}
	}
	w.client.put(service("s", "10.43.0.20", sticky), slice)
	client := w.pod("client", "")
	eventually(t, "the service answers", func() bool { _, _, err := client.ask("10.43.0.20:80"); return err == nil })
	everywhere := []string{"198.51.100.1:30080", "192.0.2.7:80", "192.0.2.8:80"}
	for _, from := range []*namespace{client, outside} {
		seen := map[string]bool{}
		for range 5 {
			for _, to := range everywhere {
				name, _, err := from.ask(to)
				if err != nil {
					t.Fatalf("%s: %v", to, err)
				}
				seen[name] = true
			}
		}
		if from == client {
			name, _, _ := from.ask("10.43.0.20:80")
			seen[name] = true
		}
		if len(seen) != 1 {
			t.Errorf("one client, but answers of %v", seen)
		}
	}
	local := func(s *corev1.Service) {
		sticky(s)
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	before, _, err := client.ask("10.43.0.20:80")
	if err != nil {
		t.Fatal(err)
	}
	w.client.put(service("s", "10.43.0.20", local))
	for _, to := range everywhere {
		eventually(t, "what comes from outside stays on the node", func() bool { _, saw, err := outside.ask(to); return err == nil && saw == "198.51.100.2" })
		wantAnswer(t, outside, to, "p3", "198.51.100.2")
		wantAnswer(t, client, to, before, client.addr.String())
	}
	slice = slice.DeepCopy() // the network reads the other
	for i := range slice.Endpoints {
		slice.Endpoints[i].NodeName = &elsewhere
	}
	w.client.put(slice)
	eventually(t, "what comes from outside is dropped", func() bool { return silent(outside, everywhere[0]) })
	for _, to := range everywhere {
		if !silent(outside, to) {
			t.Errorf("%s answers, and no backend is here", to)
		}
		wantAnswer(t, client, to, before, client.addr.String())
	}
	if !w.intact() {
		t.Error("a change was refused")
	}
}

// TestSessionsOutliveTheAgent has an agent start anew, and again: clients go where they went, by any of their service's addresses. When their time became shorter
// meanwhile they are forgotten.
func TestSessionsOutliveTheAgent(t *testing.T) {
	for _, f := range []family{v4, v6} {
		t.Run(map[family]string{v4: "IPv4", v6: "IPv6"}[f], func(t *testing.T) {
			w := worldOf(t, f)
			address := map[family]string{v4: "10.43.0.2%d", v6: "fd43::2%d"}[f]
			var addrs []netip.Addr
			for i := range 4 {
				pod := w.pod(fmt.Sprintf("p%d", i), "")
				pod.serve(fmt.Sprintf("p%d", i), 8080)
				addrs = append(addrs, pod.addr)
			}
			var fronts []string
			put := func(i int, keep int32) {
				name, ip := fmt.Sprintf("s%d", i), fmt.Sprintf(address, i)
				w.client.put(service(name, ip, func(s *corev1.Service) {
					s.Spec.SessionAffinity, s.Spec.ExternalIPs = corev1.ServiceAffinityClientIP, []string{map[family]string{v4: "192.0.2.7", v6: "2001:db8:7::7"}[f]}
					s.Spec.Ports[0].Port, s.Spec.Ports[1].Port = 80+int32(i), 80+int32(i)
					s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &keep}}
				}), endpoints(name, addrs...))
				fronts = append(fronts, at(netip.MustParseAddr(ip), uint16(80+i)))
			}
			for i := range 3 {
				put(i, 3600)
			}
			var clients []*namespace
			for i := range 4 {
				clients = append(clients, w.pod(fmt.Sprintf("c%d", i), ""))
			}
			whom := func() (out []string) {
				for _, c := range clients {
					for _, front := range fronts[:3] {
						var name string
						eventually(t, front+" answers", func() (ok bool) { n, _, err := c.ask(front); name = n; return err == nil })
						out = append(out, name)
					}
				}
				return out
			}
			before := whom()
			for range 2 {
				w.stop()
				w.start()
				if now := whom(); !slices.Equal(now, before) {
					t.Errorf("clients went to %v, and after a restart to %v", before, now)
				}
			}
			w.stop()
			for i := range 3 {
				put(i, 60)
			}
			w.start()
			if left := elementsOf(w, "map inet w remembered"+f.digit()); left != "" {
				t.Errorf("of sessions whose time became shorter there is left %s", left)
			}
			if !w.intact() {
				t.Error("a change was refused")
			}
		})
	}
}

// TestMoreSendersThanAreRemembered has those that find no room led all the same.
func TestMoreSendersThanAreRemembered(t *testing.T) {
	w := newWorld(t, true)
	w.net.rules.mu.Lock()
	w.net.rules.base.side(v4).remembered.Size = 1
	w.net.rules.mu.Unlock()
	a, b := w.pod("a", ""), w.pod("b", "")
	a.serve("a", 8080)
	b.serve("b", 8080)
	w.client.put(service("s", "10.43.0.20", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }), endpoints("s", a.addr, b.addr))
	first := w.pod("first", "")
	eventually(t, "the service answers", func() bool { _, _, err := first.ask("10.43.0.20:80"); return err == nil })
	for i := range 5 {
		spread(t, w.pod(fmt.Sprintf("c%d", i), ""), "10.43.0.20:80", 10)
	}
	if seen := spread(t, first, "10.43.0.20:80", 30); len(seen) != 1 {
		t.Errorf("who came first is forgotten for others: %v", seen)
	}
}

// TestSourceRanges has senders in some ranges and in none, of several lengths, and a service beside that names none.
func TestSourceRanges(t *testing.T) {
	for _, f := range []family{v4, v6} {
		t.Run(map[family]string{v4: "IPv4", v6: "IPv6"}[f], func(t *testing.T) {
			w := worldOf(t, f)
			outside, pod := w.outside(), w.pod("a", "")
			pod.serve("a", 8080)
			address := map[family]string{v4: "10.43.0.2%d", v6: "fd43::2%d"}[f]
			external := map[family]string{v4: "192.0.2.%d", v6: "2001:db8:7::%d"}[f]
			for i, c := range []struct {
				ranges string
				in     bool
			}{
				{"", true},
				{"198.51.100.0/24 2001:db8::/64", true},
				{"203.0.113.0/24 2001:db8:1::/64", false},
				{"203.0.113.0/24 198.51.100.2/32 2001:db8::2/128 2001:db8:1::/48", true},
				{"198.51.100.0/31 2001:db8::/127", false},
				{"0.0.0.0/0 ::/0", true},
			} {
				name, ip, front := fmt.Sprintf("s%d", i), fmt.Sprintf(address, i), netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(external, i+1)), 80).String()
				w.client.put(service(name, ip, func(s *corev1.Service) {
					s.Spec.Type, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, strings.Fields(c.ranges)
					s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: fmt.Sprintf(external, i+1)}}
				}), endpoints(name, pod.addr))
				inside := netip.AddrPortFrom(netip.MustParseAddr(ip), 80).String()
				eventually(t, "the service answers", func() bool { _, _, err := pod.ask(inside); return err == nil })
				if c.in {
					wantAnswer(t, outside, front, "a", "")
				} else if !silent(outside, front) {
					t.Errorf("ranges %q: who is in none is answered", c.ranges)
				}
			}
			if !w.intact() {
				t.Error("a change was refused")
			}
		})
	}
}

func worldOf(t *testing.T, f family) *world {
	if f == v6 {
		return with6(t, f)
	}
	return newWorldOf(t, true, f)
}
