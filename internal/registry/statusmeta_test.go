package registry_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// A write to status may annotate, as upstream's conformance suite does all along; the kinds that came later keep all of their metadata.
func TestStatusWritesAnnotate(t *testing.T) {
	f := start(t)
	annotate := func(q string) []byte {
		return []byte(`{"metadata":{"labels":{"l":"1"},"annotations":{"patched":"` + q + `"}}}`)
	}
	d := create(f, workload("a"))
	q := f.About(registrytest.Admin, d, "status")
	out, err := f.Registry.Registry.Patch(ctx, q, types.MergePatchType, annotate("1"), &metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Object.(*appsv1.Deployment); got.Annotations["patched"] != "1" || len(got.Labels) != 0 || got.Generation != 1 {
		t.Errorf("a Deployment: annotations %v, labels %v, generation %d", got.Annotations, got.Labels, got.Generation)
	}
	pod := create(f, registrytest.Pod("p"))
	out, err = f.Registry.Registry.Patch(ctx, f.About(registrytest.Admin, pod, "status"), types.MergePatchType, annotate("1"), &metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Object.(*corev1.Pod); got.Annotations["patched"] != "1" || got.Labels["l"] != "1" {
		t.Errorf("a Pod: annotations %v, labels %v", got.Annotations, got.Labels)
	}
	ranges := create(f, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.9.0.0/24"}}})
	out, err = f.Registry.Registry.Patch(ctx, f.About(registrytest.Admin, ranges, "status"), types.MergePatchType, annotate("1"), &metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Object.(*networkingv1.ServiceCIDR); len(got.Annotations)+len(got.Labels) != 0 {
		t.Errorf("a ServiceCIDR: annotations %v, labels %v", got.Annotations, got.Labels)
	}
}

// Annotations of a Deployment count for its generation, for its ReplicaSets get them; labels do not.
func TestGenerationCounts(t *testing.T) {
	f := start(t)
	d := create(f, workload("a"))
	d.Labels = map[string]string{"a": "b"}
	if d = mustUpdate(f, d, ""); d.Generation != 1 {
		t.Errorf("generation %d after a change of labels", d.Generation)
	}
	d.Annotations = map[string]string{"a": "b"}
	if d = mustUpdate(f, d, ""); d.Generation != 2 {
		t.Errorf("generation %d after a change of annotations", d.Generation)
	}
}
