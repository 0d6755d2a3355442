// Package volumeexpand tells of claims that want to grow and whose volumes an outside resizer makes larger: it leaves them to it and says so.
// Volumes of Skiff's own are grown by package localvolumes.
package volumeexpand

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	storage "k8s.io/component-helpers/storage/volume"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{c, c.Recorder("volume_expand")}
	return harness.Controller{Watches: []harness.Watch{harness.On(&corev1.PersistentVolumeClaim{}, grown)}, Reconcile: r.reconcile}
}

// grown wakes bound claims that ask for more than they have, each time they ask for something new.
func grown(old, current *corev1.PersistentVolumeClaim) []harness.Key {
	if current == nil || current.Status.Phase != corev1.ClaimBound || old != nil && asks(old) == asks(current) {
		return nil
	}
	want, has := current.Spec.Resources.Requests[corev1.ResourceStorage], current.Status.Capacity[corev1.ResourceStorage]
	if want.Cmp(has) <= 0 {
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

func asks(c *corev1.PersistentVolumeClaim) string {
	q := c.Spec.Resources.Requests[corev1.ResourceStorage]
	return q.String()
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var claim corev1.PersistentVolumeClaim
	if err := r.client.Get(ctx, key, &claim); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	var pv corev1.PersistentVolume
	if err := r.client.Get(ctx, crclient.ObjectKey{Name: claim.Spec.VolumeName}, &pv); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if pv.Annotations[storage.AnnDynamicallyProvisioned] != localvolume.Provisioner {
		r.events.Event(&claim, corev1.EventTypeNormal, "ExternalExpanding",
			"waiting for an external controller to expand this PVC")
	}
	return 0, nil
}
