package servicecidr

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

func TestNeeded(t *testing.T) {
	list := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for _, c := range []struct {
		address      string
		ours, others []netip.Prefix
		want         bool
	}{
		{"10.0.0.9", list("10.0.0.0/24"), nil, true},
		{"10.0.1.9", list("10.0.0.0/24"), nil, false},
		{"10.0.0.9", list("10.0.0.0/24"), list("10.0.0.0/16"), false},
		{"10.0.0.200", list("10.0.0.0/24"), list("10.0.0.0/25"), true},
		{"fd00::9", list("10.0.0.0/24", "fd00::/112"), list("10.0.0.0/16"), true},
	} {
		if got := needed(netip.MustParseAddr(c.address), c.ours, c.others); got != c.want {
			t.Errorf("%s of %v beside %v: %t", c.address, c.ours, c.others, got)
		}
	}
}

func TestARangeGoesWhenNobodyUsesIt(t *testing.T) {
	ctx := context.Background()
	c := clienttest.New(t,
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.0.0.0/24"}}},
		&networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: "10.0.0.9"}})
	now := time.Now()
	r := &reconciler{c, grace, func() time.Time { return now }}
	turn := func() time.Duration {
		t.Helper()
		again, err := r.reconcile(ctx, harness.Key{Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	turn()
	o := func() networkingv1.ServiceCIDR {
		var o networkingv1.ServiceCIDR
		if err := c.Get(ctx, harness.Key{Name: "a"}, &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	if is := o(); !slices.Contains(is.Finalizers, finalizer) || !meta.IsStatusConditionTrue(is.Status.Conditions, "Ready") {
		t.Fatalf("%+v", is)
	}
	going := o()
	if err := c.Delete(ctx, &going); err != nil {
		t.Fatal(err)
	}
	turn()
	is := o()
	if ready := meta.FindStatusCondition(is.Status.Conditions, "Ready"); ready == nil || ready.Status != metav1.ConditionFalse || ready.Reason != "Terminating" || ready.Message != usedMessage {
		t.Fatalf("used and being deleted: %+v", ready)
	}
	if err := c.Delete(ctx, &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: "10.0.0.9"}}); err != nil {
		t.Fatal(err)
	}
	if keys := r.leaving(); len(keys) != 1 || keys[0].Name != "a" {
		t.Errorf("an address that goes wakes %v", keys)
	}
	if again := turn(); again <= 0 || again > grace {
		t.Errorf("nobody uses it: again in %v, want what is left of %v", again, grace)
	}
	now = now.Add(grace + 2*time.Second)
	turn()
	if err := c.Get(ctx, harness.Key{Name: "a"}, &networkingv1.ServiceCIDR{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there (%v)", err)
	}
}
