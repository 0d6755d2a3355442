package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Informers is what the zone needs of a client.
type Informers interface {
	GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error)
}

// zone holds the cluster's names.
type zone struct {
	domain string // canonical

	mu         sync.RWMutex
	serial     uint32
	services   map[types.NamespacedName]*entry
	namespaces map[string]int // how many services each has
	byAddr     map[netip.Addr]map[types.NamespacedName]struct{}
	slices     map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice
	objects    map[types.NamespacedName]*corev1.Service
}

// entry is what the zone knows of a service. It is replaced, never changed.
type entry struct {
	external  string       // the name that stands for it, canonical
	addrs     []netip.Addr // cluster addresses; none if it is headless
	ports     []port
	endpoints []endpoint // that may be told
}

func (e *entry) headless() bool { return e.external == "" && len(e.addrs) == 0 }

type port struct {
	name, protocol string // as in SRV names, without underscores
	number         uint16
}

type endpoint struct {
	name  string // its host name, or its address with dashes
	addr  netip.Addr
	ports []port
}

func newZone(domain string) *zone {
	return &zone{
		domain:     domain,
		serial:     uint32(time.Now().Unix()),
		services:   map[types.NamespacedName]*entry{},
		namespaces: map[string]int{},
		byAddr:     map[netip.Addr]map[types.NamespacedName]struct{}{},
		slices:     map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice{},
		objects:    map[types.NamespacedName]*corev1.Service{},
	}
}

// follow keeps the zone as the API has it. It returns when the zone holds everything there was.
func (z *zone) follow(ctx context.Context, in Informers) (stop func(), err error) {
	var undo []func()
	stop = func() {
		for _, f := range undo {
			f()
		}
	}
	for _, kind := range []struct {
		obj client.Object
		set func(obj client.Object, gone bool)
	}{{&corev1.Service{}, z.setService}, {&discoveryv1.EndpointSlice{}, z.setSlice}} {
		informer, err := in.GetInformer(ctx, kind.obj)
		if err != nil {
			stop()
			return nil, fmt.Errorf("follow %T: %w", kind.obj, err)
		}
		reg, err := informer.AddEventHandler(handler(kind.set))
		if err != nil {
			stop()
			return nil, fmt.Errorf("follow %T: %w", kind.obj, err)
		}
		undo = append(undo, func() { _ = informer.RemoveEventHandler(reg) })
		select {
		case <-reg.HasSyncedChecker().Done():
		case <-ctx.Done():
			stop()
			return nil, ctx.Err()
		}
	}
	return stop, nil
}

func handler(set func(client.Object, bool)) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { set(o.(client.Object), false) },
		UpdateFunc: func(_, o any) { set(o.(client.Object), false) },
		DeleteFunc: func(o any) {
			if unknown, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if obj, ok := o.(client.Object); ok {
				set(obj, true)
			}
		},
	}
}

func (z *zone) setService(obj client.Object, gone bool) {
	key := client.ObjectKeyFromObject(obj)
	z.mu.Lock()
	defer z.mu.Unlock()
	if gone {
		delete(z.objects, key)
	} else {
		z.objects[key] = obj.(*corev1.Service)
	}
	z.renew(key)
}

func (z *zone) setSlice(obj client.Object, gone bool) {
	s := obj.(*discoveryv1.EndpointSlice)
	key := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	z.mu.Lock()
	defer z.mu.Unlock()
	switch {
	case !gone && z.slices[key] == nil:
		z.slices[key] = map[string]*discoveryv1.EndpointSlice{s.Name: s}
	case !gone:
		z.slices[key][s.Name] = s
	default:
		if delete(z.slices[key], s.Name); len(z.slices[key]) == 0 {
			delete(z.slices, key)
		}
	}
	z.renew(key)
}

// renew makes a service's entry anew from what is known of it.
func (z *zone) renew(key types.NamespacedName) {
	z.serial++
	if old := z.services[key]; old != nil {
		for _, a := range old.all() {
			if delete(z.byAddr[a], key); len(z.byAddr[a]) == 0 {
				delete(z.byAddr, a)
			}
		}
		delete(z.services, key)
		if z.namespaces[key.Namespace]--; z.namespaces[key.Namespace] == 0 {
			delete(z.namespaces, key.Namespace)
		}
	}
	svc := z.objects[key]
	if svc == nil {
		return
	}
	e := newEntry(svc, z.slices[key])
	z.services[key] = e
	z.namespaces[key.Namespace]++
	for _, a := range e.all() {
		if z.byAddr[a] == nil {
			z.byAddr[a] = map[types.NamespacedName]struct{}{}
		}
		z.byAddr[a][key] = struct{}{}
	}
}

// all lists every address an entry has, each once.
func (e *entry) all() []netip.Addr {
	out := append([]netip.Addr{}, e.addrs...)
	for i := range e.endpoints {
		out = append(out, e.endpoints[i].addr)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func newEntry(svc *corev1.Service, eps map[string]*discoveryv1.EndpointSlice) *entry {
	e := &entry{}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		e.external = canonical(svc.Spec.ExternalName)
		return e
	}
	for _, ip := range append([]string{svc.Spec.ClusterIP}, svc.Spec.ClusterIPs...) {
		if a, err := netip.ParseAddr(ip); err == nil && !slices.Contains(e.addrs, a) {
			e.addrs = append(e.addrs, a)
		}
	}
	for _, p := range svc.Spec.Ports {
		e.ports = append(e.ports, port{p.Name, strings.ToLower(string(p.Protocol)), uint16(p.Port)})
	}
	for _, s := range eps {
		var ports []port
		for _, p := range s.Ports {
			one := port{protocol: "tcp"}
			if p.Name != nil {
				one.name = *p.Name
			}
			if p.Protocol != nil {
				one.protocol = strings.ToLower(string(*p.Protocol))
			}
			if p.Port != nil {
				one.number = uint16(*p.Port)
				ports = append(ports, one)
			}
		}
		if e.headless() {
			e.ports = append(e.ports, ports...) // hand-made endpoints may have ports that the service doesn't name
		}
		for i := range s.Endpoints {
			e.add(&s.Endpoints[i], ports, svc.Spec.PublishNotReadyAddresses)
		}
	}
	return e
}

// add adds an endpoint if it may be told. One address may be in several slices, with ports of its own in each.
func (e *entry) add(ep *discoveryv1.Endpoint, ports []port, evenIfNotReady bool) {
	ready := ep.Conditions.Ready == nil || *ep.Conditions.Ready
	if !ready && !evenIfNotReady {
		return
	}
	for _, s := range ep.Addresses {
		a, err := netip.ParseAddr(s)
		if err != nil {
			continue
		}
		one := endpoint{name: dashed(a), addr: a, ports: ports}
		if ep.Hostname != nil && *ep.Hostname != "" {
			one.name = strings.ToLower(*ep.Hostname)
		}
		e.endpoints = append(e.endpoints, one)
	}
}

// dashed is an address as a label of a name.
func dashed(a netip.Addr) string { return strings.NewReplacer(".", "-", ":", "-").Replace(a.String()) }

// undashed is its inverse: a label of a name as an address.
func undashed(label string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	if err != nil {
		a, err = netip.ParseAddr(strings.ReplaceAll(label, "-", ":"))
	}
	return a, err == nil && a.Zone() == ""
}
