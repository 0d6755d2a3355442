package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func gang(name string, change func(*schedulingv1beta1.PodGroup)) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: 2}
	change(g)
	return g
}

func TestPodGroups(t *testing.T) {
	admit, validate := Default()
	r := registrytest.StartServing(t, []string{api.PodGroupAPI}, admit, validate)
	r.Must(registrytest.Account("default"), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000})
	for class, want := range map[string]int32{"": 0, "high": 1000} {
		obj, err := r.Create(registrytest.Admin, gang("g"+class, func(g *schedulingv1beta1.PodGroup) { g.Spec.PriorityClassName = class }))
		if err != nil {
			t.Fatal(err)
		}
		g := obj.(*schedulingv1beta1.PodGroup)
		if *g.Spec.Priority != want || len(g.Finalizers) != 1 || g.Finalizers[0] != "scheduling.k8s.io/podgroup-protection" || g.Spec.DisruptionMode.Single == nil {
			t.Errorf("class %q gives priority %d; finalizers %v", class, *g.Spec.Priority, g.Finalizers)
		}
		changed := g.DeepCopy()
		changed.Spec.Priority = nil // a client that knows nothing of it
		changed.Spec.SchedulingPolicy.Gang.MinCount = 3
		if err := r.Update(registrytest.Admin, changed, ""); err != nil {
			t.Errorf("change the least number of pods: %v", err)
		}
	}
	_, err := r.Create(registrytest.Admin, gang("x", func(g *schedulingv1beta1.PodGroup) { g.Spec.PriorityClassName = "none" }))
	refused(t, err, 403, `podgroups.scheduling.k8s.io "x" is forbidden: no PriorityClass with name none was found`)
	_, err = r.Create(registrytest.Admin, gang("y", func(g *schedulingv1beta1.PodGroup) { g.Spec.Priority = new(int32(5)) }))
	refused(t, err, 403, "the integer value of priority (5) must not be provided in pod group spec")
	obj, err := r.Create(registrytest.Admin, registrytest.Pod("member", func(p *corev1.Pod) {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: new("g")}
	}))
	if err != nil || api.PodGroupName(obj.(*corev1.Pod)) != "g" {
		t.Errorf("a pod of a group: %v", err)
	}
}
