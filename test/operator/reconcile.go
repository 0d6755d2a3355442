package operator

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const finalizer = "bees.example.com/hive"

type reconciler struct {
	client.Client
	events events.EventRecorder
}

// Reconcile sees to one hive.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	hive := &Hive{}
	if err := r.Get(ctx, req.NamespacedName, hive); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !hive.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(hive, finalizer) {
			return reconcile.Result{}, client.IgnoreNotFound(r.Update(ctx, hive))
		}
		return reconcile.Result{}, nil
	}
	if controllerutil.AddFinalizer(hive, finalizer) {
		return reconcile.Result{}, r.Update(ctx, hive) // which wakes it again
	}
	if err := r.count(ctx, hive); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, r.report(ctx, hive)
}

// count keeps the hive's ConfigMap.
func (r *reconciler) count(ctx context.Context, hive *Hive) error {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: hive.Namespace, Name: hive.Name + "-bees"}}
	what, err := controllerutil.CreateOrUpdate(ctx, r.Client, m, func() error {
		m.Data = map[string]string{"bees": strconv.Itoa(hive.Spec.Bees)}
		return controllerutil.SetControllerReference(hive, m, r.Scheme())
	})
	if err == nil && what != controllerutil.OperationResultNone {
		r.events.Eventf(hive, m, corev1.EventTypeNormal, "Counted", "Count", "the ConfigMap was %s", what)
	}
	return err
}

// report writes the hive's status, if it is news.
func (r *reconciler) report(ctx context.Context, hive *Hive) error {
	news := meta.SetStatusCondition(&hive.Status.Conditions, metav1.Condition{
		Type: "Ready", Status: metav1.ConditionTrue, Reason: "Counted", ObservedGeneration: hive.Generation,
	})
	if !news && hive.Status.ObservedGeneration == hive.Generation {
		return nil
	}
	hive.Status.ObservedGeneration = hive.Generation
	return r.Status().Update(ctx, hive)
}
