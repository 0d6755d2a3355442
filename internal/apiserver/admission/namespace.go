package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry"
)

// namespaceExists (NamespaceLifecycle) refuses writes into a namespace that isn't there, and new objects in one that is going away.
func namespaceExists(ctx context.Context, a *registry.Attributes) error {
	// Reviews are let through: whether a namespace exists is none of their answer's business.
	if !a.Resource.Namespaced || a.Namespace == "" || a.Operation == remove || a.Resource.Group == "authorization.k8s.io" {
		return nil
	}
	ns, err := find[*corev1.Namespace](ctx, a, "", "namespaces", a.Namespace)
	switch {
	case err != nil:
		return err
	case ns == nil:
		return apierrors.NewNotFound(corev1.Resource("namespaces"), a.Namespace)
	case a.Operation != create || ns.Status.Phase != corev1.NamespaceTerminating && ns.DeletionTimestamp == nil:
		return nil
	}
	refusal := forbid(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", a.Namespace))
	refusal.ErrStatus.Details.Causes = append(refusal.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", a.Namespace),
		Field:   "metadata.namespace",
	})
	return refusal
}

// namespaceProtected (NamespaceLifecycle) keeps the namespaces that the cluster can't be without.
func namespaceProtected(_ context.Context, a *registry.Attributes) error {
	if a.Operation != remove || !is(a, "", "namespaces") {
		return nil
	}
	switch a.Name {
	case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
		return forbid(a, errors.New("this namespace may not be deleted"))
	}
	return nil
}
