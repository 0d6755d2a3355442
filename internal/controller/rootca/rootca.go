// Package rootca publishes the cluster's certificate authority in every namespace, where pods mount it to trust the API server. A copy that
// somebody changed is repaired.
package rootca

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

// Where the authority is published, and what is said about it.
const (
	name           = "kube-root-ca.crt"
	key            = "ca.crt"
	descriptionKey = "kubernetes.io/description"
	description    = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP " +
		"or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

type reconciler struct {
	client client.Client
	data   map[string]string
}

// New returns the controller; ca is PEM. Its keys are namespaces.
func New(c client.Client, ca []byte) harness.Controller {
	r := &reconciler{client: c, data: map[string]string{key: string(ca)}}
	return harness.Controller{
		Workers:   2,
		Watches:   []harness.Watch{harness.Self(&corev1.Namespace{}), harness.On(&corev1.ConfigMap{}, configMapChanged)},
		Reconcile: r.reconcile,
	}
}

func configMapChanged(old, current *corev1.ConfigMap) []harness.Key {
	if old == nil {
		return nil // the namespace's own event covers what is there at the start
	}
	if old.Name != name {
		return nil
	}
	return []harness.Key{{Name: old.Namespace}}
}

func (r *reconciler) reconcile(ctx context.Context, ns harness.Key) (time.Duration, error) {
	var namespace corev1.Namespace
	if err := r.client.Get(ctx, ns, &namespace); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if namespace.DeletionTimestamp != nil || namespace.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	var present corev1.ConfigMap
	err := r.client.Get(ctx, crclient.ObjectKey{Namespace: ns.Name, Name: name}, &present)
	switch {
	case apierrors.IsNotFound(err):
		err = r.client.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name, Annotations: map[string]string{descriptionKey: description}},
			Data:       maps.Clone(r.data),
		})
		if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, nil
		}
	case err != nil:
		return 0, err
	case maps.Equal(present.Data, r.data) && len(present.BinaryData) == 0 && present.Annotations[descriptionKey] != "":
		return 0, nil
	default:
		changed := present.DeepCopy()
		changed.Data, changed.BinaryData = maps.Clone(r.data), nil
		if changed.Annotations[descriptionKey] == "" {
			changed.Annotations = maps.Clone(changed.Annotations)
			if changed.Annotations == nil {
				changed.Annotations = map[string]string{}
			}
			changed.Annotations[descriptionKey] = description
		}
		err = r.client.Update(ctx, changed)
	}
	if err != nil {
		return 0, fmt.Errorf("publish the authority in namespace %s: %w", ns.Name, err)
	}
	return 0, nil
}
