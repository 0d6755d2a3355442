package fieldmanager

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
)

// Upstream's parts, as they sign their writes.
const (
	apiServer  = "kube-apiserver"
	controller = "kube-controller-manager"
	kubelet    = "kubelet"
)

// claimed is old as a write from outside must see it: with entries for what parts of Skiff wrote without being tracked.
func (m *Managers) claimed(w Write, old api.Object, reset bool) (api.Object, error) {
	if w.Inside || reset {
		return old, nil
	}
	entries := old.GetManagedFields()
	if by := author(old); len(entries) == 0 && by != "" {
		made, err := m.claim(w.stored(""), by, old)
		if err != nil {
			return nil, err
		}
		created := old.GetCreationTimestamp()
		for i := range made {
			made[i].Time = &created
		}
		entries = made
	}
	if w.Subresource == "status" && !ownsStatus(entries) {
		made, err := m.claim(w.stored("status"), statusAuthor(old), old)
		if err != nil {
			return nil, err
		}
		entries = slices.Concat(entries, made)
	}
	if len(entries) == len(old.GetManagedFields()) {
		return old, nil
	}
	out := shallow(w.Resource, old)
	out.SetManagedFields(entries)
	return out, nil
}

// claim gives all of obj that a subresource may write to one manager.
func (m *Managers) claim(w Write, by string, obj api.Object) ([]metav1.ManagedFieldsEntry, error) {
	f, err := m.of(w)
	if err != nil {
		return nil, err
	}
	all := shallow(w.Resource, obj)
	all.SetManagedFields(nil)
	if _, err := f.Update(empty(w.Resource), all, by); err != nil {
		return nil, err
	}
	return all.GetManagedFields(), nil
}

// author is the part that made an object without entries; "" where nothing about the object tells. Such an object may also be one whose entries
// a user has removed; there upstream's rule for untracked objects holds.
func author(obj api.Object) string {
	if ref := metav1.GetControllerOf(obj); ref != nil {
		return ownersPart(ref)
	}
	if obj.GetLabels()["kubernetes.io/bootstrapping"] != "" {
		return apiServer
	}
	switch o := obj.(type) {
	case *corev1.Node:
		return kubelet
	case *corev1.Namespace:
		if slices.Contains([]string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}, o.Name) {
			return apiServer
		}
	case *corev1.Service, *corev1.Endpoints, *discoveryv1.EndpointSlice: //nolint:staticcheck // Endpoints are still there
		if obj.GetNamespace() == metav1.NamespaceDefault && obj.GetName() == "kubernetes" {
			return apiServer
		}
		if obj.GetLabels()["endpoints.kubernetes.io/managed-by"] != "" {
			return controller
		}
	case *schedulingv1.PriorityClass:
		if strings.HasPrefix(o.Name, "system-") {
			return apiServer
		}
	case *corev1.ServiceAccount:
		if o.Name == "default" {
			return controller
		}
	case *corev1.ConfigMap:
		if o.Name == "kube-root-ca.crt" {
			return controller
		}
	case *rbacv1.ClusterRole:
		if o.AggregationRule != nil {
			return controller
		}
	}
	return ""
}

// ownersPart is the part that makes the objects of a built-in owner.
func ownersPart(ref *metav1.OwnerReference) string {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return ""
	}
	switch gv.Group {
	case "":
		if ref.Kind == "Node" {
			return kubelet
		}
		return controller
	case "apps", "batch":
		return controller
	}
	return ""
}

// statusAuthor is the part that keeps the status of obj's kind.
func statusAuthor(obj api.Object) string {
	switch obj.(type) {
	case *corev1.Pod, *corev1.Node:
		return kubelet
	}
	return controller
}
