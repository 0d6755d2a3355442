// Package serviceaccount gives every namespace its service account "default", which pods get that name none.
package serviceaccount

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// name of the account each namespace has.
const name = "default"

type reconciler struct{ client client.Client }

// New returns the controller. Its keys are namespaces.
func New(c client.Client) harness.Controller {
	r := &reconciler{client: c}
	return harness.Controller{
		Workers:   2,
		Watches:   []harness.Watch{harness.Self(&corev1.Namespace{}), harness.On(&corev1.ServiceAccount{}, accountChanged)},
		Reconcile: r.reconcile,
	}
}

func accountChanged(old, current *corev1.ServiceAccount) []harness.Key {
	if current == nil && old.Name == name {
		return []harness.Key{{Name: old.Namespace}}
	}
	return nil
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var ns corev1.Namespace
	if err := r.client.Get(ctx, key, &ns); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	var account corev1.ServiceAccount
	err := r.client.Get(ctx, crclient.ObjectKey{Namespace: key.Name, Name: name}, &account)
	if err == nil || !apierrors.IsNotFound(err) {
		return 0, err
	}
	err = r.client.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key.Name, Name: name}})
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return 0, fmt.Errorf("create service account %s/%s: %w", key.Name, name, err)
	}
	return 0, nil
}
