// Package nodeipam gives every node its own range of pod addresses, of each family that the cluster has.
//
// Its invariant: no two nodes hold the same range. What nodes hold is learned from their objects, all of them before the first range is
// given, so that nothing needs to be stored elsewhere.
package nodeipam

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder

	mu      sync.Mutex
	books   []*ranges       // one a family
	waiting map[string]bool // nodes for which nothing was free
}

// New returns the controller; it hands out ranges within those of the cluster, of as many bits as the masks beside them say.
func New(c client.Client, cluster []netip.Prefix, masks []int) harness.Controller {
	r := newReconciler(c, cluster, masks)
	return harness.Controller{Watches: []harness.Watch{harness.On(&corev1.Node{}, r.nodeChanged)}, Reconcile: r.reconcile}
}

func newReconciler(c client.Client, cluster []netip.Prefix, masks []int) *reconciler {
	r := &reconciler{client: c, events: c.Recorder("cidrAllocator"), waiting: map[string]bool{}}
	for i, p := range cluster {
		r.books = append(r.books, newRanges(p, masks[i]))
	}
	return r
}

func (r *reconciler) nodeChanged(old, current *corev1.Node) []harness.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	if current == nil {
		r.release(old.Name)
		delete(r.waiting, old.Name)
		var keys []harness.Key
		for name := range r.waiting {
			keys = append(keys, harness.Key{Name: name})
		}
		return keys
	}
	for _, cidr := range cidrs(current) {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			for _, book := range r.books {
				book.hold(p, current.Name)
			}
		}
	}
	if len(cidrs(current)) > 0 {
		return nil
	}
	return []harness.Key{{Name: current.Name}}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var node corev1.Node
	if err := r.client.Get(ctx, key, &node); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if len(cidrs(&node)) > 0 || node.DeletionTimestamp != nil {
		return 0, nil
	}
	r.mu.Lock()
	given, ok := r.give(node.Name)
	if ok {
		delete(r.waiting, node.Name)
	} else {
		r.waiting[node.Name] = true
	}
	r.mu.Unlock()
	if !ok {
		r.events.Eventf(&node, corev1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", node.Name)
		return 0, nil // the next node that goes wakes it
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID},
		"spec":     map[string]any{"podCIDR": given[0], "podCIDRs": given},
	})
	if err != nil {
		return 0, err
	}
	target := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
	if err := r.client.Patch(ctx, target, crclient.RawPatch(types.MergePatchType, body)); crclient.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("give node %s the range %s: %w", node.Name, given, err)
	}
	return 0, nil // held under the node's name: a retry after an error is given the same range
}

// give returns a range of each family, or none.
func (r *reconciler) give(node string) (out []string, ok bool) {
	for _, book := range r.books {
		p, ok := book.give(node)
		if !ok {
			r.release(node)
			return nil, false
		}
		out = append(out, p.String())
	}
	return out, len(out) > 0
}

func (r *reconciler) release(node string) {
	for _, book := range r.books {
		book.release(node)
	}
}

func cidrs(n *corev1.Node) []string {
	if len(n.Spec.PodCIDRs) > 0 {
		return n.Spec.PodCIDRs
	}
	if n.Spec.PodCIDR != "" {
		return []string{n.Spec.PodCIDR}
	}
	return nil
}
