// Package tokencleaner deletes bootstrap tokens that have expired.
package tokencleaner

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

const secretType = corev1.SecretType("bootstrap.kubernetes.io/token")

type reconciler struct {
	client client.Client
	now    func() time.Time
}

// New returns the controller. Its keys are secrets.
func New(c client.Client) harness.Controller {
	r := &reconciler{c, time.Now}
	return harness.Controller{
		Watches: []harness.Watch{harness.On(&corev1.Secret{}, func(_, current *corev1.Secret) []harness.Key {
			if current == nil || current.Type != secretType || current.Namespace != "kube-system" {
				return nil
			}
			return []harness.Key{crclient.ObjectKeyFromObject(current)}
		})},
		Reconcile: r.reconcile,
	}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var secret corev1.Secret
	if err := r.client.Get(ctx, key, &secret); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	until, err := time.Parse(time.RFC3339, string(secret.Data["expiration"]))
	if err != nil {
		return 0, nil // it does not expire, or cannot be used at all
	}
	if left := until.Sub(r.now()); left > 0 {
		return left, nil
	}
	uid := secret.UID
	if err := r.client.Delete(ctx, secret.DeepCopy(), crclient.Preconditions{UID: &uid}); crclient.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("delete the expired token %s: %w", key.Name, err)
	}
	return 0, nil
}
