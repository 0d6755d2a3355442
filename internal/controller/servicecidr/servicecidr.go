// Package servicecidr lets a ServiceCIDR go only once no Service has an address that nobody else's range covers (KEP-1880).
//
// It gives each one a finalizer and the condition Ready, and takes the finalizer away when the deletion has begun, a moment has passed for requests
// under way, and decide says that the range is not used. Addresses are IPAddress objects; whose they are doesn't matter.
package servicecidr

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// finalizer keeps a range that is used.
const finalizer = "networking.k8s.io/service-cidr-finalizer"

// grace is how long requests that chose an address before the deletion may take to write it, as upstream.
const grace = 10 * time.Second

const (
	readyMessage = "Kubernetes Service CIDR is ready"
	usedMessage  = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
)

type reconciler struct {
	client client.Client
	grace  time.Duration
	now    func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller { return newController(&reconciler{c, grace, time.Now}) }

func newController(r *reconciler) harness.Controller {
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&networkingv1.ServiceCIDR{}, r.rangeChanged),
			harness.On(&networkingv1.IPAddress{}, func(_, current *networkingv1.IPAddress) []harness.Key {
				if current != nil {
					return nil
				}
				return r.leaving()
			}),
		},
		Reconcile: r.reconcile,
	}
}

// rangeChanged wakes the range, and those that are being deleted: the changed one may cover them now.
func (r *reconciler) rangeChanged(_, current *networkingv1.ServiceCIDR) []harness.Key {
	keys := r.leaving()
	if current != nil {
		if key := crclient.ObjectKeyFromObject(current); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

func (r *reconciler) leaving() (keys []harness.Key) {
	var list networkingv1.ServiceCIDRList
	if r.client.List(context.Background(), &list, crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp != nil {
			keys = append(keys, crclient.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var c networkingv1.ServiceCIDR
	if err := r.client.Get(ctx, key, &c); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if c.DeletionTimestamp == nil {
		return 0, r.welcome(ctx, &c)
	}
	if !slices.Contains(c.Finalizers, finalizer) {
		return 0, nil
	}
	used, err := r.used(ctx, &c)
	if err != nil {
		return 0, err
	}
	if used {
		return 0, r.condition(ctx, &c, metav1.Condition{
			Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionFalse, Reason: networkingv1.ServiceCIDRReasonTerminating, Message: usedMessage,
		})
	}
	if left := r.grace - r.now().Sub(c.DeletionTimestamp.Time); left > 0 {
		return left, nil
	}
	return 0, r.finalizers(ctx, &c, slices.DeleteFunc(slices.Clone(c.Finalizers), func(f string) bool { return f == finalizer }))
}

// welcome protects a range and says that it is ready.
func (r *reconciler) welcome(ctx context.Context, c *networkingv1.ServiceCIDR) error {
	if !slices.Contains(c.Finalizers, finalizer) {
		if err := r.finalizers(ctx, c, append(slices.Clone(c.Finalizers), finalizer)); err != nil {
			return err
		}
	}
	if meta.IsStatusConditionTrue(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
		return nil
	}
	return r.condition(ctx, c, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Message: readyMessage})
}

func (r *reconciler) finalizers(ctx context.Context, c *networkingv1.ServiceCIDR, list []string) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": c.UID, "resourceVersion": c.ResourceVersion, "finalizers": list}})
	if err != nil {
		return err
	}
	target := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: c.Name}}
	if err := r.client.Patch(ctx, target, crclient.RawPatch(types.MergePatchType, body)); crclient.IgnoreNotFound(err) != nil {
		return fmt.Errorf("change the finalizers of ServiceCIDR %s: %w", c.Name, err)
	}
	return nil
}

func (r *reconciler) condition(ctx context.Context, c *networkingv1.ServiceCIDR, want metav1.Condition) error {
	list := slices.Clone(c.Status.Conditions)
	if !meta.SetStatusCondition(&list, want) {
		return nil
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": c.UID}, "status": map[string]any{"conditions": list}})
	if err != nil {
		return err
	}
	target := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: c.Name}}
	if err := r.client.SubResource("status").Patch(ctx, target, crclient.RawPatch(types.MergePatchType, body)); crclient.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the condition of ServiceCIDR %s: %w", c.Name, err)
	}
	return nil
}

// used looks at everything there is, live: a Service may have been made through another server a moment ago.
func (r *reconciler) used(ctx context.Context, c *networkingv1.ServiceCIDR) (bool, error) {
	var all networkingv1.ServiceCIDRList
	if err := r.client.Live().List(ctx, &all); err != nil {
		return false, fmt.Errorf("list the ServiceCIDRs: %w", err)
	}
	var others []netip.Prefix
	for i := range all.Items {
		if o := &all.Items[i]; o.Name != c.Name && o.DeletionTimestamp == nil {
			others = append(others, prefixes(o)...)
		}
	}
	var held networkingv1.IPAddressList
	if err := r.client.Live().List(ctx, &held); err != nil {
		return false, fmt.Errorf("list the IPAddresses: %w", err)
	}
	for i := range held.Items {
		if a, err := netip.ParseAddr(held.Items[i].Name); err == nil && needed(a, prefixes(c), others) {
			return true, nil
		}
	}
	return false, nil
}

// needed: an address of ours that no other range has.
func needed(a netip.Addr, ours, others []netip.Prefix) bool {
	has := func(p netip.Prefix) bool { return p.Contains(a) }
	return slices.ContainsFunc(ours, has) && !slices.ContainsFunc(others, has)
}

func prefixes(c *networkingv1.ServiceCIDR) (out []netip.Prefix) {
	for _, s := range c.Spec.CIDRs {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}
