package registry_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func service(name string, change ...func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}}}
	for _, c := range change {
		c(&s.Spec)
	}
	return s
}

func kind(k corev1.ServiceType) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type = k }
}
func ip(a string) func(*corev1.ServiceSpec) { return func(s *corev1.ServiceSpec) { s.ClusterIP = a } }
func nodePort(n int32) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, n }
}

func TestServicesGetAddresses(t *testing.T) {
	f := start(t)
	plain := create(f, service("plain"))
	a, err := netip.ParseAddr(plain.Spec.ClusterIP)
	if err != nil || !netip.MustParsePrefix("10.96.0.0/16").Contains(a) || len(plain.Spec.ClusterIPs) != 1 || plain.Spec.ClusterIPs[0] != plain.Spec.ClusterIP ||
		plain.Spec.IPFamilies[0] != corev1.IPv4Protocol || *plain.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack || plain.Spec.Ports[0].NodePort != 0 {
		t.Errorf("%+v", plain.Spec)
	}
	if s := create(f, service("headless", ip("None"))); s.Spec.ClusterIP != "None" || s.Spec.ClusterIPs[0] != "None" {
		t.Errorf("%+v", s.Spec)
	}
	elsewhere := create(f, service("elsewhere", kind("ExternalName"), func(s *corev1.ServiceSpec) { s.ExternalName, s.Ports = "example.com", nil }))
	if elsewhere.Spec.ClusterIP != "" || elsewhere.Spec.ClusterIPs != nil || elsewhere.Spec.IPFamilies != nil {
		t.Errorf("%+v", elsewhere.Spec)
	}
	for _, k := range []corev1.ServiceType{corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer} {
		s := create(f, service("of-"+map[corev1.ServiceType]string{"NodePort": "nodes", "LoadBalancer": "balancer"}[k], kind(k)))
		if n := s.Spec.Ports[0].NodePort; n < 30000 || n > 32767 || s.Spec.ClusterIP == "" {
			t.Errorf("%s: %+v", k, s.Spec)
		}
	}
	no := false
	without := create(f, service("without", kind("LoadBalancer"), func(s *corev1.ServiceSpec) { s.AllocateLoadBalancerNodePorts = &no }))
	if without.Spec.Ports[0].NodePort != 0 {
		t.Errorf("%+v", without.Spec)
	}
	twice := create(f, service("dns", nodePort(30053), func(s *corev1.ServiceSpec) {
		s.Ports = []corev1.ServicePort{{Name: "t", Port: 53, NodePort: 30053}, {Name: "u", Port: 53, Protocol: "UDP", NodePort: 30053}}
	}))
	if twice.Spec.Ports[0].NodePort != 30053 || twice.Spec.Ports[1].NodePort != 30053 {
		t.Errorf("one port for two protocols: %+v", twice.Spec)
	}
}

func TestServiceAddressesThatAreRefused(t *testing.T) {
	f := start(t)
	create(f, service("first", ip("10.96.0.50")))
	create(f, service("nodes", nodePort(30080)))
	cases := map[string]struct {
		s    *corev1.Service
		text string
	}{
		"taken": {service("a", ip("10.96.0.50")),
			`Service "a" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.50"]: failed to allocate IP 10.96.0.50: provided IP is already allocated`},
		"the API server's":  {service("a", ip("10.96.0.1")), "provided IP is already allocated"},
		"out of range":      {service("a", ip("10.97.0.1")), "the provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"},
		"not an address":    {service("a", ip("there")), "spec.clusterIPs[0]: Invalid value: \"there\": must be a valid IP address"},
		"taken port":        {service("a", nodePort(30080)), "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"},
		"port out of range": {service("a", nodePort(80)), "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"},
		"IPv6": {service("a", func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }),
			"spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"},
		"dual stack": {service("a", func(s *corev1.ServiceSpec) {
			p := corev1.IPFamilyPolicyRequireDualStack
			s.IPFamilyPolicy = &p
		}), "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := f.Create(registrytest.Admin, c.s)
			refused(t, err, 422, c.text)
		})
	}
}

// What a refused, dry or failed write took is given back.
func TestServiceAddressesAreGivenBack(t *testing.T) {
	f := start(t)
	want := service("a", ip("10.96.0.60"), nodePort(30090))
	invalid := want.DeepCopy()
	invalid.Spec.SessionAffinity = "Magic"
	_, err := f.Create(registrytest.Admin, invalid)
	refused(t, err, 422, "spec.sessionAffinity")
	if _, err := f.Registry.Registry.Create(ctx, f.Request(registrytest.Admin, "", "services", "", "default", ""), want.DeepCopy(), &metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Error(err)
	}
	f.Must(service("there"))
	taken := want.DeepCopy()
	taken.Name = "there"
	_, err = f.Create(registrytest.Admin, taken)
	refused(t, err, 409, "already exists")

	first := create(f, want)
	if _, err := remove(f, first, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	second := want.DeepCopy()
	second.Name = "b"
	create(f, second)
}

func TestServiceUpdatesKeepAddresses(t *testing.T) {
	f := start(t)
	s := create(f, service("a", kind("NodePort")))
	port := s.Spec.Ports[0].NodePort

	// A client that applies its own manifest again mentions neither.
	if got := mustUpdate(f, service("a", kind("NodePort")), ""); got.Spec.ClusterIP != s.Spec.ClusterIP || got.Spec.Ports[0].NodePort != port {
		t.Errorf("%+v", got.Spec)
	}
	moved := s.DeepCopy()
	moved.ResourceVersion, moved.Spec.ClusterIP, moved.Spec.ClusterIPs = "", "10.96.0.77", []string{"10.96.0.77"}
	_, err := update(f, moved, "")
	refused(t, err, 422, "spec.clusterIPs[0]: Invalid value: [\"10.96.0.77\"]: may not change once set")
	create(f, service("free", ip("10.96.0.77")))

	ported := s.DeepCopy()
	ported.ResourceVersion, ported.Spec.Ports[0].NodePort = "", 30099
	mustUpdate(f, ported, "")
	create(f, service("old-port", nodePort(port)))
	_, err = f.Create(registrytest.Admin, service("new-port", nodePort(30099)))
	refused(t, err, 422, "already allocated")

	ported.Spec.Ports[0].NodePort = port // another service's now
	_, err = update(f, ported, "")
	refused(t, err, 422, "already allocated")
	if now, _ := read(f, s); now.Spec.Ports[0].NodePort != 30099 {
		t.Errorf("%+v", now.Spec)
	}
	_, err = f.Create(registrytest.Admin, service("new-port", nodePort(30099)))
	refused(t, err, 422, "already allocated")
}

func TestServiceTypeChanges(t *testing.T) {
	f := start(t)
	s := create(f, service("a"))
	a := s.Spec.ClusterIP
	to := func(patch string) *corev1.Service {
		t.Helper()
		res, err := f.Patch(ctx, f.About(registrytest.Admin, s, ""), types.MergePatchType, []byte(patch), &metav1.PatchOptions{})
		if err != nil {
			t.Fatalf("%s: %v", patch, err)
		}
		return res.Object.(*corev1.Service)
	}
	balanced := to(`{"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local"}}`)
	port := balanced.Spec.Ports[0].NodePort
	if port == 0 || balanced.Spec.ClusterIP != a || !*balanced.Spec.AllocateLoadBalancerNodePorts {
		t.Fatalf("%+v", balanced.Spec)
	}
	plain := to(`{"spec":{"type":"ClusterIP"}}`)
	if plain.Spec.Ports[0].NodePort != 0 || plain.Spec.ClusterIP != a || plain.Spec.ExternalTrafficPolicy != "" || plain.Spec.AllocateLoadBalancerNodePorts != nil {
		t.Errorf("%+v", plain.Spec)
	}
	create(f, service("port", nodePort(port)))
	gone := to(`{"spec":{"type":"ExternalName","externalName":"example.com"}}`)
	if gone.Spec.ClusterIP != "" || gone.Spec.ClusterIPs != nil || gone.Spec.IPFamilies != nil {
		t.Errorf("%+v", gone.Spec)
	}
	create(f, service("address", ip(a)))
	back := to(`{"spec":{"type":"ClusterIP","externalName":null}}`)
	if back.Spec.ClusterIP == "" || back.Spec.ClusterIP == a {
		t.Errorf("%+v", back.Spec)
	}
}

func TestServiceRangesRunOut(t *testing.T) {
	f := start(t, func(c *registry.Config) {
		c.ServiceCIDRs, c.NodePortRange = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/29")}, "30000-30001"
	})
	for i := range 3 { // of 8: the network, kubernetes, 5, the broadcast address
		create(f, service(fmt.Sprint("s", i)))
	}
	for i := range 2 {
		create(f, service(fmt.Sprint("n", i), kind("NodePort")))
	}
	_, err := f.Create(registrytest.Admin, service("one-too-many"))
	refused(t, err, 422, "failed to allocate a serviceIP: range 10.96.0.0/29 is full")
	if err := f.Registry.Delete(registrytest.Admin, service("s0")); err != nil {
		t.Fatal(err)
	}
	_, err = f.Create(registrytest.Admin, service("no-port", kind("NodePort")))
	refused(t, err, 422, "failed to allocate a nodePort: range is full")
	create(f, service("one-more")) // the failed one gave its address back
}

func TestConcurrentServices(t *testing.T) {
	f := start(t, func(c *registry.Config) {
		c.ServiceCIDRs, c.NodePortRange = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/26")}, "30000-30039"
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	ips, ports := map[string]bool{"10.96.0.1": true}, map[int32]bool{}
	for i := range 40 {
		wg.Go(func() {
			out, err := f.Create(registrytest.Admin, service(fmt.Sprint("s", i), kind("NodePort")))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			s := out.(*corev1.Service).Spec
			if ips[s.ClusterIP] || ports[s.Ports[0].NodePort] {
				t.Errorf("%s and %d were given twice", s.ClusterIP, s.Ports[0].NodePort)
			}
			ips[s.ClusterIP], ports[s.Ports[0].NodePort] = true, true
		})
	}
	wg.Wait()
}

func TestHealthCheckPorts(t *testing.T) {
	f := start(t)
	local := func(n int32) func(*corev1.ServiceSpec) {
		return func(s *corev1.ServiceSpec) {
			s.Type, s.ExternalTrafficPolicy, s.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, n
		}
	}
	if s := create(f, service("anywhere", kind("LoadBalancer"))); s.Spec.HealthCheckNodePort != 0 {
		t.Errorf("nobody asks, and still port %d is held", s.Spec.HealthCheckNodePort)
	}
	s := create(f, service("given", local(0)))
	if n := s.Spec.HealthCheckNodePort; n < 30000 || n > 32767 || n == s.Spec.Ports[0].NodePort {
		t.Errorf("got port %d", n)
	}
	create(f, service("chosen", local(31234)))
	if _, err := f.Create(registrytest.Admin, service("taken", local(31234))); err == nil {
		t.Error("two services got one port")
	}
	if _, err := f.Create(registrytest.Admin, service("also-taken", nodePort(31234))); err == nil {
		t.Error("a node port is the port of a health check")
	}
}
