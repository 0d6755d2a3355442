// Package servicelb gives Services of type LoadBalancer their addresses: on a cluster without a cloud, the nodes are the load balancer.
//
// With a pool (--lb-pool) each service has an address of its own, for as long as it is a service of that type, and one node is elected to answer for it on
// the link (package network/announce does). Without one, services share the nodes' addresses; so do those of class Class always.
//
// The nft table of each node sends what arrives at such an address and port to the service's endpoints. Its invariant: a port of the nodes belongs
// to one service at a time, the oldest that asked for it, and never to one that the API server or a kubelet listens on. A service whose
// port is held stays pending and an event says by whom. Services with a loadBalancerClass other than Class are somebody else's.
package servicelb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api/loadbalancer"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// Class is the spec.loadBalancerClass that means the nodes' addresses. Services without a class are this controller's too.
const Class = "skiff.dev/node"

// all is the one key: ports are shared by all services.
var all = []harness.Key{{Name: "load-balancers"}}

type reconciler struct {
	client client.Client
	pool   loadbalancer.Pool
	events record.EventRecorder
	told   map[harness.Key]string // the refusal that a service's last event spoke of
}

// New returns the controller. Without a pool, services get the nodes' addresses.
func New(c client.Client, pool loadbalancer.Pool) harness.Controller {
	r := &reconciler{client: c, pool: pool, events: c.Recorder("service-controller"), told: map[harness.Key]string{}}
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&corev1.Service{}, serviceChanged),
			harness.On(&corev1.Node{}, nodeChanged),
			harness.On(&discoveryv1.EndpointSlice{}, r.sliceChanged),
		},
		Reconcile: r.reconcile,
	}
}

func serviceChanged(old, current *corev1.Service) []harness.Key {
	for _, s := range []*corev1.Service{old, current} {
		if s != nil && (s.Spec.Type == corev1.ServiceTypeLoadBalancer || leaving(s)) {
			return all
		}
	}
	return nil
}

// nodeChanged: leases and images change all the time, and mean nothing here.
func nodeChanged(old, current *corev1.Node) []harness.Key {
	if old != nil && current != nil && takesTraffic(old) == takesTraffic(current) && loadbalancer.Stopped(old) == loadbalancer.Stopped(current) && sameAddresses(old, current) {
		return nil
	}
	return all
}

// sliceChanged matters to services that keep traffic on its node.
func (r *reconciler) sliceChanged(old, current *discoveryv1.EndpointSlice) []harness.Key {
	slice := current
	if slice == nil {
		slice = old
	}
	var s corev1.Service
	key := crclient.ObjectKey{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
	if r.client.Get(context.Background(), key, &s) != nil || !mine(&s) || s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return nil
	}
	return all
}

func (r *reconciler) reconcile(ctx context.Context, _ harness.Key) (time.Duration, error) {
	v, leave, err := r.look(ctx)
	if err != nil {
		return 0, err
	}
	// First, so that no address has two services.
	for _, s := range leave {
		if err := r.apply(ctx, s, verdict{}); err != nil {
			return 0, err
		}
	}
	var errs []error
	for i, verdict := range plan(v) {
		errs = append(errs, r.apply(ctx, v.services[i], verdict))
	}
	return 0, errors.Join(errs...)
}

// look at what there is; leave are services that have an address no longer.
func (r *reconciler) look(ctx context.Context) (v view, leave []*corev1.Service, err error) {
	v = view{pool: r.pool, reserved: map[port]string{}, hosts: map[netip.Addr]string{}}
	var services corev1.ServiceList
	var nodes corev1.NodeList
	if err := errors.Join(r.client.List(ctx, &services), r.client.List(ctx, &nodes)); err != nil {
		return v, nil, err
	}
	for i := range services.Items {
		switch s := &services.Items[i]; {
		case mine(s):
			v.services = append(v.services, s)
		case leaving(s):
			leave = append(leave, s)
		}
	}
	slices.SortStableFunc(v.services, func(a, b *corev1.Service) int {
		if d := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); d != 0 {
			return d
		}
		return strings.Compare(string(a.UID), string(b.UID))
	})
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if takesTraffic(n) {
			v.nodes = append(v.nodes, n)
		}
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil {
				v.hosts[ip] = "node " + n.Name
			}
		}
		v.reserved[port{n.Status.DaemonEndpoints.KubeletEndpoint.Port, corev1.ProtocolTCP}] = "the kubelet of node " + n.Name
	}
	for _, slice := range r.slices(ctx, "default/kubernetes") {
		for _, p := range slice.Ports {
			if p.Port != nil {
				v.reserved[port{*p.Port, corev1.ProtocolTCP}] = "the API server"
			}
		}
	}
	v.local = func(s *corev1.Service) map[string]bool {
		out := map[string]bool{}
		for _, slice := range r.slices(ctx, s.Namespace+"/"+s.Name) {
			for _, e := range slice.Endpoints {
				if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
					out[*e.NodeName] = true
				}
			}
		}
		return out
	}
	return v, leave, nil
}

func (r *reconciler) slices(ctx context.Context, service string) []discoveryv1.EndpointSlice {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, crclient.MatchingFields{"service": service}); err != nil {
		return nil
	}
	return list.Items
}

// apply writes a service's status where it differs, and says once why it has none.
func (r *reconciler) apply(ctx context.Context, s *corev1.Service, v verdict) error {
	key := crclient.ObjectKeyFromObject(s)
	if v.refusal == "" {
		delete(r.told, key)
	} else if r.told[key] != v.refusal {
		r.told[key] = v.refusal
		r.events.Event(s, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: "+v.refusal)
	}
	next := s.DeepCopy()
	next.Status.LoadBalancer.Ingress = v.ingress
	if v.pooled && len(v.ingress) > 0 {
		meta.SetStatusCondition(&next.Status.Conditions, loadbalancer.Elected(v.announcer, s.Generation))
	} else {
		meta.RemoveStatusCondition(&next.Status.Conditions, loadbalancer.Announced)
	}
	if apiequality.Semantic.DeepEqual(s.Status, next.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, next); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the addresses of service %s: %w", key, err)
	}
	if len(s.Status.LoadBalancer.Ingress) == 0 && len(v.ingress) > 0 {
		r.events.Event(s, corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
	}
	if before := loadbalancer.Announcer(s); v.announcer != "" && v.announcer != before {
		r.events.Eventf(s, corev1.EventTypeNormal, "AddressAnnounced", "Node %s answers for %s on the link", v.announcer, v.ingress[0].IP)
	}
	return nil
}
