package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// A pod is not made larger than its node, and only on Linux at all.
func TestResizesFitTheNode(t *testing.T) {
	r := start(t)
	for name, labels := range map[string]map[string]string{
		"here": {corev1.LabelOSStable: "linux"}, "elsewhere": {corev1.LabelOSStable: "windows"}, "silent": {}, "blank": {corev1.LabelOSStable: ""},
	} {
		r.Must(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Status:     corev1.NodeStatus{Allocatable: corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi")}},
		})
	}
	for name, c := range map[string]struct {
		node, cpu, memory string
		cause             metav1.CauseType
		why               string // "": it is let through
	}{
		"all-of-it":              {"here", "2", "1Gi", "", ""},
		"cpu":                    {"here", "2001m", "1Gi", "NodeCapacity", "node didn't have enough allocatable resources: cpu, requested: 2001, allocatable: 2000"},
		"both":                   {"here", "3", "2Gi", "NodeCapacity", "cpu, requested: 3000, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824"},
		"other-os":               {"elsewhere", "1", "1Gi", "UnsupportedPlatform", `pod resize is only supported on linux nodes, node "elsewhere" is "windows"`},
		"other-os-and-too-large": {"elsewhere", "9", "9Gi", "UnsupportedPlatform", `node "elsewhere" is "windows"`},
		"no-os":                  {"silent", "2", "1Gi", "", ""},
		"no-os-and-too-large":    {"silent", "3", "1Gi", "NodeCapacity", "cpu, requested: 3000, allocatable: 2000"},
		"blank-os":               {"blank", "1", "1Gi", "UnsupportedPlatform", `node "blank" is ""`},
		"no-node":                {"", "9", "9Gi", "", ""},
		"gone":                   {"gone", "1", "1Gi", "", `node "gone" not found`},
		"unchanged":              {"gone", "500m", "512Mi", "", ""},
		"made-small":             {"here", "100m", "1Mi", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			sized := func(cpu, memory string) corev1.ResourceRequirements {
				return corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}}
			}
			made, err := r.Create(registrytest.Admin, registrytest.Pod(name, func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources, p.Spec.NodeName = sized("500m", "512Mi"), c.node
			}))
			if err != nil {
				t.Fatal(err)
			}
			next := made.(*corev1.Pod).DeepCopy()
			next.Spec.Containers[0].Resources = sized(c.cpu, c.memory)
			err = r.Update(registrytest.Admin, next, "resize")
			switch {
			case c.why == "" && err != nil:
				t.Error(err)
			case c.why != "":
				refused(t, err, 403, c.why)
				if c.cause != "" && !apierrors.HasStatusCause(err, c.cause) {
					t.Errorf("no cause %s in %v", c.cause, err)
				}
			}
		})
	}
}
