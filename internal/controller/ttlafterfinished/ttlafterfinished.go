// Package ttlafterfinished deletes Jobs some time after they ended, as their ttlSecondsAfterFinished says. A Job that has none stays.
package ttlafterfinished

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/job"
)

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{client: c, now: time.Now}
	return harness.Controller{Watches: []harness.Watch{harness.On(&batchv1.Job{}, jobChanged)}, Reconcile: r.reconcile}
}

type reconciler struct {
	client client.Client
	now    func() time.Time
}

func jobChanged(_, current *batchv1.Job) []harness.Key {
	if current == nil || current.Spec.TTLSecondsAfterFinished == nil || current.DeletionTimestamp != nil || job.Finished(current) == nil {
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

// left is how long a job still has; expires is false if it has for ever.
func left(j *batchv1.Job, now time.Time) (d time.Duration, expires bool) {
	end := job.Finished(j)
	if end == nil || j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
		return 0, false
	}
	return end.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second).Sub(now), true
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var j batchv1.Job
	if err := r.client.Get(ctx, key, &j); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if d, expires := left(&j, r.now()); !expires || d > 0 {
		return d, nil
	}
	if err := r.client.Live().Get(ctx, key, &j); err != nil { // its user may have given it more time a moment ago
		return 0, crclient.IgnoreNotFound(err)
	}
	if d, expires := left(&j, r.now()); !expires || d > 0 {
		return d, nil
	}
	uid, version := j.UID, j.ResourceVersion
	err := r.client.Delete(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: j.Namespace, Name: j.Name}},
		crclient.Preconditions{UID: &uid, ResourceVersion: &version}, crclient.PropagationPolicy(metav1.DeletePropagationForeground))
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("delete the expired Job %s: %w", key, err)
	}
	return 0, nil
}
