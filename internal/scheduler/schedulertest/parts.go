package schedulertest

import (
	"fmt"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// sharedDevices are those of upstream's folders partitionabledevices and consumablecapacity: devices that are parts of one, or have room for several.
func sharedDevices(n func(int) int) (list []Workload) {
	nodes := n(1000)
	for _, state := range []struct {
		name    string
		share   int // one in so many places is taken; 0: none
		reserve int // but for so many
	}{{"empty", 0, 0}, {"half", 2, 0}, {"full", 1, 10}} {
		taken := func(places int) int {
			if state.share == 0 {
				return 0
			}
			return places/state.share - state.reserve
		}
		steady := Pods{Count: 10, Shape: withClaim, Namespace: "test", Measured: true, Steady: true}
		named := func(name string, steps ...Step) Workload {
			return Workload{Name: fmt.Sprintf("%s/%s_1000nodes", name, state.name), Controllers: ofClaims, Steps: append(steps, steady)}
		}
		list = append(list,
			named("Partitionable", deviceNodes(nodes, fourCounters, pairsOfCounters), classOf(deviceClass, deviceDriver),
				allocated(taken(nodes), nodes, partsFrom(1, 2), counted(2)), templateOf("test", counted(2))),
			named("PartitionableBacktracking", deviceNodes(nodes, eightCPUs, unequalParts), classOf(deviceClass, deviceDriver),
				allocated(taken(nodes), nodes, partsFrom(2, 8), counted(7)), templateOf("test", counted(7))),
			named("ConsumableCapacity", deviceNodes(nodes, shareable),
				Objects{classBy(deviceClass, fmt.Sprintf("device.driver == %q && device.allowMultipleAllocations == true", deviceDriver))},
				templateOf("init", bandwidth), templateOf("test", bandwidth), Pods{Count: taken(nodes * 8), Shape: withClaim, Namespace: "init"}))
	}
	return list
}

// partsFrom are the only parts that a claim of several can have.
func partsFrom(first, last int) func(int) (names []string) {
	return func(int) (names []string) {
		for k := first; k <= last; k++ {
			names = append(names, fmt.Sprintf("device-%d", k))
		}
		return names
	}
}

func counters(value string, names ...string) map[string]resourcev1.Counter {
	m := map[string]resourcev1.Counter{}
	for _, name := range names {
		m[name] = resourcev1.Counter{Value: resource.MustParse(value)}
	}
	return m
}

func fourCounters(s *resourcev1.ResourceSliceSpec) {
	s.SharedCounters = []resourcev1.CounterSet{{Name: "counter-set", Counters: counters("1", "counter1", "counter2", "counter3", "counter4")}}
}

func pairsOfCounters(s *resourcev1.ResourceSliceSpec) {
	for k, pair := range [][]string{{"counter1", "counter2"}, {"counter3", "counter4"}} {
		s.Devices = append(s.Devices, resourcev1.Device{Name: fmt.Sprintf("device-%d", k+1),
			ConsumesCounters: []resourcev1.DeviceCounterConsumption{{CounterSet: "counter-set", Counters: counters("1", pair...)}}})
	}
}

// parts of the second sort are eight.
const parts = 8

func cpuOf(k int) string { return fmt.Sprintf("cpu%d", k) }

func eightCPUs(s *resourcev1.ResourceSliceSpec) {
	var cpus []string
	for k := range parts {
		cpus = append(cpus, cpuOf(k+1))
	}
	s.SharedCounters = []resourcev1.CounterSet{{Name: "counter-set-for-cpu", Counters: counters("1", cpus...)}, {Name: "counter-set-for-mem", Counters: counters("70Gi", "mem")}}
}

// unequalParts are such that a claim of seven finds them only when it gives up the first.
func unequalParts(s *resourcev1.ResourceSliceSpec) {
	for k := range parts {
		memory := "10Gi"
		if k == 0 {
			memory = "20Gi"
		}
		s.Devices = append(s.Devices, resourcev1.Device{Name: fmt.Sprintf("device-%d", k+1), ConsumesCounters: []resourcev1.DeviceCounterConsumption{
			{CounterSet: "counter-set-for-cpu", Counters: counters("1", cpuOf(k+1))}, {CounterSet: "counter-set-for-mem", Counters: counters(memory, "mem")}}})
	}
}

// shareable devices have room for four claims each, and a claim needs two of them.
func shareable(s *resourcev1.ResourceSliceSpec) {
	for k := range 4 {
		room := "10G"
		if k == 2 {
			room = "10Gi" // upstream's third is a little larger
		}
		s.Devices = append(s.Devices, resourcev1.Device{Name: fmt.Sprintf("shareable-device-%d", k), AllowMultipleAllocations: new(true),
			Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"dra.example.com/index": {IntValue: new(int64(k))}},
			Capacity: map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"bandwidth": {Value: resource.MustParse(room), RequestPolicy: &resourcev1.CapacityRequestPolicy{
				Default: new(resource.MustParse("1M")), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: new(resource.MustParse("1M")), Step: new(resource.MustParse("8"))}}}}})
	}
}

func bandwidth(s *resourcev1.ResourceClaimSpec) {
	r := s.Devices.Requests[0].Exactly
	r.Count = 2
	r.Capacity = &resourcev1.CapacityRequirements{Requests: map[resourcev1.QualifiedName]resource.Quantity{"bandwidth": resource.MustParse("2500M")}}
	s.Devices.Constraints = []resourcev1.DeviceConstraint{{Requests: []string{"req-0"}, DistinctAttribute: new(resourcev1.FullyQualifiedName("dra.example.com/index"))}}
}
