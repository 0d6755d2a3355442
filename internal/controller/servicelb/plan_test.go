package servicelb

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api/loadbalancer"
)

func service(name string, ports ...int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: p, Protocol: corev1.ProtocolTCP})
	}
	return s
}

func node(name, ip string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

// text is "ip,ip", "ip@announcer" or "! refusal" for each service, or an address and a refusal.
func text(verdicts []verdict) string {
	var out []string
	for _, v := range verdicts {
		if v.refusal != "" && len(v.ingress) == 0 {
			out = append(out, "! "+v.refusal)
			continue
		}
		var ips []string
		for _, i := range v.ingress {
			ips = append(ips, i.IP)
		}
		if v.pooled {
			ips = append(ips, "@"+v.announcer)
		}
		line := strings.ReplaceAll(strings.Join(ips, ","), ",@", "@")
		if v.refusal != "" {
			line += " ! " + v.refusal
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func TestPlan(t *testing.T) {
	local := service("local", 80)
	local.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	external := node("c", "10.0.0.3")
	external.Status.Addresses = append(external.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "192.0.2.3"})
	udp := service("udp", 80)
	udp.Spec.Ports[0].Protocol = corev1.ProtocolUDP
	dual, six := service("dual", 80), service("six", 80)
	dual.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	six.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	both := node("b", "10.0.0.2")
	both.Status.Addresses = append(both.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "2001:db8::2"})
	for name, c := range map[string]struct {
		services []*corev1.Service
		nodes    []*corev1.Node
		want     string
	}{
		"all nodes":                      {[]*corev1.Service{service("a", 80, 443)}, []*corev1.Node{node("b", "10.0.0.2"), node("a", "10.0.0.1")}, "10.0.0.1,10.0.0.2"},
		"both families":                  {[]*corev1.Service{dual}, []*corev1.Node{node("a", "10.0.0.1"), both}, "10.0.0.1,10.0.0.2,2001:db8::2"},
		"one of a node's families":       {[]*corev1.Service{six}, []*corev1.Node{node("a", "10.0.0.1"), both}, "2001:db8::2"},
		"no nodes":                       {[]*corev1.Service{service("a", 80)}, nil, ""},
		"an external address goes first": {[]*corev1.Service{service("a", 80)}, []*corev1.Node{external}, "192.0.2.3"},
		"the older service keeps its port": {[]*corev1.Service{service("a", 80), service("b", 8080, 80), service("c", 8080)}, []*corev1.Node{node("a", "10.0.0.1")},
			"10.0.0.1; ! port 80/TCP of the nodes is held by service d/a; 10.0.0.1"},
		"protocols are apart":       {[]*corev1.Service{service("a", 80), udp}, []*corev1.Node{node("a", "10.0.0.1")}, "10.0.0.1; 10.0.0.1"},
		"the host's own ports":      {[]*corev1.Service{service("a", 6443)}, []*corev1.Node{node("a", "10.0.0.1")}, "! port 6443/TCP of the nodes is held by the API server"},
		"traffic stays on its node": {[]*corev1.Service{local}, []*corev1.Node{node("a", "10.0.0.1"), node("b", "10.0.0.2")}, "10.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			v := view{
				services: c.services, nodes: c.nodes, reserved: map[port]string{{6443, corev1.ProtocolTCP}: "the API server"},
				local: func(*corev1.Service) map[string]bool { return map[string]bool{"b": true} },
			}
			if got := text(plan(v)); got != c.want {
				t.Errorf("plan says %q, want %q", got, c.want)
			}
		})
	}
}

func TestPool(t *testing.T) {
	pool, err := loadbalancer.ParsePool([]string{"192.0.2.1-192.0.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	wishes := func(ip string, s *corev1.Service) *corev1.Service { s.Spec.LoadBalancerIP = ip; return s }
	has := func(ip, by string, s *corev1.Service) *corev1.Service {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{ingress(ip)}
		s.Status.Conditions = []metav1.Condition{loadbalancer.Elected(by, 1)}
		return s
	}
	class := Class
	nodes := service("nodes", 80)
	nodes.Spec.LoadBalancerClass = &class
	local := service("local", 80)
	local.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	both := []*corev1.Node{node("a", "10.0.0.1"), node("b", "10.0.0.2")}
	for name, c := range map[string]struct {
		services []*corev1.Service
		nodes    []*corev1.Node
		want     string
	}{
		"one each, whatever the port":   {[]*corev1.Service{service("a", 80), service("b", 80), service("c", 6443)}, both[:1], "192.0.2.1@a; 192.0.2.2@a; 192.0.2.3@a"},
		"what is held is kept":          {[]*corev1.Service{service("a", 80), has("192.0.2.1", "b", service("b", 80))}, both[:1], "192.0.2.2@a; 192.0.2.1@a"},
		"the node stays while it may":   {[]*corev1.Service{has("192.0.2.1", "a", service("a")), has("192.0.2.2", "b", service("b"))}, both, "192.0.2.1@a; 192.0.2.2@b"},
		"from outside of the pool":      {[]*corev1.Service{has("10.0.0.1", "", service("a"))}, both[:1], "192.0.2.1@a"},
		"exhausted":                     {[]*corev1.Service{service("a"), service("b"), service("c"), service("d")}, both[:1], "192.0.2.1@a; 192.0.2.2@a; 192.0.2.3@a; ! all addresses of the pool 192.0.2.1-192.0.2.3 are in use; delete a service of type LoadBalancer, or give the server a larger --lb-pool"},
		"a wish":                        {[]*corev1.Service{wishes("192.0.2.3", has("192.0.2.1", "a", service("a")))}, both[:1], "192.0.2.3@a"},
		"a wish outside of the pool":    {[]*corev1.Service{wishes("192.0.2.4", service("a"))}, both, "! spec.loadBalancerIP 192.0.2.4 is not in the pool 192.0.2.1-192.0.2.3"},
		"a wish for another's":          {[]*corev1.Service{wishes("192.0.2.1", service("a")), has("192.0.2.1", "a", service("b"))}, both[:1], "! spec.loadBalancerIP 192.0.2.1 is held by service d/b; 192.0.2.1@a"},
		"two hold one":                  {[]*corev1.Service{has("192.0.2.1", "a", service("a")), has("192.0.2.1", "a", service("b"))}, both[:1], "192.0.2.1@a; 192.0.2.2@a"},
		"a node's address is not given": {[]*corev1.Service{service("a")}, []*corev1.Node{node("a", "192.0.2.1")}, "192.0.2.2@a"},
		"no node":                       {[]*corev1.Service{service("a")}, nil, "192.0.2.1@"},
		"only where an endpoint is":     {[]*corev1.Service{local}, both, "192.0.2.1@b"},
		"the nodes' class":              {[]*corev1.Service{nodes, service("a")}, both[:1], "10.0.0.1; 192.0.2.1@a"},
	} {
		t.Run(name, func(t *testing.T) {
			v := view{services: c.services, nodes: c.nodes, pool: pool, hosts: map[netip.Addr]string{},
				local: func(*corev1.Service) map[string]bool { return map[string]bool{"b": true} }}
			for _, n := range c.nodes {
				v.hosts[netip.MustParseAddr(address(n, corev1.IPv4Protocol))] = "node " + n.Name
			}
			if got := text(plan(v)); got != c.want {
				t.Errorf("plan says %q, want %q", got, c.want)
			}
		})
	}
}

// TestPoolOfBothFamilies: a service has an address in each of its families for which there are some.
func TestPoolOfBothFamilies(t *testing.T) {
	with := func(s *corev1.Service, families ...corev1.IPFamily) *corev1.Service {
		s.Spec.IPFamilies = families
		return s
	}
	wishes := func(ip string, s *corev1.Service) *corev1.Service { s.Spec.LoadBalancerIP = ip; return s }
	has := func(s *corev1.Service, by string, ips ...string) *corev1.Service {
		for _, ip := range ips {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, ingress(ip))
		}
		s.Status.Conditions = []metav1.Condition{loadbalancer.Elected(by, 1)}
		return s
	}
	const v4, v6 = corev1.IPv4Protocol, corev1.IPv6Protocol
	four, six := "192.0.2.1-192.0.2.2", "2001:db8::1-2001:db8::1"
	for name, c := range map[string]struct {
		pool     []string
		services []*corev1.Service
		want     string
	}{
		"one of each":          {[]string{four, six}, []*corev1.Service{with(service("a"), v4, v6)}, "192.0.2.1,2001:db8::1@n"},
		"in its order":         {[]string{four, six}, []*corev1.Service{with(service("a"), v6, v4)}, "2001:db8::1,192.0.2.1@n"},
		"IPv6 alone":           {[]string{four, six}, []*corev1.Service{with(service("a"), v6)}, "2001:db8::1@n"},
		"none of that family":  {[]string{four}, []*corev1.Service{with(service("a"), v6)}, "! the pool 192.0.2.1-192.0.2.2 has no IPv6 addresses; give the server some with --lb-pool, or change spec.ipFamilies"},
		"the family there is":  {[]string{four}, []*corev1.Service{with(service("a"), v6, v4)}, "192.0.2.1@n"},
		"both are kept":        {[]string{four, six}, []*corev1.Service{service("a"), has(with(service("b"), v4, v6), "n", "192.0.2.1", "2001:db8::1")}, "192.0.2.2@n; 192.0.2.1,2001:db8::1@n"},
		"a family that went":   {[]string{four, six}, []*corev1.Service{has(with(service("a"), v6), "n", "192.0.2.1", "2001:db8::1")}, "2001:db8::1@n"},
		"a wish in one of two": {[]string{four, six}, []*corev1.Service{wishes("192.0.2.2", with(service("a"), v4, v6))}, "192.0.2.2,2001:db8::1@n"},
		"one of two is used up": {[]string{four, six}, []*corev1.Service{with(service("a"), v6), has(with(service("b"), v4, v6), "n", "192.0.2.1")},
			"2001:db8::1@n; 192.0.2.1@n ! all addresses of the pool 2001:db8::1-2001:db8::1 are in use; delete a service of type LoadBalancer, or give the server a larger --lb-pool"},
		"a wish that is no address": {[]string{four}, []*corev1.Service{wishes("nonsense", service("a"))}, "! spec.loadBalancerIP nonsense is not in the pool 192.0.2.1-192.0.2.2"},
	} {
		t.Run(name, func(t *testing.T) {
			pool, err := loadbalancer.ParsePool(c.pool)
			if err != nil {
				t.Fatal(err)
			}
			if got := text(plan(view{services: c.services, nodes: []*corev1.Node{node("n", "10.0.0.1")}, pool: pool})); got != c.want {
				t.Errorf("plan says %q, want %q", got, c.want)
			}
		})
	}
}

// TestStoppedNode: what a node announced that stops in order is another's at once, and its own addresses stay those of its services.
func TestStoppedNode(t *testing.T) {
	a, b := node("a", "10.0.0.1"), node("b", "10.0.0.2")
	s := service("s", 80)
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{ingress("192.0.2.1")}
	s.Status.Conditions = []metav1.Condition{loadbalancer.Elected("a", 1)}
	pool, _ := loadbalancer.ParsePool([]string{"192.0.2.1/32"})
	stopped := a.DeepCopy()
	stopped.Status.Conditions = append(stopped.Status.Conditions, corev1.NodeCondition{Type: loadbalancer.AgentStopped, Status: corev1.ConditionTrue})
	for want, v := range map[string]view{
		"192.0.2.1@a":       {nodes: []*corev1.Node{a, b}, pool: pool},
		"192.0.2.1@b":       {nodes: []*corev1.Node{stopped, b}, pool: pool},
		"192.0.2.1@":        {nodes: []*corev1.Node{stopped}, pool: pool},
		"10.0.0.1,10.0.0.2": {nodes: []*corev1.Node{stopped, b}},
	} {
		v.services = []*corev1.Service{s}
		if got := text(plan(v)); got != want {
			t.Errorf("plan says %q, want %q", got, want)
		}
	}
	if nodeChanged(a, stopped) == nil {
		t.Error("nobody looks when a node stops")
	}
}

func TestElectionSpreads(t *testing.T) {
	nodes := []*corev1.Node{node("node-1", "10.0.0.1"), node("node-2", "10.0.0.2"), node("node-3", "10.0.0.3")}
	count := map[string]int{}
	for a, n := netip.MustParseAddr("192.0.2.0"), 0; n < 300; a, n = a.Next(), n+1 {
		winner := elect(service("a"), a, nodes)
		count[winner]++
		for i := range nodes { // whoever else goes, the winner stays
			if left := slices.Delete(slices.Clone(nodes), i, i+1); nodes[i].Name != winner && elect(service("a"), a, left) != winner {
				t.Fatalf("%s moved from %s when %s went", a, winner, nodes[i].Name)
			}
		}
	}
	for _, n := range nodes {
		if count[n.Name] < 60 {
			t.Errorf("300 addresses are spread as %v", count)
		}
	}
}

func TestLeaving(t *testing.T) {
	other, now := "example.com/lb", metav1.Now()
	for name, c := range map[string]struct {
		change func(*corev1.Service)
		want   bool
	}{
		"stays":              {func(*corev1.Service) {}, false},
		"another type":       {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, true},
		"deleted":            {func(s *corev1.Service) { s.DeletionTimestamp = &now }, true},
		"somebody else's":    {func(s *corev1.Service) { s.Spec.LoadBalancerClass, s.DeletionTimestamp = &other, &now }, false},
		"without an address": {func(s *corev1.Service) { s.Spec.Type, s.Status = corev1.ServiceTypeClusterIP, corev1.ServiceStatus{} }, false},
	} {
		s := service("a", 80)
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{ingress("192.0.2.1")}
		if c.change(s); leaving(s) != c.want {
			t.Errorf("%s: leaving is %v", name, !c.want)
		}
	}
}

func TestMine(t *testing.T) {
	other, ours := "example.com/lb", Class
	for name, c := range map[string]struct {
		change func(*corev1.Service)
		want   bool
	}{
		"no class":      {func(*corev1.Service) {}, true},
		"our class":     {func(s *corev1.Service) { s.Spec.LoadBalancerClass = &ours }, true},
		"another class": {func(s *corev1.Service) { s.Spec.LoadBalancerClass = &other }, false},
		"another type":  {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, false},
	} {
		s := service("a", 80)
		c.change(s)
		if got := mine(s); got != c.want {
			t.Errorf("%s: mine is %v", name, got)
		}
	}
}
