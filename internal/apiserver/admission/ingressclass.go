package admission

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// defaultIngressClass (DefaultIngressClass) gives new Ingresses that name no class the default one: the newest of those marked so.
func defaultIngressClass(ctx context.Context, a *registry.Attributes) error {
	ingress, ok := a.Object.(*networkingv1.Ingress)
	if !ok || !is(a, "networking.k8s.io", "ingresses") || a.Operation != create || api.NamesIngressClass(ingress) {
		return nil
	}
	classes, err := all[*networkingv1.IngressClass](ctx, a, "networking.k8s.io", "ingressclasses", "")
	if err != nil {
		return forbid(a, err)
	}
	if class := api.NewestDefaultIngressClass(classes); class != nil {
		name := class.Name
		ingress.Spec.IngressClassName = &name
	}
	return nil
}
