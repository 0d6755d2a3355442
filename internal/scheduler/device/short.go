package device

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/structured"
)

// short says that a node has fewer free devices than claims ask for, whatever they are to be like: counted in a hundredth of the time in which the allocator
// would find out, which matters where most nodes are full and one is looked for that is not.
func (b *Book) short(open []*resourcev1.ResourceClaim, offered []*resourcev1.ResourceSlice) bool {
	var wanted int64
	for _, claim := range open {
		for k := range claim.Spec.Devices.Requests {
			n, known := least(&claim.Spec.Devices.Requests[k])
			if !known {
				return false
			}
			wanted += n
		}
	}
	for _, s := range offered {
		for k := range s.Spec.Devices {
			d := &s.Spec.Devices[k]
			if d.AllowMultipleAllocations != nil && *d.AllowMultipleAllocations {
				return false
			}
			if !b.held.state.AllocatedDevices.Has(structured.MakeDeviceID(s.Spec.Driver, s.Spec.Pool.Name, d.Name)) {
				wanted--
			}
		}
		if wanted <= 0 {
			return false
		}
	}
	return wanted > 0
}

// least is how many devices a request takes away from others at least; unknown if it wants all there are, and where it takes none.
func least(r *resourcev1.DeviceRequest) (n int64, known bool) {
	if e := r.Exactly; e != nil {
		return e.Count, e.AllocationMode == resourcev1.DeviceAllocationModeExactCount && (e.AdminAccess == nil || !*e.AdminAccess)
	}
	for k := range r.FirstAvailable {
		s := &r.FirstAvailable[k]
		if s.AllocationMode != resourcev1.DeviceAllocationModeExactCount {
			return 0, false
		}
		if k == 0 || s.Count < n {
			n = s.Count
		}
	}
	return n, true
}
