// Package endpointslice keeps the EndpointSlices of Services with a selector.
//
// plan is pure: what there should be and what there is in, slices to create, update and delete out, changing as few as possible. It owns
// exactly the slices labelled as managed by endpointslice-controller.k8s.io and leaves all others alone.
package endpointslice

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/backend"
	"skiff.dev/skiff/internal/controller/harness"
)

const manager = "endpointslice-controller.k8s.io"

type reconciler struct {
	client client.Client
	events record.EventRecorder
	behind backend.Watcher
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Workers: 4,
		Watches: []harness.Watch{
			harness.Self(&corev1.Service{}),
			harness.On(&corev1.Pod{}, r.behind.PodChanged),
			harness.On(&discoveryv1.EndpointSlice{}, sliceChanged),
			harness.On(&corev1.Node{}, r.nodeChanged),
		},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{client: c, events: c.Recorder("endpoint-slice-controller"), behind: backend.Watcher{Reader: c}}
}

// sliceChanged wakes the Service of a slice, so that whatever somebody else did to it is repaired.
func sliceChanged(old, current *discoveryv1.EndpointSlice) []harness.Key {
	var keys []harness.Key
	for _, s := range []*discoveryv1.EndpointSlice{old, current} {
		if s != nil && s.Labels[discoveryv1.LabelManagedBy] == manager && s.Labels[discoveryv1.LabelServiceName] != "" {
			key := harness.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
			if len(keys) == 0 || keys[0] != key {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// nodeChanged wakes the Services whose endpoints are on a node that is in another zone now.
func (r *reconciler) nodeChanged(old, current *corev1.Node) []harness.Key {
	if old == nil || current == nil || old.Labels[corev1.LabelTopologyZone] == current.Labels[corev1.LabelTopologyZone] {
		return nil
	}
	var pods corev1.PodList
	if r.client.List(context.Background(), &pods, crclient.MatchingFields{"spec.nodeName": current.Name}, crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	var keys []harness.Key
	for i := range pods.Items {
		keys = append(keys, r.behind.PodChanged(nil, &pods.Items[i])...)
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var service corev1.Service
	if err := r.client.Get(ctx, key, &service); err != nil {
		return 0, crclient.IgnoreNotFound(err) // its slices go with it, by their owner reference
	}
	if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName || service.DeletionTimestamp != nil {
		return 0, nil
	}
	pods, err := r.behind.Pods(ctx, &service)
	if err != nil {
		return 0, err
	}
	existing, err := r.existing(ctx, &service)
	if err != nil {
		return 0, err
	}
	backends := backend.Of(&service, pods)
	if err := r.apply(ctx, decide(&service, backends, existing, r.zone(ctx))); err != nil {
		r.events.Eventf(&service, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Service %s/%s: %v",
			key.Namespace, key.Name, err)
		return 0, fmt.Errorf("update the EndpointSlices of Service %s: %w", key, err)
	}
	return 0, nil
}

func (r *reconciler) existing(ctx context.Context, service *corev1.Service) ([]*discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	err := r.client.List(ctx, &list, crclient.InNamespace(service.Namespace),
		crclient.MatchingFields{"service": service.Namespace + "/" + service.Name}, crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list the EndpointSlices of Service %s: %w", service.Name, err)
	}
	var ours []*discoveryv1.EndpointSlice
	for i := range list.Items {
		if list.Items[i].Labels[discoveryv1.LabelManagedBy] == manager && list.Items[i].DeletionTimestamp == nil {
			ours = append(ours, &list.Items[i])
		}
	}
	return ours, nil
}

// zone looks up the zone of a node, "" if it has none.
func (r *reconciler) zone(ctx context.Context) func(node string) string {
	known := map[string]string{}
	return func(name string) string {
		zone, ok := known[name]
		if !ok && name != "" {
			var node corev1.Node
			if r.client.Get(ctx, harness.Key{Name: name}, &node) == nil {
				zone = node.Labels[corev1.LabelTopologyZone]
			}
			known[name] = zone
		}
		return zone
	}
}

func (r *reconciler) apply(ctx context.Context, p plan) error {
	for _, s := range p.create {
		if err := r.client.Create(ctx, s); err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return fmt.Errorf("create one: %w", err)
		}
	}
	for _, s := range p.update {
		if err := r.client.Update(ctx, s); err != nil {
			return fmt.Errorf("update %s: %w", s.Name, err)
		}
	}
	for _, s := range p.remove {
		if err := r.client.Delete(ctx, s.DeepCopy()); crclient.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete %s: %w", s.Name, err)
		}
	}
	return nil
}
