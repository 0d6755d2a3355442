package registry_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/registry/registrytest"
	"skiff.dev/skiff/internal/store"
)

// recorded are the IPAddresses and whose they are: "10.96.0.1=default/kubernetes".
func recorded(f *fixture) (out []string) {
	f.Helper()
	row := f.Table().ByResource(schema.GroupResource{Group: networkingv1.GroupName, Resource: "ipaddresses"})
	page, err := f.Store().Collection(row).List(ctx, store.ListOptions{Read: store.Read{Consistent: true}})
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range page.Entries {
		o := e.Object().(*networkingv1.IPAddress)
		out = append(out, o.Name+"="+o.Spec.ParentRef.Namespace+"/"+o.Spec.ParentRef.Name)
	}
	return out
}

func wantRecorded(f *fixture, want ...string) {
	f.Helper()
	want = append(want, "10.96.0.1=default/kubernetes")
	slices.Sort(want)
	if got := recorded(f); !slices.Equal(got, want) {
		f.Errorf("recorded %v, want %v", got, want)
	}
}

func address(name, of string) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{networkingv1.LabelManagedBy: "ipallocator.k8s.io"}},
		Spec:       networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: of}},
	}
}

func cidrObject(name string, list ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: list}}
}

func TestAddressesAreObjects(t *testing.T) {
	f := start(t, ranges(both...))
	wantRecorded(f)
	create(f, service("a", policy(require), addressed("10.96.0.7", "fd96::7")))
	wantRecorded(f, "10.96.0.7=default/a", "fd96::7=default/a")
	mustUpdate(f, service("a", policy(single)), "")
	wantRecorded(f, "10.96.0.7=default/a")
	six, _ := read(f, address("10.96.0.7", ""))
	if six.Labels[networkingv1.LabelIPAddressFamily] != "IPv4" || six.UID == "" || six.CreationTimestamp.IsZero() {
		t.Errorf("%+v", six.ObjectMeta)
	}
	create(f, service("none", ip("None")))
	create(f, service("elsewhere", kind("ExternalName"), func(s *corev1.ServiceSpec) { s.ExternalName = "a.example" }))
	wantRecorded(f, "10.96.0.7=default/a")

	// A Service that stays until its finalizer goes keeps its address.
	held := service("held", addressed("10.96.0.8"))
	held.Finalizers = []string{"example.com/wait"}
	held = create(f, held)
	if _, err := remove(f, held, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wantRecorded(f, "10.96.0.7=default/a", "10.96.0.8=default/held")
	held, _ = read(f, held)
	held.Finalizers = nil
	mustUpdate(f, held, "")
	if err := f.Registry.Delete(registrytest.Admin, service("a")); err != nil {
		t.Fatal(err)
	}
	wantRecorded(f)
}

// An address that something else has recorded is given to no Service; a record that is deleted while its Service lives comes back.
func TestRecordsOfOthers(t *testing.T) {
	f := start(t, ranges("10.96.0.0/28"))
	foreign := address("10.96.0.5", "x")
	foreign.Labels, foreign.Spec.ParentRef.Group, foreign.Spec.ParentRef.Resource = nil, "gateway.example.com", "gateways"
	f.Must(foreign)
	_, err := f.Create(registrytest.Admin, service("a", ip("10.96.0.5")))
	refused(t, err, 422, "failed to allocate IP 10.96.0.5: provided IP is already allocated")
	for i := range 12 { // of 14: kubernetes and the gateway have one each
		if s := create(f, service(fmt.Sprint("s", i))); s.Spec.ClusterIP == "10.96.0.5" {
			t.Error("the gateway's address was given away")
		}
	}
	_, err = f.Create(registrytest.Admin, service("one-too-many"))
	refused(t, err, 422, "range 10.96.0.0/28 is full")
	if err := f.Registry.Delete(registrytest.Admin, address("10.96.0.1", "kubernetes")); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(recorded(f), "10.96.0.1=default/kubernetes") {
		t.Error("the address of a Service that lives was lost")
	}
}

func TestRecordsAreRepairedAtStart(t *testing.T) {
	f := start(t)
	create(f, service("a", addressed("10.96.0.7")))
	row := f.Table().ByResource(schema.GroupResource{Group: networkingv1.GroupName, Resource: "ipaddresses"})
	addresses := f.Store().Collection(row)
	for _, name := range []string{"10.96.0.7", "10.96.0.1"} { // as of a cluster that had no such objects
		e, err := addresses.Get(ctx, name, store.Read{Consistent: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := addresses.Delete(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []*networkingv1.IPAddress{address("10.96.0.1", "stranger"), address("10.96.0.99", "gone"), address("10.96.0.98", "a")} {
		if _, err := addresses.Create(ctx, o.Name, o); err != nil {
			t.Fatal(err)
		}
	}
	wantRecorded(again(f, ranges(only4...)), "10.96.0.7=default/a")
}

func TestServiceCIDRsWidenTheRange(t *testing.T) {
	f := start(t, ranges("10.96.0.0/28"))
	first, _ := read(f, cidrObject("kubernetes"))
	if c := first.Status.Conditions; !slices.Equal(first.Spec.CIDRs, []string{"10.96.0.0/28"}) || len(c) != 1 || c[0].Type != "Ready" || c[0].Status != metav1.ConditionTrue {
		t.Errorf("%+v", first)
	}
	_, err := f.Create(registrytest.Admin, service("far", ip("10.97.0.9")))
	refused(t, err, 422, "is not in the valid range. The range of valid IPs is 10.96.0.0/28")
	more := cidrObject("more", "10.97.0.0/28")
	more.Finalizers = []string{"networking.k8s.io/service-cidr-finalizer"}
	f.Must(more)
	create(f, service("far", ip("10.97.0.9")))
	for i := range 13 + 13 { // the first range has 13 left, the second too
		create(f, service(fmt.Sprint("s", i)))
	}
	_, err = f.Create(registrytest.Admin, service("one-too-many"))
	refused(t, err, 422, "failed to allocate a serviceIP: ranges 10.96.0.0/28, 10.97.0.0/28 are full")

	if err := f.Registry.Delete(registrytest.Admin, service("far")); err != nil {
		t.Fatal(err)
	}
	if _, err := remove(f, more, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = f.Create(registrytest.Admin, service("late", ip("10.97.0.9")))
	refused(t, err, 422, "is not in the valid range. The range of valid IPs is 10.96.0.0/28")
	_, err = f.Create(registrytest.Admin, service("late"))
	refused(t, err, 422, "range 10.96.0.0/28 is full")
}

func TestTheDefaultServiceCIDRGainsAFamily(t *testing.T) {
	f := again(start(t), ranges(both...))
	if c, _ := read(f, cidrObject("kubernetes")); !slices.Equal(c.Spec.CIDRs, both) {
		t.Errorf("%v", c.Spec.CIDRs)
	}
	if got := families(create(f, service("a", policy(require)))); got != "RequireDualStack 4 6 at 4 6" {
		t.Error(got)
	}
}

// Who asks for nothing gets an address above the band that is left to people; who asks gets what is asked for (KEP-3070).
func TestBands(t *testing.T) {
	f := start(t, ranges("10.96.0.0/24", "fd96::/120"))
	for i := range 60 {
		for _, ip := range create(f, service(fmt.Sprint("s", i), policy(require))).Spec.ClusterIPs {
			if a := netip.MustParseAddr(ip).AsSlice(); a[len(a)-1] <= 16 {
				t.Errorf("%s is of the band for people", ip)
			}
		}
	}
	create(f, service("mine", policy(require), addressed("10.96.0.16", "fd96::10")))
	if got := strings.Join(recorded(f), " "); !strings.Contains(got, "fd96::10=default/mine") {
		t.Error(got)
	}
}

func BenchmarkCreateService(b *testing.B) {
	r := registrytest.Start(b, nil, nil)
	for i := range b.N {
		r.Must(service(fmt.Sprint("s", i)))
	}
}
