package api

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// deviceRows are resource.k8s.io: devices that drivers offer and claims that pods make of them.
func deviceRows() []*Resource {
	const g, v = "resource.k8s.io", "v1"
	return []*Resource{
		of[resourcev1.DeviceClass, resourcev1.DeviceClassList](Resource{Group: g, Version: v, Kind: "DeviceClass", Plural: "deviceclasses", Key: "deviceclasses",
			Generation: true, Validate: validateDeviceClass, ValidateUpdate: sameAsCreate(validateDeviceClass)}),
		of[resourcev1.ResourceClaim, resourcev1.ResourceClaimList](Resource{Group: g, Version: v, Kind: "ResourceClaim", Plural: "resourceclaims",
			Key: "resourceclaims", Namespaced: true, Status: true, StatusAlone: true, Indexes: ownerIndex, Default: func(o Object) { defaultDeviceClaim(&o.(*resourcev1.ResourceClaim).Spec.Devices) },
			Validate: validateResourceClaim, ValidateUpdate: validateResourceClaimUpdate, PrepareStatus: forgetDevices, ValidateStatus: validateResourceClaimStatus, Columns: resourceClaimColumns}),
		of[resourcev1.ResourceClaimTemplate, resourcev1.ResourceClaimTemplateList](Resource{Group: g, Version: v, Kind: "ResourceClaimTemplate",
			Plural: "resourceclaimtemplates", Key: "resourceclaimtemplates", Namespaced: true,
			Default:  func(o Object) { defaultDeviceClaim(&o.(*resourcev1.ResourceClaimTemplate).Spec.Spec.Devices) },
			Validate: validateClaimTemplate, ValidateUpdate: validateClaimTemplateUpdate}),
		of[resourcev1.ResourceSlice, resourcev1.ResourceSliceList](Resource{Group: g, Version: v, Kind: "ResourceSlice", Plural: "resourceslices",
			Key: "resourceslices", Generation: true, Default: defaultResourceSlice, Validate: validateResourceSlice, ValidateUpdate: validateResourceSliceUpdate,
			Fields: resourceSliceFields, Columns: resourceSliceColumns}),
		of[resourcev1.DeviceTaintRule, resourcev1.DeviceTaintRuleList](Resource{Group: g, Version: v, Kind: "DeviceTaintRule", Plural: "devicetaintrules",
			Key: "devicetaintrules", Status: true, StatusAlone: true, Generation: true, Default: func(o Object) { defaultDeviceTaint(&o.(*resourcev1.DeviceTaintRule).Spec.Taint) },
			Validate: validateDeviceTaintRule, ValidateUpdate: sameAsCreate(validateDeviceTaintRule), ValidateStatus: validateDeviceTaintRuleStatus}),
	}
}

func defaultDeviceClaim(c *resourcev1.DeviceClaim) {
	for i := range c.Requests {
		r := &c.Requests[i]
		if e := r.Exactly; e != nil {
			defaultDeviceCount(&e.AllocationMode, &e.Count)
			defaultDeviceTolerations(e.Tolerations)
		}
		for k := range r.FirstAvailable {
			sub := &r.FirstAvailable[k]
			defaultDeviceCount(&sub.AllocationMode, &sub.Count)
			defaultDeviceTolerations(sub.Tolerations)
		}
	}
}

func defaultDeviceCount(mode *resourcev1.DeviceAllocationMode, count *int64) {
	fill(mode, resourcev1.DeviceAllocationModeExactCount)
	if *mode == resourcev1.DeviceAllocationModeExactCount {
		fill(count, 1)
	}
}

func defaultDeviceTolerations(list []resourcev1.DeviceToleration) {
	for i := range list {
		fill(&list[i].Operator, resourcev1.DeviceTolerationOpEqual)
	}
}

func defaultResourceSlice(o Object) {
	devices := o.(*resourcev1.ResourceSlice).Spec.Devices
	for i := range devices {
		for k := range devices[i].Taints {
			defaultDeviceTaint(&devices[i].Taints[k])
		}
	}
}

// defaultDeviceTaint says since when: tolerations with a time limit count from there.
func defaultDeviceTaint(t *resourcev1.DeviceTaint) {
	fillNil(&t.TimeAdded, metav1.Now().Rfc3339Copy())
}

func resourceSliceFields(o Object) fields.Set {
	s := &o.(*resourcev1.ResourceSlice).Spec
	return fields.Set{
		resourcev1.ResourceSliceSelectorNodeName: value(s.NodeName), resourcev1.ResourceSliceSelectorDriver: s.Driver,
		resourcev1.ResourceSliceSelectorPoolName: s.Pool.Name,
	}
}

var resourceClaimColumns = columns(text("State", func(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case c.Status.Allocation == nil && c.DeletionTimestamp == nil:
		states = append(states, "pending")
	case c.Status.Allocation != nil:
		states = append(states, "allocated")
	}
	if len(c.Status.ReservedFor) > 0 {
		states = append(states, "reserved")
	}
	return strings.Join(states, ",")
}))

var resourceSliceColumns = columns(
	text("Node", func(s *resourcev1.ResourceSlice) string { return orElse(value(s.Spec.NodeName), "<unset>") }),
	text("Driver", func(s *resourcev1.ResourceSlice) string { return s.Spec.Driver }),
	text("Pool", func(s *resourcev1.ResourceSlice) string { return s.Spec.Pool.Name }),
)
