// Package cronjob starts a Job whenever a CronJob's schedule is due.
//
// decide is pure: a CronJob, its Jobs and the time in, a plan out. Its invariant: a scheduled time makes one Job at most, for the time is in the
// Job's name, and times that were missed are made up for by one Job, the latest's. A CronJob sleeps until it is due, but never for longer than
// the clock may be trusted not to have jumped.
package cronjob

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
)

// trust is the longest sleep. Timers run by a clock that stands still while the machine does and does not follow when somebody sets the time.
const trust = time.Minute

var gvk = batchv1.SchemeGroupVersion.WithKind("CronJob")

type reconciler struct {
	client client.Client
	events record.EventRecorder
	now    func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{client: c, events: c.Recorder("cronjob-controller"), now: time.Now}
	return harness.Controller{
		Workers:   2,
		Watches:   []harness.Watch{harness.Self(&batchv1.CronJob{}), harness.On(&batchv1.Job{}, jobChanged)},
		Reconcile: r.reconcile,
	}
}

func jobChanged(old, current *batchv1.Job) []harness.Key {
	var keys []harness.Key
	for _, j := range []*batchv1.Job{old, current} {
		if j == nil {
			continue
		}
		if ref := owner.Of(j); ref != nil && ref.Kind == gvk.Kind && ref.APIVersion == gvk.GroupVersion().String() {
			keys = append(keys, harness.Key{Namespace: j.Namespace, Name: ref.Name})
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	c := &batchv1.CronJob{}
	if err := r.client.Get(ctx, key, c); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	o := observed{cron: c, now: r.now()}
	var list batchv1.JobList
	err := r.client.List(ctx, &list, crclient.InNamespace(c.Namespace), crclient.MatchingFields{"owner.uid": string(c.UID)}, crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return 0, fmt.Errorf("list jobs of CronJob %s: %w", key, err)
	}
	for i := range list.Items {
		if owner.By(&list.Items[i], c.UID) {
			o.jobs = append(o.jobs, &list.Items[i])
		}
	}
	if o.missing, err = r.missing(ctx, &o); err != nil {
		return 0, err
	}
	p := decide(o)
	if err := r.apply(ctx, c, &p); err != nil {
		return 0, err
	}
	return min(p.after, trust), nil
}

// missing finds the active jobs that are gone. The cache alone is not believed: it may not know yet a job that was just made.
func (r *reconciler) missing(ctx context.Context, o *observed) (map[types.UID]bool, error) {
	present := map[types.UID]bool{}
	for _, j := range o.jobs {
		present[j.UID] = true
	}
	gone := map[types.UID]bool{}
	for _, ref := range o.cron.Status.Active {
		if present[ref.UID] {
			continue
		}
		var j batchv1.Job
		err := r.client.Live().Get(ctx, harness.Key{Namespace: o.cron.Namespace, Name: ref.Name}, &j)
		if crclient.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("look for active job %s of CronJob %s: %w", ref.Name, o.cron.Name, err)
		}
		if err != nil || j.UID != ref.UID {
			gone[ref.UID] = true
		}
	}
	return gone, nil
}

// apply deletes, then starts, then writes down what was started. If that last write fails, the next pass finds the job by its name.
func (r *reconciler) apply(ctx context.Context, c *batchv1.CronJob, p *plan) error {
	for _, e := range p.events {
		r.events.Event(c, e.kind, e.reason, e.message)
	}
	for _, ref := range p.remove {
		if err := r.remove(ctx, c, ref); err != nil {
			return err
		}
	}
	var startErr error
	if p.start != nil {
		startErr = r.start(ctx, c, p)
	}
	if !equality.Semantic.DeepEqual(c.Status, p.status) {
		changed := c.DeepCopy()
		changed.Status = p.status
		if err := crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, changed)); err != nil {
			return fmt.Errorf("write the status of CronJob %s: %w", c.Name, err)
		}
	}
	return startErr
}

func (r *reconciler) remove(ctx context.Context, c *batchv1.CronJob, ref corev1.ObjectReference) error {
	uid := ref.UID
	err := r.client.Delete(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: ref.Name}},
		crclient.Preconditions{UID: &uid}, crclient.PropagationPolicy(metav1.DeletePropagationBackground))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone already
	}
	if err != nil {
		r.events.Eventf(c, corev1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
		return fmt.Errorf("delete job %s of CronJob %s: %w", ref.Name, c.Name, err)
	}
	r.events.Eventf(c, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job %s", ref.Name)
	return nil
}

// start makes the job and enters it into the status that is still to be written.
func (r *reconciler) start(ctx context.Context, c *batchv1.CronJob, p *plan) error {
	j := p.start
	name := j.Name
	err := r.client.Create(ctx, j)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace life cycle deletes us too
	case apierrors.IsAlreadyExists(err):
		j = &batchv1.Job{}
		if err := r.client.Live().Get(ctx, harness.Key{Namespace: c.Namespace, Name: name}, j); err != nil {
			return fmt.Errorf("look at the existing job %s: %w", name, err)
		}
		if !owner.By(j, c.UID) {
			return nil // a user's own: the name is taken for this time
		}
	case err != nil:
		r.events.Eventf(c, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
		return fmt.Errorf("create job %s: %w", name, err)
	default:
		r.events.Eventf(c, corev1.EventTypeNormal, "SuccessfulCreate", "Created job %s", name)
	}
	p.enter(j)
	return nil
}
