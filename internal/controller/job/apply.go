package job

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/batch"
	"skiff.dev/skiff/internal/controller/harness"
)

// apply carries a plan out: pods first, then the status that accounts for the ended ones, then their finalizers, then the status that has
// them counted. What could not be done is left for the next try, with a status that tells what was.
func (r *reconciler) apply(ctx context.Context, key harness.Key, j *batchv1.Job, p *plan) error {
	actErr := r.act(ctx, key, j, p)
	if actErr != nil {
		p.final = nil
	}
	j = j.DeepCopy()
	if len(p.count) > 0 {
		if err := r.writeStatus(ctx, j, p.status); err != nil {
			return err
		}
	}
	off, stripErr := r.strip(ctx, p.count)
	status, events := settle(j, p, func(uid types.UID) bool { return p.held[uid] && !off[uid] })
	if err := r.writeStatus(ctx, j, status); err != nil {
		return err
	}
	for _, e := range append(p.events, events...) {
		r.events.Event(j, e.kind, e.reason, e.message)
	}
	if actErr != nil {
		return actErr
	}
	return stripErr
}

// act creates and deletes pods, and takes out of the status what failed.
func (r *reconciler) act(ctx context.Context, key harness.Key, j *batchv1.Job, p *plan) error {
	if len(p.create)+len(p.remove)+len(p.end) == 0 {
		return nil
	}
	if len(p.end) == 0 { // what is ended late is no harm; what is made twice is
		r.pods.Expect.Changes(key, len(p.create), p.remove)
	}
	made, err := batch.Growing(len(p.create), func(i int) error { return r.pods.Create(ctx, j, p.create[i]) })
	r.pods.Expect.Give(key, len(p.create)-made)
	removed, removeErr := batch.Parallel(len(p.remove), func(i int) error {
		if err := r.stripOne(ctx, p.remove[i]); err != nil {
			r.pods.Expect.Deleted(key, p.remove[i].UID)
			return err
		}
		return r.pods.Remove(ctx, j, p.remove[i])
	})
	ended, endErr := batch.Parallel(len(p.end), func(i int) error { return r.pods.Remove(ctx, j, p.end[i]) })
	late := int32(len(p.remove) - removed + len(p.end) - ended)
	p.status.Active += late - int32(len(p.create)-made)
	*p.status.Terminating -= late
	for _, e := range []error{removeErr, endErr} {
		if err == nil {
			err = e
		}
	}
	return err
}

// strip takes the finalizer off pods, and says of which it is off for certain.
func (r *reconciler) strip(ctx context.Context, pods []*corev1.Pod) (off map[types.UID]bool, err error) {
	done := make([]atomic.Bool, len(pods))
	_, err = batch.Parallel(len(pods), func(i int) error {
		err := r.stripOne(ctx, pods[i])
		done[i].Store(err == nil)
		return err
	})
	off = make(map[types.UID]bool, len(pods))
	for i, pod := range pods {
		off[pod.UID] = done[i].Load()
	}
	return off, err
}

// release strips pods that nobody counts.
func (r *reconciler) release(ctx context.Context, pods []*corev1.Pod) error {
	_, err := r.strip(ctx, pods)
	return err
}

func (r *reconciler) stripOne(ctx context.Context, pod *corev1.Pod) error {
	err := r.patchFinalizers(ctx, pod, "$deleteFromPrimitiveList/finalizers")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // a conflict is about the UID: the pod is another
		return fmt.Errorf("let pod %s go: %w", pod.Name, err)
	}
	r.held.letGo(pod)
	return nil
}

func (r *reconciler) patchFinalizers(ctx context.Context, pod *corev1.Pod, how string) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID, how: []string{batchv1.JobTrackingFinalizer}}})
	if err != nil {
		return err
	}
	target := &corev1.Pod{}
	target.Namespace, target.Name = pod.Namespace, pod.Name
	return r.client.Patch(ctx, target, crclient.RawPatch(types.StrategicMergePatchType, body))
}

// writeStatus writes if there is a difference; j is the pass's own and is brought up to date.
func (r *reconciler) writeStatus(ctx context.Context, j *batchv1.Job, status batchv1.JobStatus) error {
	if equality.Semantic.DeepEqual(j.Status, status) {
		return nil
	}
	j.Status = *status.DeepCopy()
	if err := crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, j)); err != nil {
		return fmt.Errorf("write the status of Job %s: %w", j.Name, err)
	}
	return nil
}
