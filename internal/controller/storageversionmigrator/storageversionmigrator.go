// Package storageversionmigrator carries out StorageVersionMigrations: all objects of a resource are stored anew, so that nothing is left of an
// older version or an older encryption key.
//
// A migration's conditions are its progress: Running once it has begun, then Succeeded or Failed, for good. One that was interrupted begins again.
package storageversionmigrator

import (
	"context"
	"fmt"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// Rewrite stores all objects of a resource anew; NotFound says that there is no such resource.
type Rewrite func(ctx context.Context, of schema.GroupResource) error

type reconciler struct {
	client  client.Client
	rewrite Rewrite
}

// New returns the controller. Its keys are migrations, one at a time.
func New(c client.Client, rewrite Rewrite) harness.Controller {
	r := &reconciler{client: c, rewrite: rewrite}
	return harness.Controller{Watches: []harness.Watch{harness.Self(&migrationv1.StorageVersionMigration{})}, Reconcile: r.reconcile}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var m migrationv1.StorageVersionMigration
	if err := r.client.Get(ctx, key, &m); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if m.DeletionTimestamp != nil || ended(m.Status.Conditions) {
		return 0, nil
	}
	of := schema.GroupResource{Group: m.Spec.Resource.Group, Resource: m.Spec.Resource.Resource}
	if !meta.IsStatusConditionTrue(m.Status.Conditions, string(migrationv1.MigrationRunning)) {
		next := m.DeepCopy()
		next.Status.ResourceVersion = m.ResourceVersion // all that is older than this is to be stored anew
		next.Status.Conditions = conditions(m.Status.Conditions, migrationv1.MigrationRunning, "StorageVersionMigrationInProgress", "")
		if err := r.client.Status().Update(ctx, next); err != nil {
			return 0, crclient.IgnoreNotFound(err)
		}
		m = *next
	}
	end, reason, why := migrationv1.MigrationSucceeded, "StorageVersionMigrationSucceeded", ""
	switch err := r.rewrite(ctx, of); {
	case apierrors.IsNotFound(err):
		end, reason, why = migrationv1.MigrationFailed, "StorageVersionMigrationFailed", fmt.Sprintf("there is no stored resource %s", of)
	case err != nil:
		return 0, err
	}
	next := m.DeepCopy()
	next.Status.Conditions = conditions(m.Status.Conditions, end, reason, why)
	return 0, crclient.IgnoreNotFound(r.client.Status().Update(ctx, next))
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
