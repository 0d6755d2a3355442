package network

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/network/announce"
	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

// Informers is what the network needs of a client.
type Informers interface {
	GetInformer(ctx context.Context, obj crclient.Object, opts ...cache.InformerGetOption) (cache.Informer, error)
}

const (
	settle     = 5 * time.Millisecond // changes that come this close together are written together; one alone is written at once
	retryAfter = time.Second
)

// follower keeps the table's services as the API has them.
type follower struct {
	rules *ruleset
	node  proxy.Node
	log   *slog.Logger

	mu       sync.Mutex
	services map[types.NamespacedName]*corev1.Service
	slices   map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice
	dirty    map[types.NamespacedName]struct{}
	policies policyChanges
	health   *healthPorts
	healthz  *proxyHealth
	announce *announce.Announcer
	wake     chan struct{}
}

func newFollower(rules *ruleset, node proxy.Node, a *announce.Announcer, h *proxyHealth, log *slog.Logger) *follower {
	return &follower{
		rules: rules, node: node, log: log,
		services: map[types.NamespacedName]*corev1.Service{},
		slices:   map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice{},
		dirty:    map[types.NamespacedName]struct{}{},
		wake:     make(chan struct{}, 1),
		health:   newHealthPorts(h.current, log),
		healthz:  h,
		announce: a,
	}
}

// handler calls set for what is there and del for what is gone. What a cache missed the end of comes wrapped.
func handler[T crclient.Object](set, del func(T)) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { set(o.(T)) },
		UpdateFunc: func(_, o any) { set(o.(T)) },
		DeleteFunc: func(o any) {
			if unknown, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if obj, ok := o.(T); ok {
				del(obj)
			}
		},
	}
}

// subscribe has a handler told of all objects of a kind, and returns a channel that is closed when it has been told of those that are
// there already.
func subscribe(ctx context.Context, in Informers, obj crclient.Object, h toolscache.ResourceEventHandler) (<-chan struct{}, func(), error) {
	informer, err := in.GetInformer(ctx, obj)
	if err != nil {
		return nil, nil, fmt.Errorf("follow %T: %w", obj, err)
	}
	reg, err := informer.AddEventHandler(h)
	if err != nil {
		return nil, nil, fmt.Errorf("follow %T: %w", obj, err)
	}
	return reg.HasSyncedChecker().Done(), func() { _ = informer.RemoveEventHandler(reg) }, nil
}

// await waits for channels to be closed; false: ctx ended first.
func await(ctx context.Context, all ...<-chan struct{}) bool {
	for _, c := range all {
		select {
		case <-c:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (f *follower) change(key types.NamespacedName, do func()) {
	f.mu.Lock()
	do()
	f.dirty[key] = struct{}{}
	f.mu.Unlock()
	f.ring()
}

func (f *follower) ring() {
	f.healthz.changed()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// nodeHandler learns this node's zone, which decides which endpoints are near, and whether the node is about to go.
func (f *follower) nodeHandler() toolscache.ResourceEventHandler {
	return handler(func(n *corev1.Node) {
		if n.Name != f.node.Name {
			return
		}
		f.healthz.see(n)
		f.mu.Lock()
		moved := f.node.Zone != n.Labels[corev1.LabelTopologyZone]
		if moved {
			f.node.Zone = n.Labels[corev1.LabelTopologyZone]
			for key := range f.services {
				f.dirty[key] = struct{}{}
			}
		}
		f.mu.Unlock()
		if moved {
			f.ring()
		}
	}, func(n *corev1.Node) {
		if n.Name == f.node.Name {
			f.healthz.see(nil)
		}
	})
}

func (f *follower) serviceHandler() toolscache.ResourceEventHandler {
	return handler(func(s *corev1.Service) {
		key := crclient.ObjectKeyFromObject(s)
		f.change(key, func() { f.services[key] = s })
	}, func(s *corev1.Service) {
		key := crclient.ObjectKeyFromObject(s)
		f.change(key, func() { delete(f.services, key) })
	})
}

func (f *follower) sliceHandler() toolscache.ResourceEventHandler {
	owner := func(s *discoveryv1.EndpointSlice) types.NamespacedName {
		return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	}
	return handler(func(s *discoveryv1.EndpointSlice) {
		key := owner(s)
		f.change(key, func() {
			if f.slices[key] == nil {
				f.slices[key] = map[string]*discoveryv1.EndpointSlice{}
			}
			f.slices[key][s.Name] = s
		})
	}, func(s *discoveryv1.EndpointSlice) {
		key := owner(s)
		f.change(key, func() {
			if delete(f.slices[key], s.Name); len(f.slices[key]) == 0 {
				delete(f.slices, key)
			}
		})
	})
}

// Run writes the services and policies there are, calls programmed, and follows changes.
func (f *follower) Run(ctx context.Context, c client.Client, programmed func()) error {
	in := c.Cache()
	defer f.health.close()
	defer f.announce.Close()
	services, stopServices, err := subscribe(ctx, in, &corev1.Service{}, f.serviceHandler())
	if err != nil {
		return err
	}
	defer stopServices()
	slices, stopSlices, err := subscribe(ctx, in, &discoveryv1.EndpointSlice{}, f.sliceHandler())
	if err != nil {
		return err
	}
	defer stopSlices()
	policies, stopPolicies, err := subscribe(ctx, in, &networkingv1.NetworkPolicy{}, f.policyHandler())
	if err != nil {
		return err
	}
	defer stopPolicies()
	nodes, stopNodes, err := subscribe(ctx, in, &corev1.Node{}, f.nodeHandler())
	if err != nil {
		return err
	}
	defer stopNodes()
	if !await(ctx, services, slices, policies, nodes) {
		return nil
	}
	stopPods, err := f.followPods(ctx, c)
	defer func() { stopPods() }()
	if err != nil {
		return err
	}
	if err := f.healthz.write(f.write); err != nil {
		return err
	}
	programmed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
		if !f.policies.followed {
			if stopPods, err = f.followPods(ctx, c); err != nil {
				return err
			}
		}
		pause := settle
		if err := f.healthz.write(f.write); err != nil {
			f.log.Error("services are not as they should be on this node; trying again", "err", err)
			pause = retryAfter
			f.change(types.NamespacedName{}, func() {})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// write plans the services that changed, and puts the difference into the kernel.
func (f *follower) write() error {
	f.mu.Lock()
	parts := make(map[string]proxy.Part, len(f.dirty))
	changed := make(map[types.NamespacedName]*corev1.Service, len(f.dirty))
	for key := range f.dirty {
		changed[key] = f.services[key]
		var part proxy.Part
		if svc := f.services[key]; svc != nil {
			all := make([]*discoveryv1.EndpointSlice, 0, len(f.slices[key]))
			for _, s := range f.slices[key] {
				all = append(all, s)
			}
			part = proxy.Service(svc, all, f.node)
		}
		parts["service/"+key.String()] = part
	}
	f.health.set(parts)
	clear(f.dirty)
	policies := f.policies.take()
	f.mu.Unlock()
	defer f.announce.Follow(changed) // when the table leads on what arrives
	return f.rules.Change(func(t *proxy.Table, p *policy.Table) {
		for name, part := range parts {
			t.Set(name, part)
		}
		for _, change := range policies {
			change(p)
		}
	})
}
