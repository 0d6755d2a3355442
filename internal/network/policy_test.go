package network

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// podObject is what the API has of a pod: its name is its app's.
func podObject(name string, addr netip.Addr) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": name}}}
	p.Spec.NodeName = nodeName
	p.Spec.Containers = []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}
	if addr.IsValid() {
		p.Status.PodIPs = []corev1.PodIP{{IP: addr.String()}}
	}
	return p
}

func networkPolicy(t *testing.T, name, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

// silent asks over TCP and expects that nobody answers.
func silent(from *namespace, to string) bool {
	var err error
	from.in(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", to, 200*time.Millisecond); err == nil {
			c.Close()
		}
	})
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

func reaches(from *namespace, to string) bool { _, _, err := from.ask(to); return err == nil }

func TestPolicies(t *testing.T) {
	w := newWorld(t, true)
	outside := w.outside()
	w.client.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: map[string]string{"team": "red"}}})
	pods := map[string]*namespace{}
	for _, name := range []string{"a", "b", "c"} {
		w.client.put(podObject(name, netip.Addr{}))
		pods[name] = w.pod(name, "")
		pods[name].serve(name, 8080)
		w.client.put(podObject(name, pods[name].addr))
	}
	a, b, c := pods["a"], pods["b"], pods["c"]
	at := func(n *namespace) string { return n.addr.String() + ":8080" }
	w.client.put(service("b", "10.43.0.20", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = 30080
	}), endpoints("b", b.addr))
	eventually(t, "without policies everybody reaches b", func() bool {
		return reaches(a, at(b)) && reaches(c, "10.43.0.20:80") && reaches(outside, "198.51.100.1:30080")
	})
	old := a.udp(t, at(b))
	if _, err := talk(old); err != nil {
		t.Fatal(err)
	}

	w.client.put(networkPolicy(t, "deny", `{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}`))
	eventually(t, "b is isolated", func() bool { return silent(a, at(b)) })
	for what, ok := range map[string]bool{
		"by its service": silent(c, "10.43.0.20:80"), "by the node's port": silent(outside, "198.51.100.1:30080"),
		"what it asks is answered": reaches(b, at(a)), "the node reaches it": reaches(nil, at(b)), "it reaches itself": reaches(b, "10.43.0.20:80"),
		"others are as before": reaches(a, at(c)),
	} {
		if !ok {
			t.Errorf("b is isolated: not so: %s", what)
		}
	}
	if _, err := talk(old); err != nil {
		t.Errorf("a connection that was there before the policy: %v", err)
	}

	w.client.put(networkPolicy(t, "a", `{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress], ingress: [
		{from: [{podSelector: {matchLabels: {app: a}}}, {ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}], ports: [{protocol: TCP, port: web}]}]}`))
	eventually(t, "a is let in", func() bool { return reaches(a, at(b)) })
	if !reaches(a, "10.43.0.20:80") || !reaches(outside, "198.51.100.1:30080") || !silent(c, at(b)) {
		t.Error("want a and outside to reach b, and c not")
	}
	if _, err := talk(a.udp(t, at(b))); err == nil {
		t.Error("UDP is let in, and the policy names TCP alone")
	}
	relabelled := podObject("c", c.addr)
	relabelled.Labels = map[string]string{"app": "a"}
	w.client.put(relabelled)
	eventually(t, "c is let in as it becomes one of a", func() bool { return reaches(c, at(b)) })
	w.client.put(podObject("c", c.addr))
	eventually(t, "c is kept out again", func() bool { return silent(c, at(b)) })

	w.client.put(networkPolicy(t, "out", `{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [
		{to: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: b}}}], ports: [{protocol: TCP, port: 8000, endPort: 8100}]}]}`))
	outside.serve("outside", 9000)
	eventually(t, "a reaches b alone", func() bool { return silent(a, at(c)) && silent(a, "198.51.100.2:9000") && reaches(a, at(b)) })
	w.client.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	eventually(t, "the namespace is of no team any more", func() bool { return silent(a, at(b)) })

	// A pod is isolated before its first packet, although the API has no address of it yet.
	w.client.put(networkPolicy(t, "late", `{podSelector: {matchExpressions: [{key: app, operator: In, values: [c, d]}]}, policyTypes: [Ingress]}`), podObject("d", netip.Addr{}))
	eventually(t, "the policy is known", func() bool { return silent(b, at(c)) })
	d := w.pod("d", "")
	d.serve("d", 8080)
	if !silent(c, at(d)) {
		t.Error("d was reached")
	}
	w.stop()
	w.start()
	if !silent(c, at(d)) || !silent(c, at(b)) {
		t.Error("the policies did not outlive a restart")
	}
	for _, name := range []string{"deny", "a", "out", "late"} {
		w.client.remove(networkPolicy(t, name, "{}"))
	}
	eventually(t, "everybody reaches everybody", func() bool { return reaches(a, at(c)) && reaches(c, at(b)) && reaches(c, at(d)) })
	if rules := w.nft("list", "table", "inet", "w"); strings.Contains(rules, "peers/") || strings.Contains(rules, "chain in/") {
		t.Errorf("chains or sets of policies are left:\n%s", rules)
	}
	if _, _, err := c.ask(b.addr.String() + ":1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port nobody listens on: %v", err)
	}
}
