package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry"
)

// topologyLabels (PodTopologyLabels, KEP-4742) tells a pod where its node stands: the binding carries the node's zone and region to it.
func topologyLabels(ctx context.Context, a *registry.Attributes) error {
	b, ok := a.Object.(*corev1.Binding)
	if !ok || a.Operation != create || b.Target.Kind != "" && b.Target.Kind != "Node" {
		return nil
	}
	if a.Resource.Plural != "bindings" && a.Subresource != "binding" {
		return nil
	}
	node, err := find[*corev1.Node](ctx, a, "", "nodes", b.Target.Name)
	if err != nil || node == nil {
		return err
	}
	for _, label := range [...]string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		if v, found := node.Labels[label]; found {
			metav1.SetMetaDataLabel(&b.ObjectMeta, label, v)
		}
	}
	return nil
}
