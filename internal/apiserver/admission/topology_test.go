package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestDefaultIngressClass(t *testing.T) {
	r := start(t)
	ingress := func(name string, change func(*networkingv1.Ingress)) string {
		t.Helper()
		i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: networkingv1.IngressSpec{
			DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}},
		}}
		change(i)
		made, err := r.Create(registrytest.Admin, i)
		if err != nil {
			t.Fatal(err)
		}
		if class := made.(*networkingv1.Ingress).Spec.IngressClassName; class != nil {
			return *class
		}
		return "none"
	}
	plain := func(*networkingv1.Ingress) {}
	if got := ingress("early", plain); got != "none" {
		t.Errorf("without a default class: %s", got)
	}
	r.Must(
		&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
			Spec: networkingv1.IngressClassSpec{Controller: "example.com/b"}},
		&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: networkingv1.IngressClassSpec{Controller: "example.com/a"}},
	)
	named := "a"
	for name, c := range map[string]struct {
		change func(*networkingv1.Ingress)
		want   string
	}{
		"unnamed":   {plain, "b"},
		"named":     {func(i *networkingv1.Ingress) { i.Spec.IngressClassName = &named }, "a"},
		"annotated": {func(i *networkingv1.Ingress) { i.Annotations = map[string]string{"kubernetes.io/ingress.class": "old"} }, "none"},
	} {
		if got := ingress(name, c.change); got != c.want {
			t.Errorf("%s: class %s, want %s", name, got, c.want)
		}
	}
}

func TestBindingCarriesTheNodesTopology(t *testing.T) {
	r := start(t)
	r.Must(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z1", "rack": "7"}}}, registrytest.Pod("p"))
	b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if _, err := r.Registry.Create(t.Context(), r.Request(registrytest.Admin, "", "pods", "binding", "default", "p"), b, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bound, err := r.Get(t.Context(), r.Request(registrytest.Admin, "", "pods", "", "default", "p"), &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := bound.Object.(*corev1.Pod)
	if p.Labels[corev1.LabelTopologyZone] != "z1" || p.Labels["rack"] != "" || p.Spec.NodeName != "n" {
		t.Errorf("node %s, labels %v", p.Spec.NodeName, p.Labels)
	}
}
