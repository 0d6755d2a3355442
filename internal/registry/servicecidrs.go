package registry

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/cidr"
	"skiff.dev/skiff/internal/store"
)

// cidrs are the ranges that ServiceCIDRs give, by family: of every one that is not being deleted. The lock of services guards what is known.
type cidrs struct {
	objects *store.Collection
	changes atomic.Int64
	seen    int64
	known   map[corev1.IPFamily][]addresses
}

func (c *cidrs) follow() { c.objects.Observe(&c.changes) }

// of is read anew when a ServiceCIDR has changed.
func (c *cidrs) of(f corev1.IPFamily) []addresses {
	n := c.changes.Load()
	if c.known != nil && n == c.seen {
		return c.known[f]
	}
	page, err := c.objects.List(context.Background(), store.ListOptions{})
	if err != nil {
		return c.known[f]
	}
	c.seen, c.known = n, map[corev1.IPFamily][]addresses{}
	// The default's range is given out first.
	slices.SortStableFunc(page.Entries, func(a, b *store.Entry) int { return defaultFirst(a.Key()) - defaultFirst(b.Key()) })
	for _, e := range page.Entries {
		o := e.Object().(*networkingv1.ServiceCIDR)
		if o.DeletionTimestamp != nil {
			continue
		}
		for _, text := range o.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				c.known[familyOf(p.Addr())] = append(c.known[familyOf(p.Addr())], addressesOf(p))
			}
		}
	}
	return c.known[f]
}

const defaultServiceCIDR = "kubernetes"

func defaultFirst(name string) int {
	if name == defaultServiceCIDR {
		return 0
	}
	return 1
}

// keepDefaultCIDR makes the ServiceCIDR of the server's flags, and lets it gain the family that they have gained.
func (r *Registry) keepDefaultCIDR(ctx context.Context) error {
	want := cidr.Strings(r.cfg.ServiceCIDRs)
	obj := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: defaultServiceCIDR}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: want}}
	err := r.ensure(ctx, networkingv1.GroupName, "servicecidrs", obj, func(old api.Object) {
		was := old.(*networkingv1.ServiceCIDR)
		switch {
		case len(was.Spec.CIDRs) == 1 && len(want) == 2 && was.Spec.CIDRs[0] == want[0]:
			was.Spec.CIDRs = want
		case !slices.Equal(was.Spec.CIDRs, want):
			r.cfg.Log.Warn("the ServiceCIDR kubernetes is not that of service-cidr; services get their addresses from the ServiceCIDRs", "is", was.Spec.CIDRs, "service-cidr", want)
		}
	})
	if err != nil {
		return err
	}
	return r.defaultCIDRReady(ctx)
}

func (r *Registry) defaultCIDRReady(ctx context.Context) error {
	q := &Request{Resource: r.services.cidrs.objects.Resource(), Name: defaultServiceCIDR, Subresource: "status", User: self}
	prev, err := r.get(ctx, q, store.Read{})
	switch {
	case apierrors.IsStoreReadError(err):
		return nil // as with all that must exist
	case err != nil:
		return err
	}
	next := prev.Object().DeepCopyObject().(*networkingv1.ServiceCIDR)
	if next.DeletionTimestamp != nil || !meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{
		Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Reason: "", Message: "Kubernetes default Service CIDR is ready",
		LastTransitionTime: now(),
	}) {
		return nil
	}
	_, err = r.update(ctx, q, prev, next, false)
	return err
}
