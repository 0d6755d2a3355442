package ingress

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"
)

// world is objects in the making.
type world struct{ Objects }

func newWorld() *world {
	return &world{Objects{Classes: []*networkingv1.IngressClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "skiff"}, Spec: networkingv1.IngressClassSpec{Controller: Controller}},
		{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: networkingv1.IngressClassSpec{Controller: "example.com/other"}},
	}}}
}

// ingress adds one with rules like "host=/path=service", where a path that begins with = is exact; each is a minute younger than the one before.
func (w *world) ingress(name string, rules ...string) *networkingv1.Ingress {
	i := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: metav1.Unix(int64(60*len(w.Ingresses)), 0)},
		Spec:       networkingv1.IngressSpec{IngressClassName: ptr.To("skiff")},
	}
	for _, text := range rules {
		parts := strings.Split(text, " ")
		p := networkingv1.HTTPIngressPath{Path: parts[1], PathType: ptr.To(networkingv1.PathTypePrefix), Backend: *service(parts[2])}
		if exact, ok := strings.CutPrefix(p.Path, "="); ok {
			p.Path, p.PathType = exact, ptr.To(networkingv1.PathTypeExact)
		}
		if loose, ok := strings.CutPrefix(p.Path, "~"); ok {
			p.Path, p.PathType = loose, ptr.To(networkingv1.PathTypeImplementationSpecific)
		}
		i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{
			Host: strings.TrimPrefix(parts[0], "any"), IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{p}}},
		})
	}
	w.Ingresses = append(w.Ingresses, i)
	return i
}

func service(name string) *networkingv1.IngressBackend {
	return &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name, Port: networkingv1.ServiceBackendPort{Number: 80}}}
}

func (w *world) secret(t *testing.T, name string, hosts ...string) *corev1.Secret {
	t.Helper()
	crt, key, err := cert.GenerateSelfSignedCertKey(hosts[0], nil, hosts)
	if err != nil {
		t.Fatal(err)
	}
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: "1"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: crt, corev1.TLSPrivateKeyKey: key},
	}
	w.Secrets = append(w.Secrets, s)
	return s
}

func TestFind(t *testing.T) {
	w := newWorld()
	w.ingress("shop", "shop.example.com / front", "shop.example.com /api api", "shop.example.com =/api exact", "shop.example.com /api/v2/ v2",
		"shop.example.com =/slash/ slash", "shop.example.com ~/loose loose")
	w.ingress("wild", "*.example.com / wild", "*.example.com /only-wild wilder")
	w.ingress("any", "any /everywhere any")
	w.ingress("late", "shop.example.com /api thief")
	w.ingress("bare", "Bare.example.org /a a").Spec.DefaultBackend = service("bare-default")
	w.ingress("default").Spec.DefaultBackend = service("second-default")
	table := Build(w.Objects, nil)
	for _, c := range []struct{ host, path, want string }{
		{"shop.example.com", "/", "front"},
		{"shop.example.com", "/apix", "front"},
		{"shop.example.com", "/api", "exact"},
		{"shop.example.com", "/api/", "api"},
		{"shop.example.com", "/api/v1", "api"},
		{"shop.example.com", "/api/v2", "v2"},
		{"shop.example.com", "/api/v2/x", "v2"},
		{"shop.example.com", "/API", "front"},
		{"shop.example.com", "/slash", "front"},
		{"shop.example.com", "/slash/", "slash"},
		{"shop.example.com", "/loose/x", "loose"},
		{"shop.example.com", "/x/../api/v2", "v2"},
		{"shop.example.com", "/slash/x/..", "slash"},
		{"SHOP.example.com.:80", "/api/v1", "api"},
		{"other.example.com", "/api", "wild"},
		{"other.example.com", "/only-wild", "wilder"},
		{"a.b.example.com", "/", "bare-default"}, // a wildcard is one label
		{"example.com", "/", "bare-default"},
		{"elsewhere.org", "/everywhere/x", "any"},
		{"10.0.0.1", "/everywhere", "any"},
		{"[fd00::1]:80", "/everywhere", "any"},
		{"bare.example.org", "/a", "a"},
		{"bare.example.org", "/b", "bare-default"},
		{"", "*", "bare-default"},
	} {
		route, _ := table.Find(Hostname(c.host), c.path)
		if route == nil || route.Backend.Name != "default/"+c.want+":80" {
			t.Errorf("%s%s goes to %+v, not to %s", c.host, c.path, route, c.want)
		}
	}
	w.Ingresses = w.Ingresses[:4]
	table = Build(w.Objects, nil)
	if route, routed := table.Find("elsewhere.org", "/"); route != nil || !routed {
		t.Errorf("a path that no rule names goes to %+v (%t)", route, routed)
	}
	w.Ingresses = w.Ingresses[:2]
	if route, routed := Build(w.Objects, nil).Find("elsewhere.org", "/"); route != nil || routed {
		t.Errorf("a host that no rule names goes to %+v (%t)", route, routed)
	}
}

func TestOurs(t *testing.T) {
	w := newWorld()
	w.ingress("b").CreationTimestamp = metav1.Unix(9, 0)
	w.ingress("a").CreationTimestamp = metav1.Unix(9, 0)
	w.ingress("old").CreationTimestamp = metav1.Unix(1, 0)
	w.ingress("other").Spec.IngressClassName = ptr.To("other")
	w.ingress("gone").Spec.IngressClassName = ptr.To("gone")
	w.ingress("none").Spec.IngressClassName = nil
	annotated := w.ingress("annotated")
	annotated.Spec.IngressClassName, annotated.Annotations = nil, map[string]string{classAnnotation: "skiff"}
	names := func() (out string) {
		for _, i := range Ours(w.Objects) {
			out += i.Name + " "
		}
		return out
	}
	if got := names(); got != "old a b annotated " {
		t.Errorf("served are %s", got)
	}
	w.Classes[0].Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}
	if got := names(); got != "old a b none annotated " {
		t.Errorf("with a default class, served are %s", got)
	}
}

func TestBackends(t *testing.T) {
	w := newWorld()
	i := w.ingress("shop", "a / web", "b / web", "c / web", "d / gone", "e / outside", "f / web")
	port := func(n int, p networkingv1.ServiceBackendPort) {
		i.Spec.Rules[n].HTTP.Paths[0].Backend.Service.Port = p
	}
	port(1, networkingv1.ServiceBackendPort{Name: "grpc"})
	port(2, networkingv1.ServiceBackendPort{Number: 81})
	i.Spec.Rules[5].HTTP.Paths[0].Backend = networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "Bucket", Name: "b"}}
	w.Services = []*corev1.Service{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
			{Name: "http", Port: 80}, {Name: "grpc", Port: 90, AppProtocol: ptr.To("kubernetes.io/h2c")},
		}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "outside"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "x.org"}},
	}
	endpoint := func(address string, ready, serving, terminating bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}}
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		Ports:      []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}, {Name: ptr.To("grpc"), Port: ptr.To[int32](9090)}},
		Endpoints: []discoveryv1.Endpoint{
			endpoint("10.0.0.2", true, true, false), endpoint("10.0.0.1", true, true, false), endpoint("10.0.0.3", false, false, false), endpoint("10.0.0.4", false, true, true),
		},
	}
	w.Slices = []*discoveryv1.EndpointSlice{slice, slice}
	table := Build(w.Objects, nil)
	backend := func(host string) *Backend {
		r, _ := table.Find(host, "/")
		return r.Backend
	}
	check := func(host, endpoints, problem string) {
		t.Helper()
		b := backend(host)
		if got := strings.Join(b.Endpoints, " "); got != endpoints || !strings.Contains(b.Problem, problem) || (problem == "") != (b.Problem == "") {
			t.Errorf("%s: endpoints %q, problem %q", host, got, b.Problem)
		}
	}
	check("a", "10.0.0.1:8080 10.0.0.2:8080", "")
	check("b", "10.0.0.1:9090 10.0.0.2:9090", "")
	check("c", "", "default/web:81 has no such port")
	check("d", "", "there is no service default/gone")
	check("e", "", "ExternalName")
	check("f", "", "no Service")
	if backend("a").H2C || !backend("b").H2C {
		t.Error("the protocol of a port is not its appProtocol")
	}
	if a, b := backend("a").Next(), backend("a").Next(); a == b {
		t.Errorf("%s answers twice in a row", a)
	}
	backend("a").Next()
	table = Build(w.Objects, table)
	if got := backend("a").Next(); got != "10.0.0.2:8080" {
		t.Errorf("after a new table it is the turn of %s", got)
	}
	slice.Endpoints = slice.Endpoints[2:]
	table = Build(w.Objects, table)
	check("a", "10.0.0.4:8080", "")
	slice.Endpoints = slice.Endpoints[:1]
	table = Build(w.Objects, table)
	check("a", "", "no endpoint that is ready")
}

func TestCertificates(t *testing.T) {
	w := newWorld()
	exact, wild, rules := w.secret(t, "exact", "a.example.com"), w.secret(t, "wild", "*.example.com"), w.secret(t, "rules", "r.example.org")
	w.ingress("wild").Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"*.example.com"}, SecretName: "wild"}, {Hosts: []string{"x.org"}, SecretName: "gone"}}
	w.ingress("exact").Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"a.example.com"}, SecretName: "exact"}}
	w.ingress("thief").Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"a.example.com"}, SecretName: "wild"}}
	w.ingress("rules", "r.example.org / web").Spec.TLS = []networkingv1.IngressTLS{{SecretName: "rules"}}
	table := Build(w.Objects, nil)
	for host, want := range map[string]*corev1.Secret{"a.example.com": exact, "b.example.com": wild, "r.example.org": rules, "x.org": nil, "": nil} {
		switch got := table.Certificate(host); {
		case want == nil && got != nil:
			t.Errorf("%q has a certificate", host)
		case want != nil && (got == nil || got != table.pairs[nameOf(want)].Certificate):
			t.Errorf("%q does not have that of %s", host, want.Name)
		}
	}
	if len(table.Problems) != 1 || !strings.Contains(table.Problems[0], "Ingress default/wild: spec.tls[1].secretName: there is no Secret default/gone") {
		t.Errorf("problems are %v", table.Problems)
	}
	next := Build(w.Objects, table)
	if next.Certificate("a.example.com") != table.Certificate("a.example.com") {
		t.Error("a Secret that did not change was parsed again")
	}
	exact.Data[corev1.TLSPrivateKeyKey], exact.ResourceVersion = wild.Data[corev1.TLSPrivateKeyKey], "2"
	if next = Build(w.Objects, next); len(next.Problems) != 2 || !slices.ContainsFunc(next.Problems, func(p string) bool { return strings.Contains(p, "private key does not match") }) {
		t.Errorf("problems are %v", next.Problems)
	}
}

func TestStatuses(t *testing.T) {
	pod := func(ip string, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{HostIP: ip, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}}}
	}
	ending := pod("10.0.0.9", corev1.ConditionTrue)
	ending.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	got := Addresses([]*corev1.Pod{pod("10.0.0.2", corev1.ConditionTrue), pod("10.0.0.1", corev1.ConditionTrue), pod("10.0.0.3", corev1.ConditionFalse), ending})
	if !slices.Equal(got, []string{"10.0.0.1", "10.0.0.2"}) {
		t.Fatalf("addresses are %v", got)
	}
	w := newWorld()
	w.ingress("shop")
	w.ingress("other").Spec.IngressClassName = ptr.To("other")
	write := Statuses(w.Objects, got)
	if len(write) != 1 || write[0] == w.Ingresses[0] || len(write[0].Status.LoadBalancer.Ingress) != 2 {
		t.Fatalf("to write: %v", write)
	}
	w.Ingresses[0] = write[0]
	if again := Statuses(w.Objects, got); len(again) != 0 {
		t.Errorf("written again: %v", again)
	}
}
