// Package job runs pods to completion: as many successes as a Job asks for, as many failures as it allows.
//
// decide and settle are pure: a Job, its pods and the time in, what to do and the status out. Their invariant is upstream's exact accounting: a
// pod bears a finalizer from its creation until the status holds it (its index, or its UID among the uncounted), so that each pod is counted
// once, wherever a crash falls, and a job is Complete or Failed only when every pod of it is counted and has ended.
package job

import (
	"context"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/expect"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
	"skiff.dev/skiff/internal/controller/podset"
	"skiff.dev/skiff/internal/controller/podstate"
)

var gvk = batchv1.SchemeGroupVersion.WithKind("Job")

type reconciler struct {
	client client.Client
	events record.EventRecorder
	pods   podset.Kind
	held   held
	now    func() time.Time

	mu      sync.Mutex
	records map[types.UID]streak // by job
	uids    map[harness.Key]types.UID
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Workers:   4,
		Watches:   []harness.Watch{harness.Self(&batchv1.Job{}), harness.On(&corev1.Pod{}, r.podChanged)},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	events := c.Recorder("job-controller")
	r := &reconciler{
		client: c, events: events, pods: podset.Kind{GVK: gvk, Client: c, Events: events}, now: time.Now,
		records: map[types.UID]streak{}, uids: map[harness.Key]types.UID{},
	}
	r.pods.Owners = r.owners
	return r
}

func (r *reconciler) owners(namespace string) []podset.Owner {
	var list batchv1.JobList
	if r.client.List(context.Background(), &list, crclient.InNamespace(namespace), crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	var owners []podset.Owner
	for i := range list.Items {
		if j := &list.Items[i]; Finished(j) == nil {
			owners = append(owners, podset.Owner{Key: crclient.ObjectKeyFromObject(j), Selector: j.Spec.Selector})
		}
	}
	return owners
}

func (r *reconciler) podChanged(old, current *corev1.Pod) []harness.Key {
	keys := r.pods.Changed(old, current)
	var job harness.Key
	known := false
	for _, p := range []*corev1.Pod{old, current} { // the present owner counts more
		if p == nil {
			continue
		}
		if key, ok := r.pods.OwnerOf(p); ok {
			job, known = key, true
		}
	}
	r.held.saw(job, known, old, current)
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	j := &batchv1.Job{}
	if err := r.client.Get(ctx, key, j); err != nil {
		if err := crclient.IgnoreNotFound(err); err != nil {
			return 0, err
		}
		r.forget(key)
		return 0, r.release(ctx, r.held.strays(key, ""))
	}
	if err := r.release(ctx, r.held.strays(key, j.UID)); err != nil {
		return 0, err
	}
	if j.Spec.ManagedBy != nil && *j.Spec.ManagedBy != batchv1.JobControllerName {
		return 0, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("read the selector of Job %s: %w", key, err)
	}
	if Finished(j) != nil {
		r.forget(key)
		return 0, r.release(ctx, r.held.strays(key, ""))
	}
	o := observed{job: j, mayAct: r.pods.Expect.Met(key), letGo: r.held.off(key), now: r.now()}
	if o.pods, err = r.pods.Claim(ctx, j, selector, nil); err != nil {
		return 0, err
	}
	if err := r.holdAdopted(ctx, o.pods); err != nil {
		return 0, err
	}
	o.record = r.recordOf(key, &o)
	p := decide(o)
	if err := r.apply(ctx, key, j, &p); err != nil {
		return 0, err
	}
	r.keep(key, j.UID, p.record)
	if !o.mayAct && p.after == 0 {
		p.after = expect.Patience // nothing may ever come to wake it, if the change was lost
	}
	return p.after, nil
}

// holdAdopted puts the finalizer on pods that were nobody's a moment ago: without it they would never be counted.
func (r *reconciler) holdAdopted(ctx context.Context, pods []*corev1.Pod) error {
	for _, pod := range pods {
		if owner.Of(pod) != nil || tracked(pod) || podstate.Terminal(pod) {
			continue
		}
		if err := r.patchFinalizers(ctx, pod, "finalizers"); crclient.IgnoreNotFound(err) != nil {
			return fmt.Errorf("hold adopted pod %s: %w", pod.Name, err)
		}
	}
	return nil
}

// recordOf is what is remembered of a job's failures; of a job that was not seen before, what its ended pods tell.
func (r *reconciler) recordOf(key harness.Key, o *observed) streak {
	r.mu.Lock()
	known, ok := r.records[o.job.UID]
	r.mu.Unlock()
	if ok {
		return known
	}
	var succeeded, failures []*corev1.Pod
	for _, pod := range o.pods {
		switch {
		case tracked(pod) && !o.letGo[pod.UID]: // decide will see it
		case pod.Status.Phase == corev1.PodSucceeded:
			succeeded = append(succeeded, pod)
		case pod.Status.Phase == corev1.PodFailed:
			failures = append(failures, pod)
		}
	}
	return streak{}.next(succeeded, failures)
}

func (r *reconciler) keep(key harness.Key, uid types.UID, now streak) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := r.uids[key]; was != uid {
		delete(r.records, was)
	}
	r.records[uid], r.uids[key] = now, uid
}

func (r *reconciler) forget(key harness.Key) {
	r.pods.Expect.Forget(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.records, r.uids[key])
	delete(r.uids, key)
}
