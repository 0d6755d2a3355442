package schedulertest

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	deviceDriver = "test-driver.cdi.k8s.io"
	deviceClass  = "test-class"
	template     = "test-claim-template"
	perNode      = 10 // devices a node has
)

// Controllers that claims of pods need: they are made, and go with their pods.
var ofClaims = []string{"resourceclaim-controller", "garbage-collector-controller"}

// scoredByDevices is upstream's configuration for ExtendedResourceScoring.
const scoredByDevices = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy:
        type: LeastAllocated
        resources: [{name: cpu, weight: 1}, {name: memory, weight: 1}, {name: example.com/gpu, weight: 1}]
`

// devices are those of upstream's folder dra and its extendedresource, prioritizedlist and devicetaints.
func devices(n func(int) int) []Workload {
	nodes := n(500)
	// steady is a state in which so many of the devices are in use.
	steady := func(used int, with ...func(s *resourcev1.ResourceClaimSpec)) []Step {
		return []Step{deviceNodes(nodes, plainDevices(perNode)), classOf(deviceClass, deviceDriver), allocated(used, nodes, one0("device-%d")),
			templateOf("test", with...), Pods{Count: 10, Shape: withClaim, Namespace: "test", Measured: true, Steady: true}}
	}
	fromTemplate := func(name string, floor int, steps []Step) Workload {
		return Workload{Name: "SchedulingWithResourceClaimTemplate/" + name, Floor: floor, Steps: steps, Controllers: ofClaims}
	}
	extended := func(variant, resource string, floor, classes int, explicit bool) Workload {
		asks := light("test-dra", asksFor(func(i int) string { return fmt.Sprintf("%s-%d", resource, i%classes) }))
		return Workload{Name: "ExtendedResource/" + variant, Floor: floor, Controllers: ofClaims, Steps: []Step{deviceNodes(nodes, plainDevices(perNode)),
			extendedClasses("test-class", classes, func(k int) string {
				if !explicit {
					return ""
				}
				return fmt.Sprintf("%s-%d", resource, k)
			}),
			Pods{Count: nodes * perNode / 2, Shape: asks, Namespace: "init"}, Pods{Count: nodes * perNode / 2, Shape: asks, Namespace: "test", Measured: true}}}
	}
	return []Workload{
		fromTemplate("5000pods_500nodes", 56, []Step{deviceNodes(nodes, plainDevices(perNode)), classOf(deviceClass, deviceDriver),
			allocated(nodes*perNode/2, nodes, one0("device-%d")), templateOf("test"), Pods{Count: nodes * perNode / 2, Shape: withClaim, Namespace: "test", Measured: true}}),
		fromTemplate("empty_500nodes", 64, steady(0)),
		fromTemplate("half_500nodes", 60, steady(nodes*perNode/2)),
		fromTemplate("full_500nodes", 60, steady(nodes*perNode-10)),
		fromTemplate("selector_empty_500nodes", 64, steady(0, selects(`device.attributes["test-driver.cdi.k8s.io"].driverVersion.major() >= 1 && `+
			`device.capacity["test-driver.cdi.k8s.io"].memory.isGreaterThan(quantity("1Mi"))`))),
		fromTemplate("match_empty_500nodes", 64, steady(0, requests(5), func(s *resourcev1.ResourceClaimSpec) {
			s.Devices.Constraints = []resourcev1.DeviceConstraint{{MatchAttribute: new(resourcev1.FullyQualifiedName("resource.kubernetes.io/pciRoot"))}}
		})),
		{Name: "SchedulingWithResourceClaim/5000pods_500nodes", Steps: slices.Concat([]Step{deviceNodes(nodes, plainDevices(2)), classOf(deviceClass, deviceDriver)},
			sharedClaims("init", nodes, false), sharedClaims("test", nodes, true))},
		extended("Explicit_25classes_5000pods_500nodes", "example.com/gpu", 120, 25, true),
		extended("Explicit_50classes_5000pods_500nodes", "example.com/gpu", 130, 50, true),
		extended("Implicit_25classes_5000pods_500nodes", "deviceclass.resource.kubernetes.io/test-class", 130, 25, false),
		{Name: "ExtendedResourceScoring/5000pods_500nodes", Floor: 70, Config: scoredByDevices, Controllers: ofClaims, Steps: []Step{deviceNodes(nodes, plainDevices(perNode)),
			extendedClasses("scoring-test-class", 20, always("example.com/gpu")),
			Pods{Count: nodes * perNode, Shape: light("scoring-test-pod", asksFor(always("example.com/gpu"))), Namespace: "test", Measured: true}}},
		{Name: "FirstAvailable/fast", Controllers: ofClaims, Steps: []Step{some(1), deviceNodes(1, plainDevices(perNode)), classOf(deviceClass, deviceDriver),
			classOf("no-devices-class", "no-such-driver.cdi.k8s.io"), templateOf("test", func(s *resourcev1.ResourceClaimSpec) {
				s.Devices.Requests = []resourcev1.DeviceRequest{{Name: "req-0", FirstAvailable: []resourcev1.DeviceSubRequest{
					{Name: "sub-0", DeviceClassName: "no-devices-class"}, {Name: "sub-1", DeviceClassName: deviceClass}}}}
			}),
			Pods{Count: perNode, Shape: withClaim, Namespace: "test", Measured: true}}},
		{Name: "DeviceTaintToleration/fast", Controllers: ofClaims, Steps: []Step{some(1), Objects{&resourcev1.DeviceTaintRule{ObjectMeta: meta("", "taint-all-devices"),
			Spec: resourcev1.DeviceTaintRuleSpec{Taint: resourcev1.DeviceTaint{Key: "example.com/taint", Value: "tainted", Effect: resourcev1.DeviceTaintEffectNoSchedule}}}},
			deviceNodes(1, plainDevices(perNode)), classOf(deviceClass, deviceDriver), templateOf("test", func(s *resourcev1.ResourceClaimSpec) {
				s.Devices.Requests[0].Exactly.Tolerations = []resourcev1.DeviceToleration{{Key: "example.com/taint", Operator: resourcev1.DeviceTolerationOpExists}}
			}),
			Pods{Count: perNode, Shape: withClaim, Namespace: "test", Measured: true}}},
	}
}

// withClaim has a claim of its own from the template.
var withClaim = light("test-dra", claiming(func(int) corev1.PodResourceClaim {
	return corev1.PodResourceClaim{Name: "resource", ResourceClaimTemplateName: new(template)}
}))

func claiming(claim func(i int) corev1.PodResourceClaim) feature {
	return func(p *corev1.Pod, i int) {
		c := claim(i)
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{c}
		p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: c.Name}}
	}
}

// sharedClaims are claims that five pods share each, and these pods.
func sharedClaims(namespace string, count int, measured bool) []Step {
	const share = 5
	var list Objects
	for k := range count {
		list = append(list, claimOf(namespace, k))
	}
	sharing := light("test-dra", claiming(func(i int) corev1.PodResourceClaim {
		return corev1.PodResourceClaim{Name: "resource", ResourceClaimName: new(claimOf(namespace, i/share).Name)}
	}))
	return []Step{list, Pods{Count: count * share, Shape: sharing, Namespace: namespace, Measured: measured}}
}

func claimOf(namespace string, k int) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: meta(namespace, fmt.Sprintf("test-claim-%d", k)), Spec: specOf(nil)}
}

// specOf asks for one device of the class, and what else is said.
func specOf(with []func(s *resourcev1.ResourceClaimSpec)) (s resourcev1.ResourceClaimSpec) {
	requests(1)(&s)
	for _, w := range with {
		w(&s)
	}
	return s
}

func templateOf(namespace string, with ...func(s *resourcev1.ResourceClaimSpec)) Objects {
	t := &resourcev1.ResourceClaimTemplate{ObjectMeta: meta(namespace, template)}
	t.Spec.Spec = specOf(with)
	return Objects{t}
}

// requests asks so many times for a device.
func requests(count int) func(s *resourcev1.ResourceClaimSpec) {
	return func(s *resourcev1.ResourceClaimSpec) {
		s.Devices.Requests = nil
		for k := range count {
			s.Devices.Requests = append(s.Devices.Requests, resourcev1.DeviceRequest{Name: fmt.Sprintf("req-%d", k), Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: deviceClass}})
		}
	}
}

// counted asks for so many devices at once.
func counted(count int64) func(s *resourcev1.ResourceClaimSpec) {
	return func(s *resourcev1.ResourceClaimSpec) { s.Devices.Requests[0].Exactly.Count = count }
}

func selects(expression string) func(s *resourcev1.ResourceClaimSpec) {
	return func(s *resourcev1.ResourceClaimSpec) {
		s.Devices.Requests[0].Exactly.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: expression}}}
	}
}

func classOf(name, driver string) Objects {
	return Objects{classBy(name, fmt.Sprintf("device.driver == %q", driver))}
}

func classBy(name, expression string) *resourcev1.DeviceClass {
	return &resourcev1.DeviceClass{ObjectMeta: meta("", name), Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{
		{CEL: &resourcev1.CELDeviceSelector{Expression: expression}}}}}
}

// extendedClasses are so many classes, each of all devices, by which pods ask for extended resources. No name: the one that each class has anyway.
func extendedClasses(name string, count int, resource func(k int) string) (list Objects) {
	for k := range count {
		c := classBy(fmt.Sprintf("%s-%d", name, k), fmt.Sprintf("device.driver == %q", deviceDriver))
		if r := resource(k); r != "" {
			c.Spec.ExtendedResourceName = new(r)
		}
		list = append(list, c)
	}
	return list
}

const deviceNode = "scheduler-perf-dra"

func deviceNodeName(i int) string { return fmt.Sprintf("%s-%d", deviceNode, i) }

func poolName(i int) string { return fmt.Sprintf("resourceslice-%d", i) }

// deviceNodes have slices of devices.
func deviceNodes(count int, slices ...func(s *resourcev1.ResourceSliceSpec)) Nodes {
	return Nodes{Count: count, Node: numbered(deviceNode, "4", "32Gi", "110", labelled("node-with-dra=true")), Objects: func(i int) (list []Object) {
		for k, fill := range slices {
			s := &resourcev1.ResourceSlice{ObjectMeta: meta("", fmt.Sprintf("%s-%d", poolName(i), k)), Spec: resourcev1.ResourceSliceSpec{
				Driver: deviceDriver, NodeName: new(deviceNodeName(i)),
				Pool: resourcev1.ResourcePool{Name: poolName(i), Generation: 1, ResourceSliceCount: int64(len(slices))}}}
			fill(&s.Spec)
			list = append(list, s)
		}
		return list
	}}
}

// plainDevices have as many attributes as a real one, of two PCI roots in turns.
func plainDevices(count int) func(s *resourcev1.ResourceSliceSpec) {
	text := func(format string, k int) resourcev1.DeviceAttribute {
		return resourcev1.DeviceAttribute{StringValue: new(fmt.Sprintf(format, k))}
	}
	word := func(s string) resourcev1.DeviceAttribute { return resourcev1.DeviceAttribute{StringValue: &s} }
	return func(s *resourcev1.ResourceSliceSpec) {
		for k := range count {
			root := k % 2
			s.Devices = append(s.Devices, resourcev1.Device{Name: fmt.Sprintf("device-%d", k),
				Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{
					"driver": word("xe"), "driverVersion": {VersionValue: new("1.2.3")}, "family": word("Arc Pro B-Series"), "health": word("Healthy"),
					"model": word("B60"), "pciId": word("0xe211"), "sriov": {BoolValue: new(true)}, "type": word("gpu"),
					"resource.k8s.io/pciRoot": text("%d", root), "pciAddress": text("0000:0%d:00.0", k), "pciRoot": text("0%d", root),
					"resource.kubernetes.io/pciBusID": text("0000:0%d:00.0", k), "resource.kubernetes.io/pciRoot": text("pci0000:0%d", root)},
				Capacity: map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{
					"memory": {Value: resource.MustParse("24480Mi")}, "millicores": {Value: resource.MustParse("1k")}}})
		}
	}
}

// one0 is a claim of one device, the k-th of its node.
func one0(format string) func(k int) []string {
	return func(k int) []string { return []string{fmt.Sprintf(format, k)} }
}

// allocated are claims that have their devices without a pod, spread evenly over the nodes. devices are those of the k-th claim of a node.
func allocated(count, nodes int, devices func(k int) []string, with ...func(s *resourcev1.ResourceClaimSpec)) (list Objects) {
	for i := range count {
		c, node := claimOf("init", i), i%nodes
		c.Spec = specOf(with)
		c.Status.Allocation = &resourcev1.AllocationResult{NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{deviceNodeName(node)}}}}}}}
		for _, d := range devices(i / nodes) {
			c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results, resourcev1.DeviceRequestAllocationResult{
				Request: "req-0", Driver: deviceDriver, Pool: poolName(node), Device: d})
		}
		list = append(list, c)
	}
	return list
}
