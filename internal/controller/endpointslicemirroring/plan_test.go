package endpointslicemirroring

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func subset(port int32, ready, not []string) corev1.EndpointSubset {
	addresses := func(ips []string) (out []corev1.EndpointAddress) {
		for _, ip := range ips {
			out = append(out, corev1.EndpointAddress{IP: ip})
		}
		return out
	}
	return corev1.EndpointSubset{Addresses: addresses(ready), NotReadyAddresses: addresses(not), Ports: []corev1.EndpointPort{{Port: port, Protocol: corev1.ProtocolTCP}}}
}

func handMade(sets ...corev1.EndpointSubset) *corev1.Endpoints {
	return &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "s", UID: "u", Labels: map[string]string{"a": "b"}}, Subsets: sets}
}

func text(list []*discoveryv1.EndpointSlice) string {
	var out []string
	for _, s := range list {
		line := fmt.Sprintf("%s:%d", s.AddressType, *s.Ports[0].Port)
		for _, e := range s.Endpoints {
			line += fmt.Sprintf(" %s/%t", e.Addresses[0], *e.Conditions.Ready)
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func TestMirror(t *testing.T) {
	got := text(mirror(handMade(subset(80, []string{"192.0.2.1", "2001:db8::1"}, []string{"192.0.2.2"}), subset(81, []string{"192.0.2.3"}, nil), subset(82, nil, nil))))
	if want := "IPv4:80 192.0.2.1/true 192.0.2.2/false; IPv6:80 2001:db8::1/true; IPv4:81 192.0.2.3/true"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDecide(t *testing.T) {
	have := mirror(handMade(subset(80, []string{"192.0.2.1"}, nil), subset(81, []string{"192.0.2.1"}, nil), subset(82, []string{"192.0.2.1"}, nil)))
	p := decide(mirror(handMade(subset(80, []string{"192.0.2.1"}, nil), subset(81, []string{"192.0.2.9"}, nil), subset(83, []string{"192.0.2.1"}, nil))), have)
	if text(p.create) != "IPv4:83 192.0.2.1/true" || text(p.update) != "IPv4:81 192.0.2.9/true" || text(p.remove) != "IPv4:82 192.0.2.1/true" {
		t.Errorf("create %s, update %s, remove %s", text(p.create), text(p.update), text(p.remove))
	}
}

func TestMirrored(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*corev1.Endpoints, *corev1.Service)
		want   bool
	}{
		{"no selector", func(*corev1.Endpoints, *corev1.Service) {}, true},
		{"a selector", func(_ *corev1.Endpoints, s *corev1.Service) { s.Spec.Selector = map[string]string{"a": "b"} }, false},
		{"not wanted", func(e *corev1.Endpoints, _ *corev1.Service) { e.Labels[discoveryv1.LabelSkipMirror] = "true" }, false},
		{"an election", func(e *corev1.Endpoints, _ *corev1.Service) { e.Annotations = map[string]string{leader: "{}"} }, false},
	} {
		e, s := handMade(), &corev1.Service{}
		c.change(e, s)
		if mirrored(e, s) != c.want {
			t.Errorf("%s: want %t", c.name, c.want)
		}
	}
}
