package api

import "testing"

func TestDeviceValidation(t *testing.T) {
	const claim = `
metadata: {name: c, namespace: default}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.example.com, allocationMode: ExactCount, count: 1}}]}}
`
	checkCreate(t, "resource.k8s.io/ResourceClaim", claim, []bad{
		{"as it is", `spec: {}`, nil},
		{"neither exactly nor first available", `spec: {devices: {requests: [{name: gpu}]}}`, one("spec.devices.requests[0] Invalid")},
		{"no class", `spec: {devices: {requests: [{name: gpu, exactly: {allocationMode: All}}]}}`, one("spec.devices.requests[0].exactly.deviceClassName Required")},
		{"mode", `spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: a, allocationMode: Some}}]}}`,
			one("spec.devices.requests[0].exactly.allocationMode NotSupported")},
		{"all, but three", `spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: a, allocationMode: All, count: 3}}]}}`,
			one("spec.devices.requests[0].exactly.count Invalid")},
		{"twice", `spec: {devices: {requests: [{name: a, exactly: {deviceClassName: a, allocationMode: All}}, {name: a, exactly: {deviceClassName: a, allocationMode: All}}]}}`,
			one("spec.devices.requests[1].name Duplicate")},
		{"capacity", `spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: a, allocationMode: All, capacity: {requests: {"a/b/c": 1}}}}]}}`,
			one("spec.devices.requests[0].exactly.capacity.requests[a/b/c] Invalid")},
		{"constraint on nothing", `spec: {devices: {constraints: [{requests: [cpu], matchAttribute: a.example.com/b}]}}`,
			one("spec.devices.constraints[0].requests[0] Invalid")},
		{"expression", `spec: {devices: {requests: [{name: a, exactly: {deviceClassName: a, allocationMode: All, selectors: [{cel: {expression: "device.x ="}}]}}]}}`,
			one("spec.devices.requests[0].exactly.selectors[0].cel.expression Invalid")},
	})
	checkUpdate(t, "resource.k8s.io/ResourceClaim", claim, []bad{
		{"labels", `metadata: {labels: {a: b}}`, nil},
		{"spec", `spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: other, allocationMode: ExactCount, count: 1}}]}}`, one("spec Invalid")},
	})
	checkCreate(t, "resource.k8s.io/DeviceClass", `
metadata: {name: gpu.example.com}
spec: {selectors: [{cel: {expression: 'device.driver == "gpu.example.com"'}}]}
`, []bad{
		{"as it is", `spec: {}`, nil},
		{"no expression", `spec: {selectors: [{}]}`, one("spec.selectors[0].cel Required")},
		{"no bool", `spec: {selectors: [{cel: {expression: "device.driver"}}]}`, one("spec.selectors[0].cel.expression Invalid")},
		{"configuration of nobody", `spec: {config: [{opaque: {parameters: {a: b}}}]}`, one("spec.config[0].opaque.driver Required")},
		{"extended resource", `spec: {extendedResourceName: gpu}`, one("spec.extendedResourceName Invalid")},
	})
	const slice = `
metadata: {name: s}
spec:
  driver: gpu.example.com
  nodeName: n
  pool: {name: n, generation: 1, resourceSliceCount: 1}
  devices: [{name: gpu-0, attributes: {model: {string: a}}, capacity: {memory: {value: 8Gi}}}]
`
	checkCreate(t, "resource.k8s.io/ResourceSlice", slice, []bad{
		{"as it is", `spec: {}`, nil},
		{"driver", `spec: {driver: ""}`, one("spec.driver Required")},
		{"no node", `spec: {nodeName: null}`, one("spec Required")},
		{"all nodes too", `spec: {allNodes: true}`, one("spec Invalid")},
		{"count", `spec: {pool: {resourceSliceCount: 0}}`, one("spec.pool.resourceSliceCount Invalid")},
		{"attribute of two kinds", `spec: {devices: [{name: a, attributes: {model: {string: a, int: 1}}}]}`, one("spec.devices[0].attributes[model] Invalid")},
		{"device twice", `spec: {devices: [{name: a}, {name: a}]}`, one("spec.devices[1].name Duplicate")},
		{"version", `spec: {devices: [{name: a, attributes: {v: {version: 1.2.3-rc.1}}}]}`, nil},
		{"version of no three numbers", `spec: {devices: [{name: a, attributes: {v: {version: "1.2"}}}]}`, one("spec.devices[0].attributes[v].version Invalid")},
		{"policy of a device for one", `spec: {devices: [{name: a, capacity: {m: {value: 8Gi, requestPolicy: {default: 1Gi}}}}]}`,
			one("spec.devices[0].capacity[m].requestPolicy Forbidden")},
		{"range", `spec: {devices: [{name: a, allowMultipleAllocations: true, capacity: {m: {value: 8Gi, requestPolicy: {default: 9Gi, validRange: {min: 1Gi, max: 16Gi}}}}}]}`,
			[]string{"spec.devices[0].capacity[m].requestPolicy.default Invalid", "spec.devices[0].capacity[m].requestPolicy.validRange.max Invalid"}},
		{"default that is not valid", `spec: {devices: [{name: a, allowMultipleAllocations: true, capacity: {m: {value: 8Gi, requestPolicy: {default: 3Gi, validValues: [1Gi, 2Gi]}}}}]}`,
			one("spec.devices[0].capacity[m].requestPolicy.default Invalid")},
		{"failure alone", `spec: {devices: [{name: a, bindingFailureConditions: [b]}]}`, one("spec.devices[0].bindingConditions Invalid")},
		{"good and bad", `spec: {devices: [{name: a, bindingConditions: [b], bindingFailureConditions: [b]}]}`, one("spec.devices[0].bindingFailureConditions[0] Invalid")},
		{"counters of nothing", `spec: {devices: [{name: a, consumesCounters: [{counterSet: s}]}]}`, one("spec.devices[0].consumesCounters[0].counters Required")},
		{"counters twice", `spec: {devices: [{name: a, consumesCounters: [{counterSet: s, counters: {m: {value: 1}}}, {counterSet: s, counters: {m: {value: 1}}}]}]}`,
			one("spec.devices[0].consumesCounters[1].counterSet Duplicate")},
		{"taint", `spec: {devices: [{name: a, taints: [{key: b, effect: Never}]}]}`, one("spec.devices[0].taints[0].effect NotSupported")},
	})
	checkUpdate(t, "resource.k8s.io/ResourceSlice", slice, []bad{
		{"generation", `spec: {pool: {generation: 2}}`, nil},
		{"node", `spec: {nodeName: other}`, one("spec.nodeName Invalid")},
	})
	checkCreate(t, "resource.k8s.io/DeviceTaintRule", `
metadata: {name: r}
spec: {taint: {key: broken, effect: NoExecute}, deviceSelector: {driver: gpu.example.com}}
`, []bad{
		{"key", `spec: {taint: {key: ""}}`, one("spec.taint.key Required")},
		{"effect", `spec: {taint: {effect: Maybe}}`, one("spec.taint.effect NotSupported")},
	})
}
