package api

import (
	"fmt"
	"net"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateResourceSlice(o Object) field.ErrorList {
	s, spec := &o.(*resourcev1.ResourceSlice).Spec, field.NewPath("spec")
	errs := driverName(s.Driver, spec.Child("driver"))
	pool := spec.Child("pool")
	errs = append(errs, poolName(s.Pool.Name, pool.Child("name"))...)
	if s.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(pool.Child("resourceSliceCount"), s.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	errs = append(errs, nonNegative(s.Pool.Generation, pool.Child("generation"))...)
	errs = append(errs, whichNodes(s.NodeName, s.NodeSelector, s.AllNodes, s.PerDeviceNodeSelection, "`perDeviceNodeSelection`", spec)...)
	most := resourcev1.ResourceSliceMaxDevices
	if slices.ContainsFunc(s.Devices, func(d resourcev1.Device) bool { return len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 }) {
		most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
	}
	errs = append(errs, atMost(len(s.Devices), most, spec.Child("devices"))...)
	names := map[string]bool{}
	for i := range s.Devices {
		at := spec.Child("devices").Index(i)
		errs = append(errs, requestName(s.Devices[i].Name, names, "", at.Child("name"))...)
		errs = append(errs, device(&s.Devices[i], value(s.PerDeviceNodeSelection), at)...)
	}
	return append(errs, sharedCounters(s, spec)...)
}

// whichNodes checks that exactly one way of naming nodes is taken. A device of its own has one only if its slice leaves it to the devices.
func whichNodes(name *string, selector *corev1.NodeSelector, every, perDevice *bool, last string, p *field.Path) (errs field.ErrorList) {
	set := 0
	if name != nil {
		set++
		errs = append(errs, dnsSubdomain(*name, p.Child("nodeName"))...)
	}
	if selector != nil {
		set++
		at := p.Child("nodeSelector", "nodeSelectorTerms")
		if len(selector.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(at, selector.NodeSelectorTerms, "must have exactly one node selector term"))
		}
		for i := range selector.NodeSelectorTerms {
			errs = append(errs, nodeSelectorTerm(&selector.NodeSelectorTerms[i], at.Index(i))...)
		}
	}
	for _, flag := range []*bool{every, perDevice} {
		if value(flag) {
			set++
		}
	}
	switch ways := "exactly one of `nodeName`, `nodeSelector`, `allNodes`, " + last + " is required"; {
	case set == 0:
		errs = append(errs, field.Required(p, ways))
	case set > 1:
		errs = append(errs, field.Invalid(p, "<value omitted>", ways))
	}
	return errs
}

// validateResourceSliceUpdate keeps what says whose slice it is.
func validateResourceSliceUpdate(o, old Object) field.ErrorList {
	s, was, spec := &o.(*resourcev1.ResourceSlice).Spec, &old.(*resourcev1.ResourceSlice).Spec, field.NewPath("spec")
	errs := validateResourceSlice(o)
	errs = append(errs, immutable(s.Pool.Name, was.Pool.Name, spec.Child("pool", "name"))...)
	errs = append(errs, immutable(s.Driver, was.Driver, spec.Child("driver"))...)
	return append(errs, immutable(s.NodeName, was.NodeName, spec.Child("nodeName"))...)
}

// validateResourceClaimStatus: an allocation is made and taken back, never changed; a claim is reserved and its devices report only while it is
// allocated.
func validateResourceClaimStatus(o, old Object) field.ErrorList {
	c, was, p := o.(*resourcev1.ResourceClaim), &old.(*resourcev1.ResourceClaim).Status, field.NewPath("status")
	s := &c.Status
	reserved := p.Child("reservedFor")
	errs := atMost(len(s.ReservedFor), resourcev1.ResourceClaimReservedForMaxSize, reserved)
	for i := range s.ReservedFor {
		r, at := &s.ReservedFor[i], reserved.Index(i)
		errs = append(errs, required(r.Resource, at.Child("resource"))...)
		errs = append(errs, required(r.Name, at.Child("name"))...)
		errs = append(errs, required(string(r.UID), at.Child("uid"))...)
		if slices.ContainsFunc(s.ReservedFor[:i], func(other resourcev1.ResourceClaimConsumerReference) bool { return other.UID == r.UID }) {
			errs = append(errs, field.Duplicate(at, r.UID))
		}
	}
	if s.Allocation == nil {
		if len(s.ReservedFor) > 0 {
			errs = append(errs, field.Forbidden(reserved, "may not be specified when `allocated` is not set"))
		}
		for i := range s.Devices {
			errs = append(errs, field.Invalid(p.Child("devices").Index(i), "<value omitted>", "must be an allocated device in the claim"))
		}
		return errs
	}
	if len(s.ReservedFor) > 0 && c.DeletionTimestamp != nil && !equal(s.ReservedFor, was.ReservedFor) && len(s.ReservedFor) > len(was.ReservedFor) {
		errs = append(errs, field.Forbidden(reserved, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
	}
	if was.Allocation != nil {
		errs = append(errs, immutable(s.Allocation, was.Allocation, p.Child("allocation"))...)
	} else {
		errs = append(errs, allocation(c, p.Child("allocation"))...)
	}
	return append(errs, deviceStatuses(s, p.Child("devices"))...)
}

func allocation(c *resourcev1.ResourceClaim, p *field.Path) (errs field.ErrorList) {
	if where := c.Status.Allocation.NodeSelector; where != nil {
		errs = append(errs, nodeSelector(where, p.Child("nodeSelector", "nodeSelectorTerms"))...)
	}
	a, p := &c.Status.Allocation.Devices, p.Child("devices")
	errs = append(errs, atMost(len(a.Results), resourcev1.AllocationResultsMaxSize, p.Child("results"))...)
	known := map[string]bool{}
	for _, r := range c.Spec.Devices.Requests {
		known[r.Name] = len(r.FirstAvailable) == 0
		for _, sub := range r.FirstAvailable {
			known[r.Name+"/"+sub.Name] = true
		}
	}
	for i := range a.Results {
		r, at := &a.Results[i], p.Child("results").Index(i)
		errs = append(errs, requestNames([]string{r.Request}, known, at.Child("request"))...)
		errs = append(errs, driverName(r.Driver, at.Child("driver"))...)
		errs = append(errs, poolName(r.Pool, at.Child("pool"))...)
		errs = append(errs, dnsLabel(r.Device, at.Child("device"))...)
		errs = append(errs, bindingConditions(r.BindingConditions, r.BindingFailureConditions, at)...)
		errs = append(errs, shareID(r.ShareID, at.Child("shareID"))...)
	}
	errs = append(errs, atMost(len(a.Config), 2*resourcev1.DeviceConfigMaxSize, p.Child("config"))...) // the class's and the claim's
	for i := range a.Config {
		one, at := &a.Config[i], p.Child("config").Index(i)
		errs = append(errs, oneOf(one.Source, at.Child("source"), resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)...)
		errs = append(errs, requestNames(one.Requests, known, at.Child("requests"))...)
		errs = append(errs, deviceConfiguration(&one.DeviceConfiguration, at)...)
	}
	return errs
}

var normalUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// shareID tells apart what several have of one device.
func shareID[T ~string](id *T, p *field.Path) field.ErrorList {
	if id == nil || normalUUID.MatchString(string(*id)) {
		return nil
	}
	return field.ErrorList{field.Invalid(p, *id, "must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")}
}

// forgetDevices drops what was reported of devices that a claim had and has no more.
func forgetDevices(o, old Object) {
	s, was := &o.(*resourcev1.ResourceClaim).Status, &old.(*resourcev1.ResourceClaim).Status
	s.Devices = slices.DeleteFunc(s.Devices, func(d resourcev1.AllocatedDeviceStatus) bool {
		return Allocates(was.Allocation, &d) && !Allocates(s.Allocation, &d)
	})
}

// Allocates says that a device, or that share of it, is part of an allocation.
func Allocates(a *resourcev1.AllocationResult, d *resourcev1.AllocatedDeviceStatus) bool {
	return a != nil && slices.ContainsFunc(a.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool {
		return r.Driver == d.Driver && r.Pool == d.Pool && r.Device == d.Device && string(value(r.ShareID)) == value(d.ShareID)
	})
}

// deviceStatuses are what drivers report about allocated devices.
func deviceStatuses(s *resourcev1.ResourceClaimStatus, p *field.Path) (errs field.ErrorList) {
	for i := range s.Devices {
		d, at := &s.Devices[i], p.Index(i)
		errs = append(errs, shareID(d.ShareID, at.Child("shareID"))...)
		if !Allocates(s.Allocation, d) {
			errs = append(errs, field.Invalid(at, fmt.Sprintf("%s/%s/%s", d.Driver, d.Pool, d.Device), "must be an allocated device in the claim"))
		}
		if slices.ContainsFunc(s.Devices[:i], func(o resourcev1.AllocatedDeviceStatus) bool {
			return o.Driver == d.Driver && o.Pool == d.Pool && o.Device == d.Device && value(o.ShareID) == value(d.ShareID)
		}) {
			errs = append(errs, field.Duplicate(at, fmt.Sprintf("%s/%s/%s", d.Driver, d.Pool, d.Device)))
		}
		errs = append(errs, atMost(len(d.Conditions), resourcev1.AllocatedDeviceStatusMaxConditions, at.Child("conditions"))...)
		errs = append(errs, metavalidation.ValidateConditions(d.Conditions, at.Child("conditions"))...)
		if n := d.NetworkData; n != nil {
			errs = append(errs, networkData(n, at.Child("networkData"))...)
		}
	}
	return errs
}

func networkData(n *resourcev1.NetworkDeviceData, p *field.Path) field.ErrorList {
	errs := atMost(len(n.IPs), resourcev1.NetworkDeviceDataMaxIPs, p.Child("ips"))
	if len(n.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		errs = append(errs, field.TooLong(p.Child("interfaceName"), "", resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(n.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		errs = append(errs, field.TooLong(p.Child("hardwareAddress"), "", resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	for i, ip := range n.IPs {
		if _, _, err := net.ParseCIDR(ip); err != nil {
			errs = append(errs, field.Invalid(p.Child("ips").Index(i), ip, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"))
		}
	}
	return errs
}
