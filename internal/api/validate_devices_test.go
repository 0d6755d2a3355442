package api

import (
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
)

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
	const allocated = claim + `
status:
  allocation: {devices: {results: [{request: gpu, driver: d.example.com, pool: p, device: x}]}}
  devices: [{driver: d.example.com, pool: p, device: x}]
`
	checkStatus(t, "resource.k8s.io/ResourceClaim", claim, []bad{
		{"as the scheduler allocates", `status: {reservedFor: [{resource: pods, name: p, uid: u}], allocation: {allocationTimestamp: "2026-01-02T03:04:05Z",
  nodeSelector: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [n]}]}]},
  devices: {results: [{request: gpu, driver: d.example.com, pool: p, device: x, bindingConditions: [a], bindingFailureConditions: [b],
    shareID: 0a1b2c3d-0000-4000-8000-00000000000f, consumedCapacity: {memory: 1Gi}}]}}}`, nil},
		{"share", `status: {allocation: {devices: {results: [{request: gpu, driver: d.example.com, pool: p, device: x, shareID: 0A1B2C3D-0000-4000-8000-00000000000F}]}}}`,
			one("status.allocation.devices.results[0].shareID Invalid")},
		{"conditions", `status: {allocation: {devices: {results: [{request: gpu, driver: d.example.com, pool: p, device: x, bindingConditions: [a, b, c, d, e], bindingFailureConditions: [f]}]}}}`,
			one("status.allocation.devices.results[0].bindingConditions TooMany")},
		{"nodes", `status: {allocation: {nodeSelector: {nodeSelectorTerms: []}}}`, one("status.allocation.nodeSelector.nodeSelectorTerms Required")},
	})
	checkStatus(t, "resource.k8s.io/ResourceClaim", allocated, []bad{
		{"another share's", `status: {devices: [{driver: d.example.com, pool: p, device: x, shareID: 0a1b2c3d-0000-4000-8000-00000000000f}]}`, one("status.devices[0] Invalid")},
		{"no share's name", `status: {devices: [{driver: d.example.com, pool: p, device: x, shareID: x}]}`, []string{"status.devices[0] Invalid", "status.devices[0].shareID Invalid"}},
	})
	r := rowOf(t, "resource.k8s.io/ResourceClaim")
	was, next := parse(t, r, allocated, ""), parse(t, r, allocated, `status: {allocation: null}`)
	if r.PrepareStatus(next, was); len(next.(*resourcev1.ResourceClaim).Status.Devices) != 0 {
		t.Error("what was reported of a device outlives its allocation")
	}
	next = parse(t, r, allocated, "")
	if r.PrepareStatus(next, was); len(next.(*resourcev1.ResourceClaim).Status.Devices) != 1 {
		t.Error("what was reported of an allocated device is dropped")
	}
	checkCreate(t, "resource.k8s.io/DeviceClass", `
metadata: {name: gpu.example.com}
spec: {selectors: [{cel: {expression: 'device.driver == "gpu.example.com"'}}]}
`, []bad{
		{"as it is", `spec: {}`, nil},
		{"no expression", `spec: {selectors: [{}]}`, one("spec.selectors[0].cel Required")},
		{"no bool", `spec: {selectors: [{cel: {expression: "device.driver"}}]}`, one("spec.selectors[0].cel.expression Invalid")},
		{"configuration of nobody", `spec: {config: [{opaque: {parameters: {a: b}}}]}`, one("spec.config[0].opaque.driver Required")},
		{"extended resource", `spec: {extendedResourceName: example.com/gpu}`, nil},
		{"extended resource of no domain", `spec: {extendedResourceName: gpu}`, one("spec.extendedResourceName Invalid")},
		{"extended resource of the system", `spec: {extendedResourceName: deviceclass.resource.kubernetes.io/gpu}`, one("spec.extendedResourceName Invalid")},
		{"extended resource like a quota's", `spec: {extendedResourceName: requests.example.com/gpu}`, one("spec.extendedResourceName Invalid")},
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
