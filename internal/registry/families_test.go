package registry_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func ranges(list ...string) func(*registry.Config) {
	return func(c *registry.Config) {
		c.ServiceCIDRs = nil
		for _, p := range list {
			c.ServiceCIDRs = append(c.ServiceCIDRs, netip.MustParsePrefix(p))
		}
	}
}

// families describes a Service's: "SingleStack 4 4" has one family and one address of it.
func families(s *corev1.Service) string {
	out := []string{"-"}
	if p := s.Spec.IPFamilyPolicy; p != nil {
		out[0] = string(*p)
	}
	short := func(six bool) string {
		if six {
			return "6"
		}
		return "4"
	}
	for _, f := range s.Spec.IPFamilies {
		out = append(out, short(f == corev1.IPv6Protocol))
	}
	out = append(out, "at")
	for i, ip := range s.Spec.ClusterIPs {
		if i == 0 && ip != s.Spec.ClusterIP {
			out = append(out, "clusterIP differs")
		}
		if ip == "None" {
			out = append(out, ip)
		} else {
			out = append(out, short(strings.Contains(ip, ":")))
		}
	}
	return strings.Join(out, " ")
}

func policy(p corev1.IPFamilyPolicy, families ...corev1.IPFamily) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) {
		s.IPFamilies = families
		if p != "" {
			s.IPFamilyPolicy = &p
		}
	}
}

func addressed(ips ...string) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = ips[0], ips }
}

func bare(s *corev1.ServiceSpec) { s.Selector = nil }

const (
	v4      = corev1.IPv4Protocol
	v6      = corev1.IPv6Protocol
	single  = corev1.IPFamilyPolicySingleStack
	prefer  = corev1.IPFamilyPolicyPreferDualStack
	require = corev1.IPFamilyPolicyRequireDualStack
)

var (
	only4 = []string{"10.96.0.0/16"}
	only6 = []string{"fd96::/112"}
	both  = []string{"10.96.0.0/16", "fd96::/112"}
	six4  = []string{"fd96::/112", "10.96.0.0/16"}
)

func TestFamiliesOfNewServices(t *testing.T) {
	type change = func(*corev1.ServiceSpec)
	cases := []struct {
		name    string
		ranges  []string
		changes []change
		want    string // what the Service has, or the error
	}{
		{"default", both, nil, "SingleStack 4 at 4"},
		{"default where IPv6 is primary", six4, nil, "SingleStack 6 at 6"},
		{"default on IPv6 alone", only6, nil, "SingleStack 6 at 6"},
		{"the other family", both, []change{policy("", v6)}, "SingleStack 6 at 6"},
		{"preferred", both, []change{policy(prefer)}, "PreferDualStack 4 6 at 4 6"},
		{"preferred, in an order", both, []change{policy(prefer, v6)}, "PreferDualStack 6 4 at 6 4"},
		{"preferred where there is one", only4, []change{policy(prefer)}, "PreferDualStack 4 at 4"},
		{"required", both, []change{policy(require, v6, v4)}, "RequireDualStack 6 4 at 6 4"},
		{"required where there is one", only4, []change{policy(require)}, "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"},
		{"a family there is not", only4, []change{policy("", v6)}, "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"},
		{"two families without a policy", both, []change{policy("", v4, v6)}, "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"},
		{"one family twice", both, []change{policy(require, v4, v4)}, "spec.ipFamilies[1]: Duplicate value: \"IPv4\""},
		{"an unknown family", both, []change{policy("", "IPv5")}, `spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"`},
		{"chosen", both, []change{policy(require), addressed("fd96::9", "10.96.0.9")}, "RequireDualStack 6 4 at 6 4"},
		{"one chosen, one given", both, []change{policy(prefer), addressed("fd96::9")}, "PreferDualStack 6 4 at 6 4"},
		{"chosen by an old client", both, []change{ip("fd96::9")}, "SingleStack 6 at 6"},
		{"two chosen without a policy", both, []change{addressed("fd96::9", "10.96.0.9")}, "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"},
		{"two chosen of a family", both, []change{policy(require), addressed("fd96::9", "fd96::8")}, "spec.clusterIPs: Invalid value: [\"fd96::9\",\"fd96::8\"]: may specify no more than one IP for each IP family"},
		{"chosen against the family", both, []change{policy("", v4), addressed("fd96::9")}, "spec.clusterIPs[0]: Invalid value: \"fd96::9\": expected an IPv4 value as indicated by `ipFamilies[0]`"},
		{"chosen where there is none", only4, []change{addressed("fd96::9")}, "spec.clusterIPs[0]: Invalid value: [\"fd96::9\"]: IPv6 is not configured on this cluster"},
		{"the second chosen out of range", both, []change{policy(require), addressed("10.96.0.9", "fd97::9")}, "failed to allocate IP fd97::9: the provided IP (fd97::9) is not in the valid range. The range of valid IPs is fd96::/112"},
		{"the network's own", only4, []change{addressed("10.96.0.0")}, "is not in the valid range"},
		{"plural without singular", both, []change{func(s *corev1.ServiceSpec) { s.ClusterIPs = []string{"10.96.0.9"} }}, "spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: must be empty when `clusterIP` is not specified"},
		{"None and more", both, []change{policy(require), addressed("None", "10.96.0.9")}, "'None' must be the first and only value"},
		{"headless", both, []change{ip("None")}, "SingleStack 4 at None"},
		{"headless, preferred", both, []change{ip("None"), policy(prefer)}, "PreferDualStack 4 6 at None"},
		{"headless without a selector", only4, []change{ip("None"), bare}, "RequireDualStack 4 6 at None"},
		{"headless without a selector, of a family there is not", only4, []change{ip("None"), bare, policy(single, v6)}, "SingleStack 6 at None"},
		{"elsewhere", both, []change{kind("ExternalName"), func(s *corev1.ServiceSpec) { s.ExternalName = "a.example" }}, "- at"},
		{"elsewhere with a family", both, []change{kind("ExternalName"), policy("", v4), func(s *corev1.ServiceSpec) { s.ExternalName = "a.example" }},
			"spec.ipFamilies: Forbidden: may not be set for ExternalName services"},
	}
	clusters := map[string]*fixture{}
	for i, c := range cases {
		key := strings.Join(c.ranges, ",")
		if clusters[key] == nil {
			clusters[key] = start(t, ranges(c.ranges...))
		}
		t.Run(c.name, func(t *testing.T) {
			f := clusters[key].in(t)
			out, err := f.Create(registrytest.Admin, service(fmt.Sprint("s", i), c.changes...))
			if err != nil {
				refused(t, err, 422, c.want)
				return
			}
			if got := families(out.(*corev1.Service)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if err := f.Registry.Delete(registrytest.Admin, out.(*corev1.Service)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestFamiliesChange(t *testing.T) {
	f := start(t, ranges(both...))
	steps := []struct {
		name, patch, want string
	}{
		{"labels", `{"metadata":{"labels":{"a":"b"}}}`, "SingleStack 4 at 4"},
		{"to two", `{"spec":{"ipFamilyPolicy":"RequireDualStack"}}`, "RequireDualStack 4 6 at 4 6"},
		{"the primary family", `{"spec":{"ipFamilies":["IPv6","IPv4"]}}`, "spec.clusterIPs[0]: Invalid value"},
		{"the primary address", `{"spec":{"clusterIP":"10.96.0.200","clusterIPs":["10.96.0.200"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack"}}`, "spec.clusterIPs[0]: Invalid value: [\"10.96.0.200\"]: may not change once set"},
		{"fewer without a policy", `{"spec":{"ipFamilies":["IPv4"]}}`, "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary IP family"},
		{"to one", `{"spec":{"ipFamilyPolicy":"SingleStack"}}`, "SingleStack 4 at 4"},
		{"preferring", `{"spec":{"ipFamilyPolicy":"PreferDualStack"}}`, "PreferDualStack 4 6 at 4 6"},
		{"as it was", `{"spec":{"ipFamilyPolicy":"PreferDualStack","sessionAffinity":"ClientIP"}}`, "PreferDualStack 4 6 at 4 6"},
		{"an old client forgets the plural", `{"spec":{"clusterIPs":null,"ipFamilies":null,"ipFamilyPolicy":null}}`, "PreferDualStack 4 6 at 4 6"},
		{"elsewhere", `{"spec":{"type":"ExternalName","externalName":"a.example"}}`, "- at"},
		{"back", `{"spec":{"type":"ClusterIP","externalName":null,"ipFamilies":["IPv6"]}}`, "SingleStack 6 at 6"},
		{"to two again", `{"spec":{"ipFamilyPolicy":"PreferDualStack","ipFamilies":["IPv6","IPv4"]}}`, "PreferDualStack 6 4 at 6 4"},
		{"headless", `{"spec":{"clusterIP":"None","clusterIPs":["None"],"ipFamilyPolicy":"SingleStack","ipFamilies":["IPv6"]}}`, "spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"},
	}
	s := create(f, service("a"))
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			before, _ := read(f, s)
			res, err := f.Patch(ctx, f.About(registrytest.Admin, s, ""), types.MergePatchType, []byte(step.patch), &metav1.PatchOptions{})
			if err != nil {
				refused(t, err, 422, step.want)
				return
			}
			after := res.Object.(*corev1.Service)
			if got := families(after); got != step.want {
				t.Fatalf("%s, want %s", got, step.want)
			}
			released(t, f, before.Spec.ClusterIPs, after.Spec.ClusterIPs)
		})
	}
}

// released: what a Service held and holds no more, another can have; what it holds, none can.
func released(t *testing.T, f *fixture, before, after []string) {
	t.Helper()
	for _, list := range [][]string{before, after} {
		for _, ip := range list {
			held := strings.Contains(strings.Join(after, " ")+" ", ip+" ")
			other, err := f.Create(registrytest.Admin, service("other", addressed(ip)))
			if (err != nil) != held {
				t.Errorf("%s, held %t: %v", ip, held, err)
			}
			if err == nil {
				if err := f.Registry.Delete(registrytest.Admin, other.(*corev1.Service)); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestHeadlessServicesChangeFamiliesFreely(t *testing.T) {
	f := start(t, ranges(both...))
	create(f, service("a", ip("None")))
	for _, c := range []struct {
		change func(*corev1.ServiceSpec)
		want   string
	}{{policy(prefer, v6, v4), "PreferDualStack 6 4 at None"}, {policy(single, v4), "SingleStack 4 at None"}, {policy(single, v6), "SingleStack 6 at None"}} {
		if got := families(mustUpdate(f, service("a", ip("None"), c.change), "")); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// A cluster that gains or loses a family leaves services that would have either as they are; with words they follow.
func TestServicesOfAClusterThatGainsAFamily(t *testing.T) {
	f := start(t, ranges(only4...))
	s := create(f, service("a", policy(prefer)))
	f = again(f, ranges(both...))
	s.ResourceVersion, s.Labels = "", map[string]string{"a": "b"}
	if got := families(mustUpdate(f, s, "")); got != "PreferDualStack 4 at 4" {
		t.Error(got)
	}
	s.Spec.IPFamilies = []corev1.IPFamily{v4, v6}
	if got := families(mustUpdate(f, s, "")); got != "PreferDualStack 4 6 at 4 6" {
		t.Error(got)
	}
}

func TestConcurrentServicesOfTwoFamilies(t *testing.T) {
	f := start(t, ranges("10.96.0.0/26", "fd96::/122"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	held := map[string]bool{}
	for i := range 40 {
		wg.Go(func() {
			name := fmt.Sprint("s", i)
			out, err := f.Create(registrytest.Admin, service(name, policy(prefer)))
			for n := 0; err == nil && n < 2; n++ { // one family comes and goes, with writers in each other's way
				for _, p := range []corev1.IPFamilyPolicy{single, prefer} {
					var inner sync.WaitGroup
					for range 2 {
						inner.Go(func() { _, _ = update(f, service(name, policy(p)), "") })
					}
					inner.Wait()
				}
			}
			if err != nil {
				t.Error(err)
				return
			}
			now, _ := read(f, out.(*corev1.Service))
			mu.Lock()
			defer mu.Unlock()
			for _, a := range now.Spec.ClusterIPs {
				if held[a] {
					t.Errorf("%s was given twice", a)
				}
				held[a] = true
			}
		})
	}
	wg.Wait()
	for range 21 { // what nobody holds is free: 62-41 of IPv4
		create(f, service(fmt.Sprint("more", len(held))))
		held[fmt.Sprint(len(held))] = true
	}
}
