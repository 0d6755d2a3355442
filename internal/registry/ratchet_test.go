package registry_test

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// What was stored under older rules may be changed otherwise, but not made worse.
func TestOldErrorsStay(t *testing.T) {
	f := start(t)
	block := func(cidr string) networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}}}
	}
	old := &networkingv1.NetworkPolicy{ObjectMeta: meta("n"), Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{block("10.0.0.5/8")}}}
	row := f.About(registrytest.Admin, old, "").Resource
	rules := row.Validate
	row.Validate = nil
	old = create(f, old)
	row.Validate = rules
	next := old.DeepCopy()
	next.Labels = map[string]string{"a": "b"}
	next.Spec.Ingress = append(next.Spec.Ingress, block("10.0.0.0/16"))
	if next = mustUpdate(f, next, ""); next.Labels["a"] != "b" || len(next.Spec.Ingress) != 2 {
		t.Errorf("%+v", next)
	}
	next.Spec.Ingress[1] = block("10.0.0.5/16")
	_, err := update(f, next, "")
	refused(t, err, 422, "spec.ingress[1].from[0].ipBlock.cidr")
}
