package device

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Devices count on the nodes that can use them, if the class selects them, in use if anybody has them; what changes is seen.
func TestCount(t *testing.T) {
	where := func(zone string) *corev1.NodeSelector {
		return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{zone}}}}}}
	}
	device := func(name, model string) resourcev1.Device {
		return resourcev1.Device{Name: name, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: &model}}}
	}
	slice := func(name string, spec resourcev1.ResourceSliceSpec, devices ...resourcev1.Device) *resourcev1.ResourceSlice {
		spec.Driver, spec.Pool.Name, spec.Devices = "d", "p", devices
		return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	}
	class := func(name string, expressions ...string) *resourcev1.DeviceClass {
		c := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, e := range expressions {
			c.Spec.Selectors = append(c.Spec.Selectors, resourcev1.DeviceSelector{CEL: &resourcev1.CELDeviceSelector{Expression: e}})
		}
		return c
	}
	small := `device.attributes["d"].model == "small"`
	own, east, other := device("own", "small"), device("east", "small"), device("other", "small")
	own.NodeName, east.NodeSelector, other.NodeName = new("n"), where("east"), new("m")
	b := NewBook(nil)
	b.SliceChanged(nil, slice("1", resourcev1.ResourceSliceSpec{NodeName: new("n")}, device("a", "small"), device("b", "small"), device("c", "big")))
	b.SliceChanged(nil, slice("2", resourcev1.ResourceSliceSpec{NodeName: new("m")}, device("m", "small")))
	b.SliceChanged(nil, slice("3", resourcev1.ResourceSliceSpec{AllNodes: new(true)}, device("all", "small")))
	b.SliceChanged(nil, slice("4", resourcev1.ResourceSliceSpec{NodeSelector: where("west")}, device("west", "small")))
	b.SliceChanged(nil, slice("5", resourcev1.ResourceSliceSpec{PerDeviceNodeSelection: new(true)}, own, east, other))
	for _, c := range []*resourcev1.DeviceClass{class("any"), class("small", small), class("none", small, "false"), class("wrong", "1 +"), class("failing", `device.attributes["d"].nothing == 1`)} {
		b.ClassChanged(nil, c)
	}
	b.ClaimChanged(nil, claim("c", allocation("a")))
	b.ClaimChanged(nil, claim("d", allocation("m")))
	want := func(what, class string, used, all int64) {
		t.Helper()
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "east"}}}
		if u, a := b.Count(corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+class), node); u != used || a != all {
			t.Errorf("%s: %d of %d %s in use, want %d of %d", what, u, a, class, used, all)
		}
	}
	want("at first", "any", 1, 6)
	want("at first", "small", 1, 5)
	want("at first", "none", 0, 0)
	want("at first", "wrong", 0, 0)
	want("at first", "failing", 0, 0)
	want("at first", "unknown", 0, 0)
	b.ClaimChanged(nil, claim("e", allocation("b")))
	want("with another claim", "small", 2, 5)
	b.SliceChanged(nil, slice("1", resourcev1.ResourceSliceSpec{NodeName: new("n")}, device("a", "big"), device("b", "small"), device("c", "big")))
	want("with another slice", "small", 1, 4)
	b.ClassChanged(nil, class("small", `device.attributes["d"].model == "big"`))
	want("with another class", "small", 1, 2)
}
