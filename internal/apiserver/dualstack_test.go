package apiserver_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	watchapi "k8s.io/apimachinery/pkg/watch"

	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/registry"
)

// A client of a cluster of two families: a Service gets, gains and gives back addresses, each an IPAddress; a ServiceCIDR adds some more.
func TestServicesOfTwoFamilies(t *testing.T) {
	f := startOver(t, func(c *registry.Config, _ func() *authz.Authorizer) {
		c.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/112")}
	})
	c := f.clientset()
	services, addresses := c.CoreV1().Services("default"), c.NetworkingV1().IPAddresses()
	held := func() (out []string) {
		list, err := addresses.List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list.Items {
			if a.Spec.ParentRef.Name == "web" {
				out = append(out, a.Name)
			}
		}
		return out
	}
	watch, err := addresses.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	seen := func(w watchapi.Interface, who string) (rv string) {
		names, late := map[string]bool{}, time.After(30*time.Second)
		for len(names) < 2 {
			select {
			case e := <-w.ResultChan():
				if a, ok := e.Object.(*networkingv1.IPAddress); ok && a.Spec.ParentRef.Name == "web" {
					names[a.Name], rv = true, a.ResourceVersion
				}
			case <-late:
				t.Fatalf("%s saw %v, not both addresses", who, names)
			}
		}
		return rv
	}
	prefer := corev1.IPFamilyPolicyPreferDualStack
	svc, err := services.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{IPFamilyPolicy: &prefer, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(svc.Spec.ClusterIPs) != 2 || !slices.Equal(held(), svc.Spec.ClusterIPs) || !slices.Equal(svc.Spec.IPFamilies, []corev1.IPFamily{"IPv4", "IPv6"}) {
		t.Fatalf("%+v; recorded %v", svc.Spec, held())
	}
	// Both addresses have one resourceVersion: who has seen one, and goes on from it, must still hear of the other.
	rv := seen(watch, "a watch")
	again, err := addresses.Watch(ctx, metav1.ListOptions{ResourceVersion: rv})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	seen(again, "a watch that goes on from either")
	patch := func(body string) (*corev1.Service, error) {
		return services.Patch(ctx, "web", types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{})
	}
	if svc, err = patch(`{"spec":{"ipFamilyPolicy":"SingleStack"}}`); err != nil || len(svc.Spec.ClusterIPs) != 1 || len(held()) != 1 {
		t.Fatalf("to one: %v %+v %v", err, svc.Spec, held())
	}
	if _, err = patch(`{"spec":{"ipFamilies":["IPv6"]}}`); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.ipFamilies[0]: Invalid value") && !strings.Contains(err.Error(), "expected an IPv6 value") {
		t.Errorf("another primary family: %v", err)
	}
	if _, err := c.NetworkingV1().ServiceCIDRs().Create(ctx, &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.200.0.0/24"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := services.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "far"}, Spec: corev1.ServiceSpec{ClusterIP: "10.200.0.7", Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Errorf("an address of the new range: %v", err)
	}
	if err := services.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil || len(held()) != 0 {
		t.Errorf("deleted (%v), and %v is recorded", err, held())
	}
}
