package device

import (
	"fmt"
	"maps"
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/structured"
)

// holdings are which devices, and how much of those that several may share, claims have, as the allocator asks for them. One allocation may be
// entered twice for a moment, as promised and as seen, so all is counted.
type holdings struct {
	devices map[structured.DeviceID]int
	shares  map[structured.SharedDeviceID]int
	state   structured.AllocatedState
}

func newHoldings() holdings {
	return holdings{
		devices: map[structured.DeviceID]int{}, shares: map[structured.SharedDeviceID]int{},
		state: structured.AllocatedState{
			AllocatedDevices: sets.New[structured.DeviceID](), AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
			AggregatedCapacity: structured.NewConsumedCapacityCollection(),
		},
	}
}

// add enters an allocation, or with -1 takes it out.
func (h *holdings) add(a *resourcev1.AllocationResult, sign int) {
	if a == nil {
		return
	}
	for k := range a.Devices.Results {
		r := &a.Devices.Results[k]
		id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
		switch {
		case r.AdminAccess != nil && *r.AdminAccess: // who looks after a device does not have it
		case r.ShareID == nil:
			count(h.devices, h.state.AllocatedDevices, id, sign)
		default:
			count(h.shares, h.state.AllocatedSharedDeviceIDs, structured.MakeSharedDeviceID(id, r.ShareID), sign)
			consumed := structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity)
			if sign > 0 {
				h.state.AggregatedCapacity.Insert(consumed)
			} else {
				h.state.AggregatedCapacity.Remove(consumed)
			}
		}
	}
}

func count[K comparable](how map[K]int, any sets.Set[K], id K, sign int) {
	if how[id] += sign; how[id] > 0 {
		any.Insert(id)
		return
	}
	delete(how, id)
	any.Delete(id)
}

// free says whether nobody has a device, or any of its capacity.
func (h *holdings) free(id structured.DeviceID) bool {
	return !h.state.AllocatedDevices.Has(id) && h.state.AggregatedCapacity[id] == nil
}

// left is what is free of each capacity of a device that several share, if any is taken.
func (h *holdings) left(id structured.DeviceID, d *resourcev1.Device) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(h.state.AggregatedCapacity[id])) {
		if all, has := d.Capacity[name]; has {
			free := all.Value.DeepCopy()
			free.Sub(*h.state.AggregatedCapacity[id][name])
			list = append(list, fmt.Sprintf("%s of %s %s of %s free", &free, &all.Value, name, d.Name))
		}
	}
	return list
}
