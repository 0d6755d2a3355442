package network

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/policy"
)

// policyChanges are what happened to policies, and to what they select, since they were last written.
type policyChanges struct {
	list     []func(*policy.Table)
	any      bool // there has been a policy
	followed bool // pods and namespaces are followed
}

func (c *policyChanges) take() []func(*policy.Table) {
	list := c.list
	c.list = nil
	return list
}

func (f *follower) changePolicy(do func(*policy.Table)) {
	f.mu.Lock()
	f.policies.list = append(f.policies.list, do)
	f.mu.Unlock()
	f.ring()
}

func (f *follower) policyHandler() toolscache.ResourceEventHandler {
	return handler(func(p *networkingv1.NetworkPolicy) {
		f.mu.Lock()
		f.policies.any = true
		f.mu.Unlock()
		f.changePolicy(func(t *policy.Table) { t.SetPolicy(p) })
	}, func(p *networkingv1.NetworkPolicy) {
		f.changePolicy(func(t *policy.Table) { t.RemovePolicy(policy.Key{Namespace: p.Namespace, Name: p.Name}) })
	})
}

func (f *follower) podHandler() toolscache.ResourceEventHandler {
	return handler(func(p *corev1.Pod) {
		f.changePolicy(func(t *policy.Table) {
			t.SetPod(p)
			if p.Spec.NodeName == f.node.Name && !p.Spec.HostNetwork && len(p.Status.PodIPs) > 0 {
				t.SetLocal(policy.Key{Namespace: p.Namespace, Name: p.Name}, addresses(p)...)
			}
		})
	}, func(p *corev1.Pod) {
		key := policy.Key{Namespace: p.Namespace, Name: p.Name}
		f.changePolicy(func(t *policy.Table) {
			t.RemovePod(key)
			t.SetLocal(key)
		})
	})
}

func addresses(p *corev1.Pod) (out []netip.Addr) {
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func (f *follower) namespaceHandler() toolscache.ResourceEventHandler {
	return handler(func(n *corev1.Namespace) {
		f.changePolicy(func(t *policy.Table) { t.SetNamespace(n.Name, n.Labels) })
	}, func(n *corev1.Namespace) {
		f.changePolicy(func(t *policy.Table) { t.RemoveNamespace(n.Name) })
	})
}

// followPods follows pods and namespaces from the first policy on: a cluster without policies need not know every pod on every node.
func (f *follower) followPods(ctx context.Context, c client.Client) (stop func(), err error) {
	stop = func() {}
	f.mu.Lock()
	any := f.policies.any
	f.mu.Unlock()
	if !any {
		return stop, nil
	}
	f.policies.followed = true
	everyPod, err := client.AllPods(ctx, c)
	if err != nil {
		return stop, fmt.Errorf("follow the pods of all nodes: %w", err)
	}
	namespaces, stopNamespaces, err := subscribe(ctx, c.Cache(), &corev1.Namespace{}, f.namespaceHandler())
	if err != nil {
		return stop, err
	}
	pods, stopPods, err := subscribe(ctx, everyPod, &corev1.Pod{}, f.podHandler())
	if err != nil {
		return stopNamespaces, err
	}
	await(ctx, namespaces, pods)
	return func() { stopNamespaces(); stopPods() }, nil
}
