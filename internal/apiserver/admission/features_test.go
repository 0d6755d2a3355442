package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// A pod is not changed in a way for which its node lacks a feature; other changes, and pods without a node, are none of this.
func TestDeclaredFeatures(t *testing.T) {
	cpu := func(q string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(q)}}
	}
	ofPod := func(q string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Resources = new(cpu(q)) } }
	ofInit := func(q string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i", Resources: cpu(q)}}
		}
	}
	ofContainer := func(q string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers[0].Resources = cpu(q) }
	}
	r := start(t)
	for name, features := range map[string][]string{"old": nil, "new": {"InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"}} {
		r.Must(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: "linux"}},
			Status:     corev1.NodeStatus{DeclaredFeatures: features, Allocatable: cpu("9").Requests},
		})
	}
	for name, c := range map[string]struct {
		node           string
		before, change func(*corev1.Pod)
		why            string // "": it is let through
	}{
		"pod":              {"new", ofPod("1"), ofPod("2"), ""},
		"pod-old":          {"old", ofPod("1"), ofPod("2"), `pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node "old"`},
		"pod-nowhere":      {"gone", ofPod("1"), ofPod("2"), `node "gone" not found`},
		"init":             {"new", ofInit("1"), ofInit("2"), ""},
		"init-old":         {"old", ofInit("1"), ofInit("2"), `pod update requires features InPlacePodVerticalScalingInitContainers which are not available on node "old"`},
		"container":        {"old", ofContainer("1"), ofContainer("2"), ""},
		"the-same":         {"old", ofPod("1"), ofPod("1000m"), ""},
		"without-a-node":   {"", ofPod("1"), ofPod("2"), ""},
		"container-of-pod": {"old", func(p *corev1.Pod) { ofPod("3")(p); ofContainer("1")(p) }, ofContainer("2"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			made, err := r.Create(registrytest.Admin, registrytest.Pod(name, func(p *corev1.Pod) { c.before(p); p.Spec.NodeName = c.node }))
			if err != nil {
				t.Fatal(err)
			}
			next := made.(*corev1.Pod).DeepCopy()
			c.change(next)
			switch err := r.Update(registrytest.Admin, next, "resize"); {
			case c.why != "":
				refused(t, err, 403, `pods "`+name+`" is forbidden: `+c.why)
			case err != nil:
				t.Error(err)
			}
		})
	}
}
