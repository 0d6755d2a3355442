package network

import (
	"strings"
	"testing"

	"github.com/google/nftables"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

// TestNodePortChangesItsWay has a service that needs chains of its own and needs them no more: its port answers all the time, as it should.
func TestNodePortChangesItsWay(t *testing.T) {
	w := newWorld(t, true)
	outside := w.outside()
	a := w.pod("a", "")
	a.serve("a", 8080)
	outside.serve("outside", 9000)
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	sticky := func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }
	for i, step := range []struct {
		name, saw string
		change    func(*corev1.Service)
		chains    bool
	}{
		{"plain", "10.42.0.1", func(*corev1.Service) {}, false},
		{"policy Local", "198.51.100.2", local, true},
		{"plain again", "10.42.0.1", func(*corev1.Service) {}, false},
		{"affinity", "10.42.0.1", sticky, true},
		{"plain at last", "10.42.0.1", func(*corev1.Service) {}, false},
	} {
		svc := service("s", "10.43.0.20", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeNodePort
			s.Spec.Ports = s.Spec.Ports[:1]
			s.Spec.Ports[0].NodePort = 30080
			step.change(s)
		})
		part := proxy.Service(svc, []*discoveryv1.EndpointSlice{endpoints("s", a.addr)}, proxy.Node{Name: nodeName, Pods: w.cfg.PodCIDRs})
		if err := w.net.rules.Change(func(t *proxy.Table, _ *policy.Table) { t.Set("service/default/s", part) }); err != nil {
			t.Fatal(err)
		}
		if !w.net.rules.intact {
			t.Errorf("%d, %s: the change was refused", i, step.name)
		}
		wantAnswer(t, outside, "198.51.100.1:30080", "a", step.saw)
		wantAnswer(t, nil, "127.0.0.1:30080", "a", "10.42.0.1")
		if own := chainsOf(t, "/default/s/tcp/80"); (len(own) > 0) != step.chains {
			t.Errorf("%s: it has chains of its own: %v, want %v", step.name, own, step.chains)
		}
	}
}

// chainsOf are the kernel's chains whose names end so.
func chainsOf(t *testing.T, tail string) (names []string) {
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
		if strings.HasSuffix(chain.Name, tail) {
			names = append(names, chain.Name)
		}
	}
	return names
}
