package device

import (
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/structured"
)

func allocation(device string) *resourcev1.AllocationResult {
	return &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
		Results: []resourcev1.DeviceRequestAllocationResult{{Driver: "d", Pool: "p", Device: device}}}}
}

func claim(uid types.UID, a *resourcev1.AllocationResult) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: string(uid), UID: uid}, Status: resourcev1.ResourceClaimStatus{Allocation: a}}
}

// A promised device is nobody else's from the promise until its claim gives it back, whatever comes in between.
func TestPromises(t *testing.T) {
	const pod = types.UID("pod")
	open := []Claimed{{claim("c", nil), allocation("gpu")}}
	written := func(b *Book) { b.ClaimChanged(claim("c", nil), claim("c", allocation("gpu"))) }
	for _, one := range []struct {
		name string
		do   func(b *Book)
		free bool
	}{
		{"being written", func(*Book) {}, false},
		{"being written, and the pod gone", func(b *Book) { b.Forget(pod) }, false},
		{"written, and not seen yet", func(b *Book) { b.Kept(pod, open, []Outcome{Written}) }, false},
		{"written for a pod that is gone", func(b *Book) { b.Forget(pod); b.Kept(pod, open, []Outcome{Written}) }, false},
		{"written and seen", func(b *Book) { b.Kept(pod, open, []Outcome{Written}); written(b) }, false},
		{"seen before it is known to be written", func(b *Book) { written(b); b.Kept(pod, open, []Outcome{Written}) }, false},
		{"seen without devices, which is older news", func(b *Book) { b.ClaimChanged(claim("c", nil), claim("c", nil)) }, false},
		{"refused", func(b *Book) { b.Kept(pod, open, []Outcome{Refused}) }, true},
		{"not come to", func(b *Book) { b.Kept(pod, open, nil) }, true},
		{"refused, and another pod counts on it", func(b *Book) { b.Promise("other", open); b.Kept(pod, open, nil) }, false},
		{"in doubt", func(b *Book) { b.Kept(pod, open, []Outcome{Unknown}) }, false},
		{"in doubt, and then given up", func(b *Book) { b.Kept(pod, open, []Outcome{Unknown}); b.Forget(pod) }, true},
		{"in doubt for a pod that is gone", func(b *Book) { b.Forget(pod); b.Kept(pod, open, []Outcome{Unknown}) }, true},
		{"its claim deleted", func(b *Book) { b.ClaimChanged(claim("c", nil), nil) }, true},
		{"given back", func(b *Book) { written(b); b.ClaimChanged(claim("c", allocation("gpu")), claim("c", nil)) }, true},
		{"had by two, given back by one", func(b *Book) {
			written(b)
			b.ClaimChanged(nil, claim("c2", allocation("gpu")))
			b.ClaimChanged(claim("c", allocation("gpu")), nil)
		}, false},
	} {
		b := NewBook(nil)
		b.ClaimChanged(nil, claim("c", nil))
		b.Promise(pod, open)
		one.do(b)
		if taken := b.taken.Has(structured.MakeDeviceID("d", "p", "gpu")); taken == one.free {
			t.Errorf("%s: taken %t", one.name, taken)
		}
	}
}

// Whoever looks after a device does not have it.
func TestAdminAccess(t *testing.T) {
	b := NewBook(nil)
	a := allocation("gpu")
	a.Devices.Results[0].AdminAccess = new(true)
	b.ClaimChanged(nil, claim("c", a))
	if len(b.taken) != 0 {
		t.Error("taken", b.taken)
	}
}

// Rules taint devices on a copy, and only those they select; slices come in the order of their names, the node's first.
func TestOffered(t *testing.T) {
	b := NewBook(nil)
	node := "n"
	slice := func(name string, on *string, devices ...string) *resourcev1.ResourceSlice {
		s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceSliceSpec{Driver: "d", NodeName: on, Pool: resourcev1.ResourcePool{Name: "p"}}}
		for _, d := range devices {
			s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: d})
		}
		return s
	}
	original := slice("b", &node, "x", "y")
	b.SliceChanged(nil, original)
	b.SliceChanged(nil, slice("a", &node, "z"))
	b.SliceChanged(nil, slice("everywhere", nil, "w"))
	b.RuleChanged(nil, &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Device: new("y")}, Taint: resourcev1.DeviceTaint{Key: "broken"}}})
	got := b.offered(node)
	if len(got) != 3 || got[0].Name != "a" || got[1].Name != "b" || got[2].Name != "everywhere" {
		t.Fatalf("offered %v", got)
	}
	if d := got[1].Spec.Devices; len(d[0].Taints) != 0 || len(d[1].Taints) != 1 || len(original.Spec.Devices[1].Taints) != 0 {
		t.Errorf("devices %v, original %v", d, original.Spec.Devices)
	}
	if other := b.offered("other"); len(other) != 1 || other[0].Name != "everywhere" {
		t.Errorf("another node is offered %v", other)
	}
	b.SliceChanged(original, nil)
	if got := b.offered(node); len(got) != 2 {
		t.Errorf("after one is gone %v", got)
	}
}
