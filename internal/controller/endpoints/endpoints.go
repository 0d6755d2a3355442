// Package endpoints keeps the Endpoints object of each Service with a selector, for clients that don't read EndpointSlices yet.
//
// It owns every Endpoints object of such a Service whole, and removes it with the Service.
package endpoints

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/backend"
	"skiff.dev/skiff/internal/controller/harness"
)

// managedBy is the label by which these objects are known.
const (
	managedBy = "endpoints.kubernetes.io/managed-by"
	manager   = "endpoint-controller"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
	behind backend.Watcher
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Workers:   2,
		Watches:   []harness.Watch{harness.Self(&corev1.Service{}), harness.On(&corev1.Pod{}, r.behind.PodChanged), harness.Self(&corev1.Endpoints{})},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{client: c, events: c.Recorder("endpoint-controller"), behind: backend.Watcher{Reader: c}}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var service corev1.Service
	if err := r.client.Get(ctx, key, &service); err != nil {
		if apierrors.IsNotFound(err) {
			return 0, r.removeOurs(ctx, key)
		}
		return 0, err
	}
	if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName || service.DeletionTimestamp != nil {
		return 0, nil
	}
	pods, err := r.behind.Pods(ctx, &service)
	if err != nil {
		return 0, err
	}
	var present *corev1.Endpoints
	var found corev1.Endpoints
	if err := r.client.Get(ctx, key, &found); err == nil {
		present = &found
	} else if !apierrors.IsNotFound(err) {
		return 0, err
	}
	return 0, r.write(ctx, &service, present, decide(&service, backend.Of(&service, pods), present))
}

// write carries a decision out; nil means that nothing needs to change.
func (r *reconciler) write(ctx context.Context, service *corev1.Service, present, wanted *corev1.Endpoints) error {
	var err error
	switch {
	case wanted == nil:
		return nil
	case present == nil:
		err = r.client.Create(ctx, wanted)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
	default:
		err = r.client.Update(ctx, wanted)
	}
	if err == nil {
		return nil
	}
	if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		r.events.Eventf(service, corev1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to update endpoint %s/%s: %v", service.Namespace,
			service.Name, err)
	}
	return fmt.Errorf("write Endpoints %s/%s: %w", service.Namespace, service.Name, err)
}

// removeOurs deletes what is left of a Service that is gone. Endpoints made by somebody else stay.
func (r *reconciler) removeOurs(ctx context.Context, key harness.Key) error {
	var e corev1.Endpoints
	if err := r.client.Get(ctx, key, &e); err != nil || e.Labels[managedBy] != manager {
		return crclient.IgnoreNotFound(err)
	}
	uid := e.UID
	target := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	if err := r.client.Delete(ctx, target, crclient.Preconditions{UID: &uid}); crclient.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Endpoints %s: %w", key, err)
	}
	return nil
}

// decide returns the Endpoints object a Service should have, nil if present is right.
func decide(service *corev1.Service, backends []backend.Backend, present *corev1.Endpoints) *corev1.Endpoints {
	subsets, truncated := subsets(service, backends)
	labels := backend.Labels(service, map[string]string{managedBy: manager})
	wasTruncated := false
	wanted := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name}}
	if present != nil {
		_, wasTruncated = present.Annotations[corev1.EndpointsOverCapacity]
		if maps.Equal(present.Labels, labels) && equality.Semantic.DeepEqual(present.Subsets, subsets) && truncated == wasTruncated {
			return nil
		}
		wanted = present.DeepCopy()
	}
	wanted.Labels, wanted.Subsets = labels, subsets
	if wanted.Annotations == nil {
		wanted.Annotations = map[string]string{}
	}
	if at := backend.Triggered(service, backends); at != "" {
		wanted.Annotations[corev1.EndpointsLastChangeTriggerTime] = at
	}
	delete(wanted.Annotations, corev1.EndpointsOverCapacity)
	if truncated {
		wanted.Annotations[corev1.EndpointsOverCapacity] = "truncated"
	}
	return wanted
}
