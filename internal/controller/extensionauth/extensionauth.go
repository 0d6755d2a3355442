// Package extensionauth publishes what API servers behind this one need to know whom to believe: the ConfigMap extension-apiserver-authentication in
// kube-system. A copy that somebody changed or deleted is repaired.
package extensionauth

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

const name = "extension-apiserver-authentication"

type reconciler struct {
	client    client.Client
	data      map[string]string
	published func()
}

// New returns the controller. Its one key is the ConfigMap. published, which may be nil, is called whenever that is as it should be.
func New(c client.Client, data map[string]string, published func()) harness.Controller {
	r := &reconciler{c, data, published}
	key := []harness.Key{{Namespace: metav1.NamespaceSystem, Name: name}}
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&corev1.Namespace{}, func(_, ns *corev1.Namespace) []harness.Key {
				if ns == nil || ns.Name != metav1.NamespaceSystem {
					return nil
				}
				return key
			}),
			harness.On(&corev1.ConfigMap{}, func(old, _ *corev1.ConfigMap) []harness.Key {
				if old == nil || old.Namespace != metav1.NamespaceSystem || old.Name != name {
					return nil
				}
				return key
			}),
		},
		Reconcile: r.reconcile,
	}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	if len(r.data) == 0 {
		return 0, nil
	}
	var present corev1.ConfigMap
	err := r.client.Get(ctx, key, &present)
	switch {
	case apierrors.IsNotFound(err):
		err = crclient.IgnoreAlreadyExists(r.client.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Data: maps.Clone(r.data),
		}))
	case err != nil || maps.Equal(present.Data, r.data):
	default:
		changed := present.DeepCopy()
		changed.Data = maps.Clone(r.data)
		err = r.client.Update(ctx, changed)
	}
	if err != nil {
		return 0, fmt.Errorf("publish whom API servers believe: %w", err)
	}
	if r.published != nil {
		r.published()
	}
	return 0, nil
}
