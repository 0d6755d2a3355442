package servicelb

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// text is "ip,ip" or "! refusal" for each service.
func text(verdicts []verdict) string {
	var out []string
	for _, v := range verdicts {
		if v.refusal != "" {
			out = append(out, "! "+v.refusal)
			continue
		}
		var ips []string
		for _, i := range v.ingress {
			ips = append(ips, i.IP)
		}
		out = append(out, strings.Join(ips, ","))
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
	for name, c := range map[string]struct {
		services []*corev1.Service
		nodes    []*corev1.Node
		want     string
	}{
		"all nodes":                      {[]*corev1.Service{service("a", 80, 443)}, []*corev1.Node{node("b", "10.0.0.2"), node("a", "10.0.0.1")}, "10.0.0.1,10.0.0.2"},
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
