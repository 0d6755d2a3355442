// Package dra is the node's side of dynamic resource allocation: it has the drivers of a pod's ResourceClaims prepare the devices that were allocated,
// and take them back when no pod of this node uses the claim any more.
//
// On disk, below the kubelet's root, is one file: the claims that were, or may have been, prepared, with the pods that use them. A claim is written
// down before its driver is asked, and struck out after the driver took it back, so that the kubelet may die at any moment; drivers' calls are
// idempotent. What a driver answered holds for this boot of the machine: a later one asks again.
package dra

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"
	draold "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"skiff.dev/skiff/internal/client"
)

// usualPatience is how long a driver may be away before its devices are not offered any more.
const usualPatience = 30 * time.Second

// Node is this node's side.
type Node struct {
	name     string
	client   client.Client
	log      *slog.Logger
	patience time.Duration

	// Changed, if set before Run, is told of pods whose devices' health changed; of nil when a driver has come and pods may wait for it.
	Changed func(pods []types.UID)

	mu      sync.Mutex
	ctx     context.Context // of Run
	drivers map[string][]*driver
	wipes   map[string]context.CancelFunc // by driver: what takes its slices away
	health  map[device]health
	book    book
	work    sync.WaitGroup
}

// New returns the node's side; root is the kubelet's.
func New(root, node string, c client.Client, log *slog.Logger) (*Node, error) {
	b, err := open(filepath.Join(root, "dra_claims.json"))
	if err != nil {
		return nil, err
	}
	return &Node{
		name: node, client: c, log: log, patience: usualPatience, book: b,
		ctx: context.Background(), drivers: map[string][]*driver{}, wipes: map[string]context.CancelFunc{}, health: map[device]health{},
	}, nil
}

// Run until ctx ends. Drivers that don't come back after the kubelet did have their devices taken off the market.
func (n *Node) Run(ctx context.Context) error {
	n.mu.Lock()
	n.ctx = ctx
	n.mu.Unlock()
	n.absent(ctx)
	<-ctx.Done()
	n.mu.Lock()
	for _, list := range n.drivers {
		for _, d := range list {
			d.close()
		}
	}
	n.mu.Unlock()
	n.work.Wait()
	return nil
}

// Register takes a driver in. There may be two of one name for a while, when it is replaced; the newer one is asked.
func (n *Node) Register(_ context.Context, name, endpoint string, versions []string) error {
	service := ""
	switch {
	case slices.Contains(versions, draapi.DRAPluginService):
		service = draapi.DRAPlugin_ServiceDesc.ServiceName
	case slices.Contains(versions, draold.DRAPluginService):
		service = draold.DRAPlugin_ServiceDesc.ServiceName
	default:
		return fmt.Errorf("none of its services %v is supported: %s and %s are", versions, draapi.DRAPluginService, draold.DRAPluginService)
	}
	d, err := dial(name, endpoint, service, healthService(versions))
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, old := range n.drivers[name] {
		if old.endpoint == endpoint {
			old.close()
		}
	}
	n.drivers[name] = append(slices.DeleteFunc(n.drivers[name], func(old *driver) bool { return old.endpoint == endpoint }), d)
	d.connected = true // it has just spoken to us
	n.available(name)
	ctx := d.begin(n.ctx)
	n.work.Go(func() { n.follow(ctx, d) })
	if d.health != "" {
		n.work.Go(func() { n.watchHealth(ctx, d) })
	}
	if n.Changed != nil {
		go n.Changed(nil)
	}
	return nil
}

// Deregister forgets a driver's endpoint.
func (n *Node) Deregister(_ context.Context, name, endpoint string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drivers[name] = slices.DeleteFunc(n.drivers[name], func(d *driver) bool {
		if d.endpoint == endpoint {
			d.close()
			return true
		}
		return false
	})
	if len(n.drivers[name]) == 0 {
		delete(n.drivers, name)
	}
	n.available(name)
}

// driver finds the newest one of a name, rather one that is there.
func (n *Node) driver(name string) (*driver, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := n.drivers[name]
	if len(list) == 0 {
		return nil, fmt.Errorf("DRA driver %s is not registered", name)
	}
	for _, d := range slices.Backward(list) {
		if d.connected {
			return d, nil
		}
	}
	return list[len(list)-1], nil
}

// Wants says whether a pod has devices that need preparing.
func Wants(pod *corev1.Pod) bool {
	return len(pod.Spec.ResourceClaims) > 0 || pod.Status.ExtendedResourceClaimStatus != nil
}
