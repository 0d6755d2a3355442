package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestRuntimeClasses(t *testing.T) {
	r := start(t)
	r.Must(
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Handler: "runc"},
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "heavy"}, Handler: "vm", Overhead: &nodev1.Overhead{PodFixed: list("250m")}, Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"vm": "yes"}, Tolerations: []corev1.Toleration{{Key: "vm", Operator: corev1.TolerationOpExists}},
		}},
	)
	of := func(class string, more ...func(*corev1.Pod)) *corev1.Pod {
		return registrytest.Pod("p-"+class, append(more, func(p *corev1.Pod) { p.Spec.RuntimeClassName = &class })...)
	}
	obj, err := r.Create(registrytest.Admin, of("heavy", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "fast"} }))
	if err != nil {
		t.Fatal(err)
	}
	p := obj.(*corev1.Pod)
	if p.Spec.Overhead.Cpu().String() != "250m" || len(p.Spec.NodeSelector) != 2 || p.Spec.Tolerations[0].Key != "vm" && p.Spec.Tolerations[2].Key != "vm" {
		t.Errorf("overhead %v, selector %v, tolerations %v", p.Spec.Overhead, p.Spec.NodeSelector, p.Spec.Tolerations)
	}
	if _, err := r.Create(registrytest.Admin, of("plain")); err != nil {
		t.Error(err)
	}
	_, err = r.Create(registrytest.Admin, of("none"))
	refused(t, err, 403, `pods "p-none" is forbidden: pod rejected: RuntimeClass "none" not found`)
	overhead := func(p *corev1.Pod) { p.Spec.Overhead = list("1") }
	_, err = r.Create(registrytest.Admin, of("heavy", overhead))
	refused(t, err, 403, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	_, err = r.Create(registrytest.Admin, of("plain", overhead))
	refused(t, err, 403, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	_, err = r.Create(registrytest.Admin, of("heavy", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"vm": "no"} }))
	refused(t, err, 403, "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no")
}
