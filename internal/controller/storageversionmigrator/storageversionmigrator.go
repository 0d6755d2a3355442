// Package storageversionmigrator carries out StorageVersionMigrations: all objects of a resource are stored anew, so that nothing is left of an
// older version or an older encryption key.
//
// A migration's conditions are its progress: Running once it has begun, then Succeeded or Failed, for good. One that was interrupted begins again. One of
// a resource that isn't there is left alone for a minute, as upstream does: its definition may be under way.
package storageversionmigrator

import (
	"context"
	"fmt"
	"sync"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// Rewrite stores all objects of a resource anew; NotFound says that there is no such resource.
type Rewrite func(ctx context.Context, of schema.GroupResource) error

// patience is how old a migration gets before its resource is held not to exist.
const patience = time.Minute

type reconciler struct {
	client  client.Client
	kinds   harness.Kinds
	rewrite Rewrite
	now     func() time.Time
	wake    func(harness.Key)

	mu      sync.Mutex
	waiting map[harness.Key]struct{} // migrations of resources that are not there yet
}

// New returns the controller. Its keys are migrations, one at a time.
func New(c client.Client, kinds harness.Kinds, rewrite Rewrite) harness.Controller {
	r := &reconciler{client: c, kinds: kinds, rewrite: rewrite, now: time.Now, waiting: map[harness.Key]struct{}{}}
	return r.controller()
}

func (r *reconciler) controller() harness.Controller {
	return harness.Controller{
		Watches: []harness.Watch{harness.Self(&migrationv1.StorageVersionMigration{})}, Reconcile: r.reconcile,
		Begin: func(wake func(harness.Key)) { r.wake = wake },
		Follow: func(ctx context.Context, _ func(harness.Watch)) {
			harness.EachCustom(ctx, r.kinds, func(_, fresh []*api.Resource) {
				if len(fresh) > 0 {
					r.wakeWaiting()
				}
			})
		},
	}
}

func (r *reconciler) wakeWaiting() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.waiting {
		r.wake(key)
	}
}

// wait notes whether a migration waits for its resource.
func (r *reconciler) wait(key harness.Key, waits bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if waits {
		r.waiting[key] = struct{}{}
	} else {
		delete(r.waiting, key)
	}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	r.wait(key, false)
	var m migrationv1.StorageVersionMigration
	if err := r.client.Get(ctx, key, &m); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if m.DeletionTimestamp != nil || ended(m.Status.Conditions) {
		return 0, nil
	}
	of := schema.GroupResource{Group: m.Spec.Resource.Group, Resource: m.Spec.Resource.Resource}
	r.wait(key, true) // before looking: what comes meanwhile wakes it
	if row := r.kinds.ByResource(of); row == nil || row.Key == "" {
		if left := m.CreationTimestamp.Add(patience).Sub(r.now()); left > 0 {
			return left, nil
		}
		r.wait(key, false)
		return 0, r.end(ctx, &m, apierrors.NewNotFound(of, ""))
	}
	r.wait(key, false)
	if err := r.begin(ctx, &m); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	err := r.rewrite(ctx, of)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	return 0, r.end(ctx, &m, err)
}

// begin says that a migration is running, unless it says so already.
func (r *reconciler) begin(ctx context.Context, m *migrationv1.StorageVersionMigration) error {
	if meta.IsStatusConditionTrue(m.Status.Conditions, string(migrationv1.MigrationRunning)) {
		return nil
	}
	next := m.DeepCopy()
	next.Status.ResourceVersion = m.ResourceVersion // all that is older than this is to be stored anew
	next.Status.Conditions = conditions(m.Status.Conditions, migrationv1.MigrationRunning, "StorageVersionMigrationInProgress", "")
	if err := r.client.Status().Update(ctx, next); err != nil {
		return err
	}
	*m = *next
	return nil
}

// end says how a migration ended: missing is why there was nothing to do.
func (r *reconciler) end(ctx context.Context, m *migrationv1.StorageVersionMigration, missing error) error {
	how, reason, why := migrationv1.MigrationSucceeded, "StorageVersionMigrationSucceeded", ""
	if missing != nil {
		how, reason, why = migrationv1.MigrationFailed, "StorageVersionMigrationFailed",
			fmt.Sprintf("there is no stored resource %s", schema.GroupResource{Group: m.Spec.Resource.Group, Resource: m.Spec.Resource.Resource})
	}
	next := m.DeepCopy()
	next.Status.Conditions = conditions(m.Status.Conditions, how, reason, why)
	return crclient.IgnoreNotFound(r.client.Status().Update(ctx, next))
}

func ended(list []metav1.Condition) bool {
	return meta.IsStatusConditionTrue(list, string(migrationv1.MigrationSucceeded)) || meta.IsStatusConditionTrue(list, string(migrationv1.MigrationFailed))
}

// conditions are the list with one more condition true, and Running no more unless it is that one.
func conditions(list []metav1.Condition, is migrationv1.MigrationConditionType, reason, message string) []metav1.Condition {
	out := append([]metav1.Condition(nil), list...)
	if is != migrationv1.MigrationRunning {
		meta.SetStatusCondition(&out, metav1.Condition{Type: string(migrationv1.MigrationRunning), Status: metav1.ConditionFalse, Reason: reason, Message: message})
	}
	meta.SetStatusCondition(&out, metav1.Condition{Type: string(is), Status: metav1.ConditionTrue, Reason: reason, Message: message})
	return out
}
