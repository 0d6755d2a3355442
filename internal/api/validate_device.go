package api

import (
	"fmt"
	"regexp"
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// device checks one device of a slice.
func device(d *resourcev1.Device, ownNodes bool, p *field.Path) (errs field.ErrorList) {
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(p, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	for name, a := range d.Attributes {
		at := p.Child("attributes").Key(string(name))
		errs = append(errs, deviceQualified(string(name), false, at)...)
		errs = append(errs, deviceAttribute(&a, at)...)
	}
	for name, c := range d.Capacity {
		at := p.Child("capacity").Key(string(name))
		errs = append(errs, deviceQualified(string(name), false, at)...)
		errs = append(errs, deviceCapacity(&c, value(d.AllowMultipleAllocations), at)...)
	}
	errs = append(errs, atMost(len(d.Taints), resourcev1.DeviceTaintsMaxLength, p.Child("taints"))...)
	for i := range d.Taints {
		errs = append(errs, deviceTaint(&d.Taints[i], p.Child("taints").Index(i))...)
	}
	errs = append(errs, consumedCounters(d.ConsumesCounters, p.Child("consumesCounters"))...)
	errs = append(errs, bindingConditions(d.BindingConditions, d.BindingFailureConditions, p)...)
	switch named := d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil; {
	case ownNodes:
		errs = append(errs, whichNodes(d.NodeName, d.NodeSelector, d.AllNodes, nil, "of a device", p)...)
	case named:
		errs = append(errs, field.Invalid(p, "<value omitted>", "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	}
	return errs
}

// semver is what semver.org suggests.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-((0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(\+([0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*))?$`)

func deviceAttribute(a *resourcev1.DeviceAttribute, p *field.Path) (errs field.ErrorList) {
	set := 0
	for _, there := range []bool{a.IntValue != nil, a.BoolValue != nil, a.StringValue != nil, a.VersionValue != nil,
		len(a.IntValues) > 0, len(a.BoolValues) > 0, len(a.StringValues) > 0, len(a.VersionValues) > 0} {
		if there {
			set++
		}
	}
	if set != 1 {
		return field.ErrorList{field.Invalid(p, "<value omitted>", "exactly one value must be specified")}
	}
	if a.StringValue != nil {
		errs = append(errs, attributeText(*a.StringValue, false, p.Child("string"))...)
	}
	if a.VersionValue != nil {
		errs = append(errs, attributeText(*a.VersionValue, true, p.Child("version"))...)
	}
	for i, s := range a.StringValues {
		errs = append(errs, attributeText(s, false, p.Child("strings").Index(i))...)
	}
	for i, s := range a.VersionValues {
		errs = append(errs, attributeText(s, true, p.Child("versions").Index(i))...)
	}
	return errs
}

func attributeText(s string, version bool, p *field.Path) (errs field.ErrorList) {
	if version && !semver.MatchString(s) {
		errs = append(errs, field.Invalid(p, s, "must be a string compatible with semver.org spec 2.0.0"))
	}
	if len(s) > resourcev1.DeviceAttributeMaxValueLength {
		errs = append(errs, field.TooLong(p, "", resourcev1.DeviceAttributeMaxValueLength))
	}
	return errs
}

// deviceCapacity: how much of a capacity a request takes is a question only where several may share the device.
func deviceCapacity(c *resourcev1.DeviceCapacity, shared bool, p *field.Path) (errs field.ErrorList) {
	policy := c.RequestPolicy
	if policy == nil {
		return nil
	}
	at := p.Child("requestPolicy")
	if !shared {
		return field.ErrorList{field.Forbidden(at, "may only be specified if the device allows multiple allocations")}
	}
	within := func(q *resource.Quantity, p *field.Path) {
		if q != nil && q.Cmp(c.Value) > 0 {
			errs = append(errs, field.Invalid(p, q.String(), fmt.Sprintf("must not exceed the capacity value %s", c.Value.String())))
		}
	}
	within(policy.Default, at.Child("default"))
	if (len(policy.ValidValues) > 0 || policy.ValidRange != nil) && policy.Default == nil {
		errs = append(errs, field.Required(at.Child("default"), "must be specified with `validValues` or `validRange`"))
	}
	if len(policy.ValidValues) > 0 && policy.ValidRange != nil {
		errs = append(errs, field.Forbidden(at.Child("validRange"), "exactly one of `validValues` or `validRange` may be specified"))
	}
	for i := range policy.ValidValues {
		v, at := &policy.ValidValues[i], at.Child("validValues").Index(i)
		within(v, at)
		if slices.ContainsFunc(policy.ValidValues[:i], func(o resource.Quantity) bool { return o.Cmp(*v) == 0 }) {
			errs = append(errs, field.Duplicate(at, v.String()))
		}
	}
	if d := policy.Default; d != nil && len(policy.ValidValues) > 0 && !slices.ContainsFunc(policy.ValidValues, func(v resource.Quantity) bool { return v.Cmp(*d) == 0 }) {
		errs = append(errs, field.Invalid(at.Child("default"), d.String(), "must be one of `validValues`"))
	}
	if policy.ValidRange != nil {
		within(policy.ValidRange.Max, at.Child("validRange", "max"))
		errs = append(errs, capacityRange(policy, at)...)
	}
	return errs
}

func capacityRange(policy *resourcev1.CapacityRequestPolicy, p *field.Path) (errs field.ErrorList) {
	r, at := policy.ValidRange, p.Child("validRange")
	if r.Min == nil {
		return field.ErrorList{field.Required(at.Child("min"), "")}
	}
	if r.Max != nil && r.Max.Cmp(*r.Min) < 0 {
		errs = append(errs, field.Invalid(at.Child("max"), r.Max.String(), "must not be less than `min`"))
	}
	if r.Step != nil && r.Step.Sign() <= 0 {
		errs = append(errs, field.Invalid(at.Child("step"), r.Step.String(), "must be greater than zero"))
	}
	if d := policy.Default; d != nil && (d.Cmp(*r.Min) < 0 || r.Max != nil && d.Cmp(*r.Max) > 0) {
		errs = append(errs, field.Invalid(p.Child("default"), d.String(), "must be within `validRange`"))
	}
	return errs
}

// bindingConditions are conditions that a claim's status gets before its pod is bound: those that let it, and those that say that it will never be.
func bindingConditions(want, failures []string, p *field.Path) (errs field.ErrorList) {
	good, bad := p.Child("bindingConditions"), p.Child("bindingFailureConditions")
	errs = append(errs, atMost(len(want), resourcev1.BindingConditionsMaxSize, good)...)
	errs = append(errs, atMost(len(failures), resourcev1.BindingFailureConditionsMaxSize, bad)...)
	for i, name := range want {
		errs = append(errs, each(good.Index(i), name, validation.IsQualifiedName(name))...)
		if slices.Contains(want[:i], name) {
			errs = append(errs, field.Duplicate(good.Index(i), name))
		}
	}
	for i, name := range failures {
		errs = append(errs, each(bad.Index(i), name, validation.IsQualifiedName(name))...)
		switch {
		case slices.Contains(failures[:i], name):
			errs = append(errs, field.Duplicate(bad.Index(i), name))
		case slices.Contains(want, name):
			errs = append(errs, field.Invalid(bad.Index(i), name, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	switch {
	case len(want) == 0 && len(failures) > 0:
		errs = append(errs, field.Invalid(good, want, "bindingConditions are required to use bindingFailureConditions"))
	case len(want) > 0 && len(failures) == 0:
		errs = append(errs, field.Invalid(bad, failures, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}

// consumedCounters are what a device takes of its pool's counters, a set once.
func consumedCounters(list []resourcev1.DeviceCounterConsumption, p *field.Path) field.ErrorList {
	errs := atMost(len(list), resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, p)
	names := map[string]bool{}
	for i := range list {
		at := p.Index(i)
		errs = append(errs, requestName(list[i].CounterSet, names, "", at.Child("counterSet"))...)
		errs = append(errs, counters(list[i].Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, at.Child("counters"))...)
	}
	return errs
}

func counters(all map[string]resourcev1.Counter, most int, p *field.Path) field.ErrorList {
	if len(all) == 0 {
		return field.ErrorList{field.Required(p, "")}
	}
	errs := atMost(len(all), most, p)
	for name := range all {
		errs = append(errs, dnsLabel(name, p.Key(name))...)
	}
	return errs
}

// sharedCounters are what the devices of a pool's other slices draw on.
func sharedCounters(s *resourcev1.ResourceSliceSpec, p *field.Path) field.ErrorList {
	errs := atMost(len(s.SharedCounters), resourcev1.ResourceSliceMaxCounterSets, p.Child("sharedCounters"))
	names := map[string]bool{}
	for i := range s.SharedCounters {
		at := p.Child("sharedCounters").Index(i)
		errs = append(errs, requestName(s.SharedCounters[i].Name, names, "", at.Child("name"))...)
		errs = append(errs, counters(s.SharedCounters[i].Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, at.Child("counters"))...)
	}
	if len(s.SharedCounters) > 0 && len(s.Devices) > 0 {
		errs = append(errs, field.Invalid(p, "<value omitted>", "exactly one of `sharedCounters` or `devices` is required"))
	}
	return errs
}
