package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

func wantAnswer(t *testing.T, from *namespace, to, server, saw string) {
	t.Helper()
	gotServer, gotSaw, err := from.ask(to)
	if err != nil || gotServer != server || (saw != "" && gotSaw != saw) {
		t.Errorf("%s: answered %q, which saw %q (%v); want %q, seeing %q", to, gotServer, gotSaw, err, server, saw)
	}
}

// spread asks often and counts who answers.
func spread(t *testing.T, from *namespace, to string, times int) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for range times {
		server, _, err := from.ask(to)
		if err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		seen[server]++
	}
	return seen
}

func TestPacketsToServices(t *testing.T) {
	w := newWorld(t, true)
	outside := w.outside()
	a, b := w.pod("a", ""), w.pod("b", "")
	a.serve("a", 8080)
	b.serve("b", 8080)
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
		service("both", "10.43.0.20", nil), endpoints("both", a.addr, b.addr),
		service("only-b", "10.43.0.21", func(s *corev1.Service) {
			nodePort(30080, false)(s)
			s.Spec.ExternalIPs = []string{"192.0.2.7"}
		}), endpoints("only-b", b.addr),
		service("local-b", "10.43.0.22", nodePort(30081, true)), endpoints("local-b", b.addr),
		service("nobody", "10.43.0.23", nodePort(30082, false)),
		service("both-outside", "10.43.0.24", nodePort(30083, false)), endpoints("both-outside", a.addr, b.addr),
		service("balanced", "10.43.0.25", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeLoadBalancer
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.8"}}
		}), endpoints("balanced", b.addr),
	)
	eventually(t, "service both is programmed", func() bool { _, _, err := a.ask("10.43.0.20:80"); return err == nil })

	t.Run("pod to pod", func(t *testing.T) { wantAnswer(t, a, b.addr.String()+":8080", "b", a.addr.String()) })
	t.Run("pod to the world", func(t *testing.T) {
		outside.serve("outside", 9000)
		wantAnswer(t, a, "198.51.100.2:9000", "outside", "198.51.100.1")
	})
	t.Run("cluster address", func(t *testing.T) {
		wantAnswer(t, a, "10.43.0.21:80", "b", a.addr.String())
		if seen := spread(t, a, "10.43.0.20:80", 40); seen["a"] == 0 || seen["b"] == 0 {
			t.Errorf("not spread: %v", seen)
		}
	})
	t.Run("cluster address from the node", func(t *testing.T) { wantAnswer(t, nil, "10.43.0.21:80", "b", "") })
	t.Run("hairpin", func(t *testing.T) { wantAnswer(t, b, "10.43.0.21:80", "b", "10.42.0.1") })
	t.Run("node port", func(t *testing.T) {
		wantAnswer(t, outside, "198.51.100.1:30080", "b", "10.42.0.1")
		wantAnswer(t, a, "198.51.100.1:30080", "b", "")
		wantAnswer(t, b, "198.51.100.1:30080", "b", "10.42.0.1")
		wantAnswer(t, nil, "127.0.0.1:30080", "b", "10.42.0.1")
		wantAnswer(t, nil, "198.51.100.1:30080", "b", "10.42.0.1")
	})
	t.Run("node port keeps the sender with policy Local", func(t *testing.T) {
		wantAnswer(t, outside, "198.51.100.1:30081", "b", "198.51.100.2")
		wantAnswer(t, nil, "127.0.0.1:30081", "b", "10.42.0.1")
	})
	t.Run("node port of several endpoints", func(t *testing.T) {
		if seen := spread(t, outside, "198.51.100.1:30083", 40); seen["a"] == 0 || seen["b"] == 0 {
			t.Errorf("not spread: %v", seen)
		}
		if server, err := talk(outside.udp(t, "198.51.100.1:30083")); err != nil || server != "a" && server != "b" {
			t.Errorf("over UDP %q answers (%v)", server, err)
		}
	})
	t.Run("external address", func(t *testing.T) {
		wantAnswer(t, outside, "192.0.2.7:80", "b", "10.42.0.1")
		wantAnswer(t, a, "192.0.2.7:80", "b", "10.42.0.1")
	})
	t.Run("load balancer's address", func(t *testing.T) { wantAnswer(t, outside, "192.0.2.8:80", "b", "10.42.0.1") })
	t.Run("no endpoints", func(t *testing.T) {
		for where, from := range map[string]*namespace{"10.43.0.23:80": a, "198.51.100.1:30082": outside, "127.0.0.1:30082": nil, "10.43.9.9:80": a} {
			begin := time.Now()
			if _, _, err := from.ask(where); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("TCP %s: got %v after %s, want a refusal", where, err, time.Since(begin))
			}
			// The kernel refuses the host's own packets as it sends them, and does not tell others more often than once a second.
			eventually(t, "UDP to "+where+" is refused", func() bool {
				_, err := talk(from.udp(t, where))
				return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPERM)
			})
		}
	})
	t.Run("nft prints the table", func(t *testing.T) {
		if rules := w.nft("list", "ruleset"); !strings.Contains(rules, "10.43.0.20 . tcp . 80 . 0x00000001 : "+b.addr.String()+" . 8080") {
			t.Errorf("it lacks an endpoint:\n%s", rules)
		}
	})
	t.Run("pods do not reach what listens on the node's 127.0.0.1", func(t *testing.T) {
		a.in(func() {
			_ = exec.Command("ip", "route", "add", "127.1.2.3", "via", "10.42.0.1", "dev", "eth0", "table", "local").Run()
			_ = exec.Command("sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1").Run()
			_ = exec.Command("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local").Run()
		})
		if _, _, err := a.ask("127.1.2.3:30080"); err == nil {
			t.Error("it did")
		}
	})
}

func TestEndpointsComeAndGo(t *testing.T) {
	w := newWorld(t, true)
	a, b, c := w.pod("a", ""), w.pod("b", ""), w.pod("c", "")
	a.serve("a", 8080)
	b.serve("b", 8080)
	w.client.put(service("s", "10.43.0.20", nil), endpoints("s", a.addr, b.addr))
	eventually(t, "both answer", func() bool {
		_, _, err := c.ask("10.43.0.20:80")
		return err == nil && len(spread(t, c, "10.43.0.20:80", 20)) == 2
	})
	socket := c.udp(t, "10.43.0.20:80")
	before, err := talk(socket)
	if err != nil {
		t.Fatal(err)
	}
	stay, other := a, "a"
	if before == "a" {
		stay, other = b, "b"
	}
	w.client.put(endpoints("s", stay.addr))
	eventually(t, "the UDP client is led to who is left", func() bool { now, err := talk(socket); return err == nil && now == other })
	if seen := spread(t, c, "10.43.0.20:80", 20); len(seen) != 1 || seen[other] != 20 {
		t.Errorf("want all from %s, got %v", other, seen)
	}
	w.client.remove(endpoints("s"))
	eventually(t, "connections are refused", func() bool { _, _, err := c.ask("10.43.0.20:80"); return errors.Is(err, syscall.ECONNREFUSED) })
	w.client.put(endpoints("s", a.addr, b.addr))
	eventually(t, "the UDP client is led to the new endpoints", func() bool { _, err := talk(socket); return err == nil })
	w.client.remove(service("s", "10.43.0.20", nil))
	eventually(t, "the service is gone", func() bool { _, _, err := c.ask("10.43.0.20:80"); return errors.Is(err, syscall.ECONNREFUSED) })
	eventually(t, "nothing of it is left", func() bool {
		w.net.rules.mu.Lock()
		defer w.net.rules.mu.Unlock()
		return len(w.net.rules.table.All().Frontends) == 0
	})
}

func TestAffinity(t *testing.T) {
	w := newWorld(t, true)
	pods := []*namespace{w.pod("a", ""), w.pod("b", ""), w.pod("c", "")}
	var addrs []netip.Addr
	byName := map[string]netip.Addr{}
	for i, name := range []string{"a", "b", "c"} {
		pods[i].serve(name, 8080)
		addrs = append(addrs, pods[i].addr)
		byName[name] = pods[i].addr
	}
	sticky := func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }
	w.client.put(service("s", "10.43.0.20", sticky), endpoints("s", addrs...))
	client := w.pod("client", "")
	eventually(t, "the service answers", func() bool { _, _, err := client.ask("10.43.0.20:80"); return err == nil })
	seen := spread(t, client, "10.43.0.20:80", 30)
	if len(seen) != 1 {
		t.Fatalf("one client, but answers of %v", seen)
	}
	var first string
	for first = range seen {
	}
	// What is remembered outlives changes of other endpoints, but not the endpoint itself.
	var rest []netip.Addr
	for name, a := range byName {
		if name != first {
			rest = append(rest, a)
		}
	}
	w.client.put(endpoints("s", rest...))
	eventually(t, "another answers", func() bool { now, _, err := client.ask("10.43.0.20:80"); return err == nil && now != first })
	seen = spread(t, client, "10.43.0.20:80", 30)
	if len(seen) != 1 || seen[first] != 0 {
		t.Errorf("one client, but answers of %v", seen)
	}
	w.client.put(endpoints("s", addrs...))
	w.client.put(service("t", "10.43.0.21", nil), endpoints("t", addrs...))
	eventually(t, "the change is programmed", func() bool { _, _, err := client.ask("10.43.0.21:80"); return err == nil })
	if again := spread(t, client, "10.43.0.20:80", 30); fmt.Sprint(again) != fmt.Sprint(seen) {
		t.Errorf("%v is back, and took over from %v: %v", first, seen, again)
	}

	second := int32(1)
	brief := func(s *corev1.Service) {
		sticky(s)
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &second}}
	}
	w.client.put(service("u", "10.43.0.22", brief), endpoints("u", addrs...))
	eventually(t, "the service answers", func() bool { _, _, err := client.ask("10.43.0.22:80"); return err == nil })
	all := map[string]bool{}
	for tries := 0; len(all) < 2; tries++ {
		if tries == 20 {
			t.Fatalf("a client that waits longer than it is remembered is led to %v for ever", all)
		}
		time.Sleep(1100 * time.Millisecond)
		name, _, err := client.ask("10.43.0.22:80")
		if err != nil {
			t.Fatal(err)
		}
		all[name] = true
	}
}

// TestLocalServiceAddress is the API server: it listens on the first service address, which is the host's, at a port other than the service's.
func TestLocalServiceAddress(t *testing.T) {
	w := newWorld(t, true)
	api := netip.MustParseAddr("10.43.0.1")
	for range 2 {
		if err := AddLocal(api); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for range 2 {
			if err := RemoveLocal(api); err != nil {
				t.Error(err)
			}
		}
	})
	host := newHost(t)
	host.serve("api", 6443)
	pod := w.pod("a", "")
	slice := endpointsAt("kubernetes", 6443, api)
	slice.Endpoints[0].NodeName = nil
	w.client.put(service("kubernetes", "10.43.0.1", nil), slice)
	eventually(t, "the API answers at its service's port", func() bool { _, _, err := pod.ask("10.43.0.1:80"); return err == nil })
	wantAnswer(t, pod, "10.43.0.1:80", "api", pod.addr.String())
	wantAnswer(t, pod, "10.43.0.1:6443", "api", pod.addr.String())
	wantAnswer(t, nil, "10.43.0.1:80", "api", "")
}

func TestHostPorts(t *testing.T) {
	w := newWorld(t, true)
	outside := w.outside()
	pod := w.pod("a", `{"runtimeConfig": {"portMappings": [{"hostPort": 8088, "containerPort": 8080, "protocol": "TCP", "hostIP": "0.0.0.0"}]}}`)
	pod.serve("a", 8080)
	check := func() {
		t.Helper()
		wantAnswer(t, outside, "198.51.100.1:8088", "a", "198.51.100.2")
		wantAnswer(t, nil, "127.0.0.1:8088", "a", "10.42.0.1")
		wantAnswer(t, pod, "198.51.100.1:8088", "a", "10.42.0.1")
	}
	check()
	w.stop()
	w.start()
	check()
	if _, err := w.cni("DEL", "a", "", ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := outside.ask("198.51.100.1:8088"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the port is still led somewhere: %v", err)
	}
}

// TestRestart asks a service while the agent starts anew: nobody notices.
func TestRestart(t *testing.T) {
	w := newWorld(t, true)
	a, b := w.pod("a", ""), w.pod("b", "")
	a.serve("a", 8080)
	w.client.put(service("s", "10.43.0.20", nil), endpoints("s", a.addr))
	eventually(t, "the service answers", func() bool { _, _, err := b.ask("10.43.0.20:80"); return err == nil })
	stop, asked := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				asked <- n
				return
			default:
			}
			wantAnswer(t, b, "10.43.0.20:80", "a", b.addr.String())
			wantAnswer(t, a, "10.43.0.20:80", "a", "10.42.0.1")
		}
	}()
	for range 5 {
		w.stop()
		w.start()
	}
	close(stop)
	if n := <-asked; n < 10 {
		t.Errorf("asked only %d times", n)
	}
}

// TestDNSAddress has a service of the DNS' address, as clusters have one whose pods answer; here the node answers.
func TestDNSAddress(t *testing.T) {
	w := newWorld(t, true)
	addr := netip.MustParseAddr("10.43.0.10")
	if err := AddLocal(addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = RemoveLocal(addr) })
	w.stop()
	w.cfg.DNSAddr = addr
	w.start()
	host := newHost(t)
	host.serve("dns", 80)
	pod := w.pod("a", "")
	w.client.put(service("kube-dns", "10.43.0.10", nil), service("s", "10.43.0.20", nil), endpoints("s", pod.addr))
	pod.serve("a", 8080)
	eventually(t, "the services are programmed", func() bool { _, _, err := pod.ask("10.43.0.20:80"); return err == nil })
	wantAnswer(t, pod, "10.43.0.10:80", "dns", pod.addr.String())
}

// TestTableIsRestored is a firewall that empties everything as it reloads.
func TestTableIsRestored(t *testing.T) {
	w := newWorld(t, true)
	a := w.pod("a", "")
	a.serve("a", 8080)
	w.client.put(service("s", "10.43.0.20", nil), endpoints("s", a.addr))
	eventually(t, "the service answers", func() bool { _, _, err := a.ask("10.43.0.20:80"); return err == nil })
	w.nft("flush", "ruleset")
	eventually(t, "the service answers again", func() bool { _, _, err := a.ask("10.43.0.20:80"); return err == nil })
	if event := <-w.client.events.Events; !strings.Contains(event, "NetworkTableRestored") {
		t.Errorf("the event says %q", event)
	}
}

// TestChangesLoseNoConnection changes a service's endpoints all the time, and all that ever were listen.
func TestChangesLoseNoConnection(t *testing.T) {
	w := newWorld(t, true)
	var addrs []netip.Addr
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		pod := w.pod(name, "")
		pod.serve(name, 8080)
		addrs = append(addrs, pod.addr)
	}
	client := w.pod("client", "")
	w.client.put(service("s", "10.43.0.20", nil), endpoints("s", addrs...))
	eventually(t, "the service answers", func() bool { _, _, err := client.ask("10.43.0.20:80"); return err == nil })
	var asking sync.WaitGroup
	stop := make(chan struct{})
	for _, from := range []*namespace{client, nil} {
		asking.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					t.Logf("asked %d times", n)
					return
				default:
				}
				if _, _, err := from.ask("10.43.0.20:80"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	tcp := service("s", "10.43.0.20", func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] }) // changes of UDP read all connections there are
	for i := range 500 {
		first := i % len(addrs)
		some := append(slices.Clone(addrs[first:]), addrs[:first]...)[:1+i%4]
		part := proxy.Service(tcp, []*discoveryv1.EndpointSlice{endpoints("s", some...)}, proxy.Node{Name: nodeName, Pods: w.cfg.PodCIDRs})
		if err := w.net.rules.Change(func(t *proxy.Table, _ *policy.Table) { t.Set("service/default/s", part) }); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	asking.Wait()
	if !w.intact() {
		t.Error("a change was refused")
	}
}

// TestGonePodIsForgotten has connections that nobody saw the end of: they are forgotten with their pod, and nobody else's are.
func TestGonePodIsForgotten(t *testing.T) {
	w := newWorld(t, true)
	a, b := w.pod("a", ""), w.pod("b", "")
	a.serve("a", 8080)
	b.serve("b", 8080)
	w.client.put(service("s", "10.43.0.20", nil), endpoints("s", a.addr))
	eventually(t, "the service answers", func() bool { _, _, err := b.ask("10.43.0.20:80"); return err == nil })
	for _, from := range []*namespace{nil, b} { // to a by its service, from a, and without it
		if _, err := talk(from.udp(t, "10.43.0.20:80")); err != nil {
			t.Fatal(err)
		}
	}
	if !reaches(a, b.addr.String()+":8080") || !reaches(nil, b.addr.String()+":8080") {
		t.Fatal("b does not answer")
	}
	if n := tracked(t, v4, flowsOf{a.addr: true}); n < 3 {
		t.Fatalf("%d connections of a are tracked, want three at least", n)
	}
	if _, err := w.cni("DEL", "a", "", ""); err != nil {
		t.Fatal(err)
	}
	if n, others := tracked(t, v4, flowsOf{a.addr: true}), tracked(t, v4, flowsOf{b.addr: true}); n != 0 || others == 0 {
		t.Errorf("%d connections of a and %d of b are tracked, want none and some", n, others)
	}
}

// tracked counts the connections of a family that a filter picks.
func tracked(t *testing.T, f family, match netlink.CustomConntrackFilter) (n int) {
	t.Helper()
	all, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(f))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if match.MatchConntrackFlow(f) {
			n++
		}
	}
	return n
}

// TestUnledPacket has a chain that leads nowhere, as it does for a moment for a packet that is on its way through the table while it is changed.
func TestUnledPacket(t *testing.T) {
	w := newWorld(t, true)
	a, b := w.pod("a", ""), w.pod("b", "")
	a.serve("a", 8080)
	b.serve("b", 8080)
	w.client.put(service("s", "10.43.0.20", nil), endpoints("s", a.addr))
	eventually(t, "the service answers", func() bool { _, _, err := b.ask("10.43.0.20:80"); return err == nil })
	for _, name := range []string{"mcast_solicit", "retrans_time_ms"} { // so that nobody waits long for a host that does not exist
		if err := sysctl("net/ipv4/neigh/"+anchor("w")+"/"+name, "1"); err != nil {
			t.Fatal(err)
		}
	}
	w.nft("flush", "chain", "inet", "w", pick{n: 1}.name(v4))
	froms := map[string]*namespace{"a pod": b, "the node": nil}
	for who, from := range froms {
		if !silent(from, "10.43.0.20:80") {
			t.Errorf("%s was told something", who)
		}
	}
	var asked sync.WaitGroup
	for who, from := range froms {
		asked.Go(func() {
			if _, _, err := from.ask("10.43.0.20:80"); err != nil {
				t.Errorf("%s is not led again when it tries again: %v", who, err)
			}
		})
	}
	w.client.put(endpoints("s", a.addr, b.addr))
	asked.Wait()
}

// TestManyServices writes a large table at once, and measures one change.
func TestManyServices(t *testing.T) {
	w := newWorld(t, true)
	const services = 3000
	for i := range services {
		ip := netip.AddrFrom4([4]byte{10, 43, byte(1 + i/250), byte(1 + i%250)})
		w.client.put(service(fmt.Sprintf("s%d", i), ip.String(), nil), endpoints(fmt.Sprintf("s%d", i), netip.MustParseAddr("10.42.0.77")))
	}
	pod := w.pod("a", "")
	pod.serve("a", 8080)
	w.stop()
	begin := time.Now()
	w.start()
	t.Logf("%d services, started in %s", services, time.Since(begin))
	begin = time.Now()
	w.client.put(service("last", "10.43.0.9", nil), endpoints("last", pod.addr))
	eventually(t, "one more answers", func() bool { _, _, err := pod.ask("10.43.0.9:80"); return err == nil })
	t.Logf("one more answers after %s", time.Since(begin))
	begin = time.Now()
	if err := w.net.rules.Change(func(t *proxy.Table, _ *policy.Table) {
		t.Set("pod/x", proxy.HostPorts([]netip.Addr{pod.addr}, []proxy.HostPort{{Protocol: proxy.TCP, HostPort: 7, Container: 7}}))
	}); err != nil {
		t.Error(err)
	}
	t.Logf("one change takes %s", time.Since(begin))

	many := &discoveryv1.EndpointSlice{}
	endpoints("last", pod.addr).DeepCopyInto(many)
	for i := range 2500 {
		many.Endpoints = append(many.Endpoints, discoveryv1.Endpoint{Addresses: []string{netip.AddrFrom4([4]byte{10, 42, byte(10 + i/250), byte(1 + i%250)}).String()}})
	}
	w.client.put(many)
	eventually(t, "2501 endpoints are written", func() bool {
		return exec.Command("sh", "-c", "nft list chain inet w pick/2501 | grep -q 'mod 2501'").Run() == nil
	})
	if !w.intact() {
		t.Error("the table could not be written")
	}
}
