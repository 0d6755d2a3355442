package dra

import (
	"context"
	"slices"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// available has the ResourceSlices of a driver that is away taken away after a while: a pod that is given its devices would wait for it. A driver that
// comes back publishes them anew. The caller holds mu.
func (n *Node) available(name string) {
	if slices.ContainsFunc(n.drivers[name], func(d *driver) bool { return d.connected }) {
		if cancel := n.wipes[name]; cancel != nil {
			cancel()
			delete(n.wipes, name)
		}
		return
	}
	if n.wipes[name] != nil || n.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(n.ctx)
	n.wipes[name] = cancel
	n.work.Go(func() {
		defer cancel()
		n.wipe(ctx, name)
	})
}

// absent looks, once, which drivers have slices of this node and are not registered.
func (n *Node) absent(ctx context.Context) {
	var list resourcev1.ResourceSliceList
	err := n.again(ctx, "list ResourceSlices of this node", func() error {
		return n.client.Live().List(ctx, &list, crclient.MatchingFields{resourcev1.ResourceSliceSelectorNodeName: n.name})
	})
	if err != nil {
		return // the context has ended
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range list.Items {
		n.available(list.Items[i].Spec.Driver)
	}
}

func (n *Node) wipe(ctx context.Context, name string) {
	select {
	case <-time.After(n.patience):
	case <-ctx.Done():
		return
	}
	err := n.again(ctx, "delete the ResourceSlices of a driver that is away", func() error {
		return n.client.DeleteAllOf(ctx, &resourcev1.ResourceSlice{}, crclient.MatchingFields{
			resourcev1.ResourceSliceSelectorNodeName: n.name, resourcev1.ResourceSliceSelectorDriver: name,
		})
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if ctx.Err() == nil {
		delete(n.wipes, name)
	}
	if err == nil {
		n.log.Info("a DRA driver is away; its devices are not offered any more", "driver", name)
	}
}

// again does f until it succeeds or ctx ends, less and less often.
func (n *Node) again(ctx context.Context, what string, f func() error) error {
	for delay := time.Second; ; delay = min(2*delay, 5*time.Minute) {
		err := f()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		n.log.Warn("cannot "+what+"; trying again", "err", err, "in", delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
