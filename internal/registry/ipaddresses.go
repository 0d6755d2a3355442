package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// Every address that a Service holds is an IPAddress object that refers to it (KEP-1880). The object is written in the Service's own transaction, so
// that one is there if the other is; an address is free when there is no object of its name, whoever made it.

// addressManager is who the label managed-by of these objects names.
const addressManager = "ipallocator.k8s.io"

// addressBook reads and writes IPAddress objects for Services.
type addressBook struct {
	objects *store.Collection
	row     *api.Resource
}

func newAddressBook(cfg Config) addressBook {
	row := cfg.Table.ByResource(schema.GroupResource{Group: networkingv1.GroupName, Resource: "ipaddresses"})
	return addressBook{cfg.Store.Collection(row), row}
}

// find returns the object of an address, nil if it is free.
func (b addressBook) find(a netip.Addr) *networkingv1.IPAddress {
	e, err := b.objects.Get(context.Background(), a.String(), store.Read{}) // memory: it neither waits nor fails
	if err != nil || e == nil {
		return nil
	}
	return e.Object().(*networkingv1.IPAddress)
}

func (b addressBook) taken(a netip.Addr) bool {
	e, err := b.objects.Get(context.Background(), a.String(), store.Read{})
	return err != nil || e != nil
}

// of says whether the address is recorded as that Service's.
func (b addressBook) of(a netip.Addr, svc *corev1.Service) bool {
	o := b.find(a)
	return o != nil && refersTo(o, svc)
}

func refersTo(o *networkingv1.IPAddress, svc *corev1.Service) bool {
	ref := o.Spec.ParentRef
	return ref != nil && ref.Group == "" && ref.Resource == "services" && ref.Namespace == svc.Namespace && ref.Name == svc.Name
}

// record is the object that says whose an address is.
func (b addressBook) record(a netip.Addr, svc *corev1.Service) *networkingv1.IPAddress {
	o := &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{
			Name: a.String(), Labels: map[string]string{networkingv1.LabelIPAddressFamily: string(familyOf(a)), networkingv1.LabelManagedBy: addressManager},
		},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: svc.Namespace, Name: svc.Name}},
	}
	beginMeta(b.row, o)
	return o
}

// beside is what is written with a Service that was (nil: it is new) and is now (nil: it is no more).
func (b addressBook) beside(now, was *corev1.Service) (out []store.Beside) {
	after, before := heldBy(now), heldBy(was)
	for _, a := range after {
		if !slices.Contains(before, a) && !b.of(a, now) {
			out = append(out, store.Beside{In: b.objects, Key: a.String(), Obj: b.record(a, now)})
		}
	}
	for _, a := range before {
		if !slices.Contains(after, a) && b.of(a, was) {
			out = append(out, store.Beside{In: b.objects, Key: a.String()})
		}
	}
	return out
}

// heldBy are a Service's addresses.
func heldBy(svc *corev1.Service) (out []netip.Addr) {
	if svc == nil {
		return nil
	}
	for _, ip := range svc.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// beside is what is written together with an object that takes another's place; either may be nil.
func (r *Registry) beside(now, was api.Object) []store.Beside {
	after, isNow := now.(*corev1.Service)
	before, wasOne := was.(*corev1.Service)
	if !isNow && !wasOne {
		return nil
	}
	return r.services.book.beside(after, before)
}

// lost turns the news that another server took an address at the same time into what the client can do about it.
func lost(q *Request, err error) error {
	var taken *store.Taken
	if errors.As(err, &taken) {
		return apierrors.NewConflict(q.groupResource(), q.Name, fmt.Errorf("the address %s was taken at the same time; try again", taken.Key))
	}
	return err
}

// repairAddresses makes the objects what the stored Services say: one is made for each address that has none, and those whose Service is gone,
// or holds them no more, go. It is called before the first request.
func (r *Registry) repairAddresses(ctx context.Context, stored []*corev1.Service) error {
	b, holders := r.services.book, map[netip.Addr]*corev1.Service{}
	for _, svc := range stored {
		for _, a := range heldBy(svc) {
			if first, twice := holders[a]; twice {
				r.cfg.Log.Error("two services have one address; delete one of them", "address", a, "first", first.Namespace+"/"+first.Name, "second", svc.Namespace+"/"+svc.Name)
				continue
			}
			holders[a] = svc
			if err := r.reclaim(ctx, a, svc); err != nil {
				return err
			}
		}
	}
	page, err := b.objects.List(ctx, store.ListOptions{})
	if err != nil {
		return err
	}
	for _, e := range page.Entries {
		o := e.Object().(*networkingv1.IPAddress)
		a, err := netip.ParseAddr(o.Name)
		if err != nil || o.Labels[networkingv1.LabelManagedBy] != addressManager || holders[a] != nil {
			continue
		}
		r.cfg.Log.Warn("an address is recorded for a service that does not hold it; the record goes", "address", o.Name, "service", o.Spec.ParentRef)
		if _, err := b.objects.Delete(ctx, e); err != nil && !apierrors.IsConflict(err) {
			return fmt.Errorf("remove the record of address %s: %w", o.Name, err)
		}
	}
	return nil
}

// reclaim records an address that a stored Service holds. A record for somebody else is replaced: the Service is the truth.
func (r *Registry) reclaim(ctx context.Context, a netip.Addr, svc *corev1.Service) error {
	b := r.services.book
	e, err := b.objects.Get(ctx, a.String(), store.Read{})
	switch {
	case err != nil:
		return err
	case e == nil:
		_, err = b.objects.Create(ctx, a.String(), b.record(a, svc))
	case !refersTo(e.Object().(*networkingv1.IPAddress), svc):
		_, err = b.objects.Update(ctx, e, b.record(a, svc))
	}
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("record address %s of service %s/%s: %w", a, svc.Namespace, svc.Name, err)
	}
	return nil
}

// mend records an address again whose record somebody deleted while a Service holds it.
func (r *Registry) mend(ctx context.Context, gone api.Object) {
	o, ok := gone.(*networkingv1.IPAddress)
	if !ok || o.Spec.ParentRef == nil || o.Spec.ParentRef.Resource != "services" || o.Spec.ParentRef.Group != "" {
		return
	}
	a, err := netip.ParseAddr(o.Name)
	e, err2 := r.services.stored.Get(ctx, o.Spec.ParentRef.Namespace+"/"+o.Spec.ParentRef.Name, store.Read{})
	if err != nil || err2 != nil || e == nil {
		return
	}
	if svc := e.Object().(*corev1.Service); slices.Contains(heldBy(svc), a) {
		if err := r.reclaim(context.WithoutCancel(ctx), a, svc); err != nil {
			r.cfg.Log.Error("the record of an address was deleted and could not be made again; restart the server to repair it", "address", a, "err", err)
		}
	}
}
