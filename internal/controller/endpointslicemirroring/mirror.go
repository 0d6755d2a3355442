// Package endpointslicemirroring copies hand-made Endpoints into EndpointSlices, which is all that proxies and DNS read.
//
// It mirrors the Endpoints of Services without a selector, unless their label skip-mirror says "true" or they are an election's record. It owns
// exactly the slices labelled as managed by endpointslicemirroring-controller.k8s.io; their owner is the Endpoints object.
package endpointslicemirroring

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

const manager = "endpointslicemirroring-controller.k8s.io"

type reconciler struct{ client client.Client }

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{c}
	return harness.Controller{
		Workers:   2,
		Watches:   []harness.Watch{harness.Self(&corev1.Endpoints{}), harness.Self(&corev1.Service{}), harness.On(&discoveryv1.EndpointSlice{}, sliceChanged)},
		Reconcile: r.reconcile,
	}
}

// sliceChanged wakes the Endpoints of a mirror that somebody changed.
func sliceChanged(old, current *discoveryv1.EndpointSlice) []harness.Key {
	for _, s := range []*discoveryv1.EndpointSlice{current, old} {
		if s != nil && s.Labels[discoveryv1.LabelManagedBy] == manager {
			return []harness.Key{{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}}
		}
	}
	return nil
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var endpoints corev1.Endpoints
	err := r.client.Get(ctx, key, &endpoints)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	var service corev1.Service
	wanted := err == nil
	if wanted {
		if err := r.client.Get(ctx, key, &service); apierrors.IsNotFound(err) {
			wanted = false
		} else if err != nil {
			return 0, err
		}
	}
	existing, err := r.existing(ctx, key)
	if err != nil {
		return 0, err
	}
	var slices []*discoveryv1.EndpointSlice
	if wanted && mirrored(&endpoints, &service) {
		slices = mirror(&endpoints)
	}
	if err := r.apply(ctx, decide(slices, existing)); err != nil {
		return 0, fmt.Errorf("mirror Endpoints %s: %w", key, err)
	}
	return 0, nil
}

func (r *reconciler) existing(ctx context.Context, key harness.Key) (ours []*discoveryv1.EndpointSlice, err error) {
	var list discoveryv1.EndpointSliceList
	err = r.client.List(ctx, &list, crclient.InNamespace(key.Namespace),
		crclient.MatchingFields{"service": key.Namespace + "/" + key.Name}, crclient.UnsafeDisableDeepCopy)
	for i := range list.Items {
		if s := &list.Items[i]; s.Labels[discoveryv1.LabelManagedBy] == manager && s.DeletionTimestamp == nil {
			ours = append(ours, s)
		}
	}
	return ours, err
}

func (r *reconciler) apply(ctx context.Context, p plan) error {
	for _, s := range p.create {
		if err := r.client.Create(ctx, s); err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return err
		}
	}
	for _, s := range p.update {
		if err := r.client.Update(ctx, s); err != nil {
			return err
		}
	}
	for _, s := range p.remove {
		if err := r.client.Delete(ctx, s.DeepCopy()); crclient.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}
