package device

import (
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
)

// A node is passed over unasked only where what is asked for is more than what is free.
func TestShort(t *testing.T) {
	exactly := func(count int64, with ...func(e *resourcev1.ExactDeviceRequest)) resourcev1.DeviceRequest {
		e := &resourcev1.ExactDeviceRequest{AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count}
		for _, w := range with {
			w(e)
		}
		return resourcev1.DeviceRequest{Exactly: e}
	}
	either := func(counts ...int64) (r resourcev1.DeviceRequest) {
		for _, n := range counts {
			r.FirstAvailable = append(r.FirstAvailable, resourcev1.DeviceSubRequest{AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: n})
		}
		return r
	}
	looksAfter := func(e *resourcev1.ExactDeviceRequest) { e.AdminAccess = new(true) }
	all := func(e *resourcev1.ExactDeviceRequest) {
		e.AllocationMode, e.Count = resourcev1.DeviceAllocationModeAll, 0
	}
	orAll := either(4, 5)
	orAll.FirstAvailable[1].AllocationMode = resourcev1.DeviceAllocationModeAll
	for _, c := range []struct {
		name     string
		requests []resourcev1.DeviceRequest
		shared   bool
		want     bool
	}{
		{"two of two", []resourcev1.DeviceRequest{exactly(2)}, false, false},
		{"three of two", []resourcev1.DeviceRequest{exactly(3)}, false, true},
		{"two requests of two", []resourcev1.DeviceRequest{exactly(1), exactly(1)}, false, false},
		{"two requests of three", []resourcev1.DeviceRequest{exactly(1), exactly(2)}, false, true},
		{"one alternative of two", []resourcev1.DeviceRequest{either(5, 2)}, false, false},
		{"alternatives of more", []resourcev1.DeviceRequest{either(5, 3)}, false, true},
		{"an alternative of all", []resourcev1.DeviceRequest{orAll}, false, false},
		{"all", []resourcev1.DeviceRequest{exactly(0, all)}, false, false},
		{"who looks after devices does not take them", []resourcev1.DeviceRequest{exactly(3, looksAfter)}, false, false},
		{"a device for several", []resourcev1.DeviceRequest{exactly(5)}, true, false},
	} {
		b := NewBook(nil)
		b.ClaimChanged(nil, claim("other", allocation("gpu")))
		s := &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Driver: "d", Pool: resourcev1.ResourcePool{Name: "p"},
			Devices: []resourcev1.Device{{Name: "gpu"}, {Name: "one"}, {Name: "two"}}}} // of which the first is taken
		if c.shared {
			s.Spec.Devices[1].AllowMultipleAllocations = new(true)
		}
		open := claim("c", nil)
		open.Spec.Devices.Requests = c.requests
		if got := b.short([]*resourcev1.ResourceClaim{open}, []*resourcev1.ResourceSlice{s}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
