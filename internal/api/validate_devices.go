package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	devicecel "k8s.io/dynamic-resource-allocation/cel"

	"skiff.dev/skiff/internal/api/exponent"
)

func validateDeviceClass(o Object) field.ErrorList {
	s, spec := &o.(*resourcev1.DeviceClass).Spec, field.NewPath("spec")
	errs := deviceSelectors(s.Selectors, spec.Child("selectors"))
	errs = append(errs, atMost(len(s.Config), resourcev1.DeviceConfigMaxSize, spec.Child("config"))...)
	for i := range s.Config {
		errs = append(errs, deviceConfiguration(&s.Config[i].DeviceConfiguration, spec.Child("config").Index(i))...)
	}
	return append(errs, validate.ExtendedResourceName(context.Background(), operation.Operation{}, spec.Child("extendedResourceName"), s.ExtendedResourceName, nil)...)
}

func atMost(n, most int, p *field.Path) field.ErrorList {
	if n <= most {
		return nil
	}
	return field.ErrorList{field.TooMany(p, n, most)}
}

func deviceSelectors(list []resourcev1.DeviceSelector, p *field.Path) field.ErrorList {
	errs := atMost(len(list), resourcev1.DeviceSelectorsMaxSize, p)
	for i := range list {
		at := p.Index(i).Child("cel")
		if list[i].CEL == nil {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		errs = append(errs, deviceExpression(list[i].CEL.Expression, at.Child("expression"))...)
	}
	return errs
}

// deviceExpression compiles a selector: what cannot be compiled, or costs too much, would be found out when a pod is to be placed.
func deviceExpression(text string, p *field.Path) field.ErrorList {
	switch {
	case text == "":
		return field.ErrorList{field.Required(p, "")}
	case len(text) > resourcev1.CELSelectorExpressionMaxLength:
		return field.ErrorList{field.TooLong(p, "", resourcev1.CELSelectorExpressionMaxLength)}
	}
	compiler := devicecel.GetCompiler(devicecel.Features{EnableConsumableCapacity: true, EnableListTypeAttributes: true})
	result := compiler.CompileCELExpression(text, devicecel.Options{})
	long := exponent.Expression(text)
	switch {
	case result.Error != nil:
		return field.ErrorList{field.Invalid(p, text, result.Error.Error())}
	case long != nil: // it would be computed with where pods are placed
		return field.ErrorList{field.Invalid(p, text, long.Error())}
	case result.MaxCost > resourcev1.CELSelectorExpressionMaxCost:
		return field.ErrorList{field.Forbidden(p, "too complex, exceeds cost limit")}
	}
	return nil
}

func deviceConfiguration(c *resourcev1.DeviceConfiguration, p *field.Path) field.ErrorList {
	if c.Opaque == nil {
		return field.ErrorList{field.Required(p.Child("opaque"), "")}
	}
	at := p.Child("opaque")
	errs := driverName(c.Opaque.Driver, at.Child("driver"))
	raw := c.Opaque.Parameters.Raw
	switch {
	case len(raw) == 0:
		errs = append(errs, field.Required(at.Child("parameters"), ""))
	case len(raw) > resourcev1.OpaqueParametersMaxLength:
		errs = append(errs, field.TooLong(at.Child("parameters"), "", resourcev1.OpaqueParametersMaxLength))
	case !strings.HasPrefix(strings.TrimSpace(string(raw)), "{"):
		errs = append(errs, field.Invalid(at.Child("parameters"), "<value omitted>", "must be a valid JSON object"))
	}
	return errs
}

// poolName is one or more DNS subdomains, with slashes between.
func poolName(name string, p *field.Path) (errs field.ErrorList) {
	switch {
	case name == "":
		return field.ErrorList{field.Required(p, "")}
	case len(name) > resourcev1.PoolNameMaxLength:
		return field.ErrorList{field.TooLong(p, "", resourcev1.PoolNameMaxLength)}
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, each(p, part, validation.IsDNS1123Subdomain(part))...)
	}
	return errs
}

func validateResourceClaim(o Object) field.ErrorList {
	return deviceClaim(&o.(*resourcev1.ResourceClaim).Spec.Devices, field.NewPath("spec", "devices"))
}

func validateResourceClaimUpdate(o, old Object) field.ErrorList {
	return immutable(&o.(*resourcev1.ResourceClaim).Spec, &old.(*resourcev1.ResourceClaim).Spec, field.NewPath("spec"))
}

func validateClaimTemplate(o Object) field.ErrorList {
	return deviceClaim(&o.(*resourcev1.ResourceClaimTemplate).Spec.Spec.Devices, field.NewPath("spec", "spec", "devices"))
}

func validateClaimTemplateUpdate(o, old Object) field.ErrorList {
	return immutable(&o.(*resourcev1.ResourceClaimTemplate).Spec, &old.(*resourcev1.ResourceClaimTemplate).Spec, field.NewPath("spec"))
}

func deviceClaim(c *resourcev1.DeviceClaim, p *field.Path) field.ErrorList {
	requests := p.Child("requests")
	errs := atMost(len(c.Requests), resourcev1.DeviceRequestsMaxSize, requests)
	known := map[string]bool{} // names by which constraints and configurations may refer to requests
	for i := range c.Requests {
		r, at := &c.Requests[i], requests.Index(i)
		errs = append(errs, requestName(r.Name, known, "", at.Child("name"))...)
		switch {
		case (r.Exactly == nil) == (len(r.FirstAvailable) == 0):
			errs = append(errs, field.Invalid(at, "<value omitted>", "exactly one of `exactly` or `firstAvailable` is required"))
		case r.Exactly != nil:
			e := r.Exactly
			errs = append(errs, deviceRequest(e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, at.Child("exactly"))...)
			errs = append(errs, capacityRequests(e.Capacity, at.Child("exactly", "capacity", "requests"))...)
		}
		errs = append(errs, atMost(len(r.FirstAvailable), resourcev1.FirstAvailableDeviceRequestMaxSize, at.Child("firstAvailable"))...)
		for k := range r.FirstAvailable {
			sub, at := &r.FirstAvailable[k], at.Child("firstAvailable").Index(k)
			errs = append(errs, requestName(sub.Name, known, r.Name+"/", at.Child("name"))...)
			errs = append(errs, deviceRequest(sub.DeviceClassName, sub.Selectors, sub.AllocationMode, sub.Count, sub.Tolerations, at)...)
			errs = append(errs, capacityRequests(sub.Capacity, at.Child("capacity", "requests"))...)
		}
	}
	errs = append(errs, deviceConstraints(c.Constraints, known, p.Child("constraints"))...)
	errs = append(errs, atMost(len(c.Config), resourcev1.DeviceConfigMaxSize, p.Child("config"))...)
	for i := range c.Config {
		at := p.Child("config").Index(i)
		errs = append(errs, requestNames(c.Config[i].Requests, known, at.Child("requests"))...)
		errs = append(errs, deviceConfiguration(&c.Config[i].DeviceConfiguration, at)...)
	}
	return errs
}

func requestName(name string, known map[string]bool, prefix string, p *field.Path) field.ErrorList {
	errs := dnsLabel(name, p)
	if name == "" {
		errs = field.ErrorList{field.Required(p, "")}
	}
	if known[prefix+name] {
		errs = append(errs, field.Duplicate(p, name))
	}
	known[prefix+name] = true
	return errs
}

func requestNames(names []string, known map[string]bool, p *field.Path) field.ErrorList {
	errs := atMost(len(names), resourcev1.DeviceRequestsMaxSize, p)
	for i, name := range names {
		switch {
		case !known[name]:
			errs = append(errs, field.Invalid(p.Index(i), name, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		case slices.Contains(names[:i], name):
			errs = append(errs, field.Duplicate(p.Index(i), name))
		}
	}
	return errs
}

func deviceRequest(class string, selectors []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode, count int64, tolerations []resourcev1.DeviceToleration,
	p *field.Path) field.ErrorList {
	errs := required(class, p.Child("deviceClassName"))
	if class != "" {
		errs = dnsSubdomain(class, p.Child("deviceClassName"))
	}
	errs = append(errs, deviceSelectors(selectors, p.Child("selectors"))...)
	switch {
	case mode == resourcev1.DeviceAllocationModeAll && count != 0:
		errs = append(errs, field.Invalid(p.Child("count"), count, fmt.Sprintf("must not be specified when allocationMode is '%s'", mode)))
	case mode == resourcev1.DeviceAllocationModeExactCount && count <= 0:
		errs = append(errs, field.Invalid(p.Child("count"), count, "must be greater than zero"))
	}
	errs = append(errs, oneOf(mode, p.Child("allocationMode"), resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)...)
	errs = append(errs, atMost(len(tolerations), resourcev1.DeviceTolerationsMaxLength, p.Child("tolerations"))...)
	for i := range tolerations {
		errs = append(errs, deviceToleration(&tolerations[i], p.Child("tolerations").Index(i))...)
	}
	return errs
}

func capacityRequests(c *resourcev1.CapacityRequirements, p *field.Path) (errs field.ErrorList) {
	for name, q := range value(c).Requests {
		errs = append(errs, deviceQualified(string(name), false, p.Key(string(name)))...)
		if q.Sign() < 0 {
			errs = append(errs, field.Invalid(p.Key(string(name)), q.String(), "must be greater than or equal to 0"))
		}
	}
	return errs
}

func deviceToleration(t *resourcev1.DeviceToleration, p *field.Path) (errs field.ErrorList) {
	if t.Key != "" {
		errs = each(p.Child("key"), t.Key, validation.IsQualifiedName(t.Key))
	}
	errs = append(errs, oneOf(t.Operator, p.Child("operator"), resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
	switch {
	case t.Operator == resourcev1.DeviceTolerationOpExists && t.Value != "":
		errs = append(errs, field.Invalid(p.Child("value"), t.Value, "must be empty for operator `Exists`"))
	case t.Operator == resourcev1.DeviceTolerationOpEqual && t.Key == "":
		errs = append(errs, field.Required(p.Child("key"), "must be set unless operator is `Exists`"))
	}
	errs = append(errs, each(p.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	if t.Effect != "" {
		errs = append(errs, oneOf(t.Effect, p.Child("effect"), deviceEffects...)...)
	}
	return errs
}

var deviceEffects = []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}

func deviceConstraints(list []resourcev1.DeviceConstraint, known map[string]bool, p *field.Path) field.ErrorList {
	errs := atMost(len(list), resourcev1.DeviceConstraintsMaxSize, p)
	for i := range list {
		c, at := &list[i], p.Index(i)
		errs = append(errs, requestNames(c.Requests, known, at.Child("requests"))...)
		switch {
		case c.MatchAttribute != nil && c.DistinctAttribute != nil:
			errs = append(errs, field.Invalid(at, "<value omitted>", "exactly one of `matchAttribute` or `distinctAttribute` is required"))
		case c.MatchAttribute != nil:
			errs = append(errs, deviceQualified(string(*c.MatchAttribute), true, at.Child("matchAttribute"))...)
		case c.DistinctAttribute != nil:
			errs = append(errs, deviceQualified(string(*c.DistinctAttribute), true, at.Child("distinctAttribute"))...)
		default:
			errs = append(errs, field.Required(at.Child("matchAttribute"), ""))
		}
	}
	return errs
}

// deviceQualified checks the name of an attribute or a capacity: a C identifier, behind a domain and a slash if full.
func deviceQualified(name string, full bool, p *field.Path) (errs field.ErrorList) {
	domain, id, split := strings.Cut(name, "/")
	if !split {
		domain, id = "", name
		if full {
			return field.ErrorList{field.Invalid(p, name, "must include a domain")}
		}
	}
	if split {
		if len(domain) > resourcev1.DeviceMaxDomainLength {
			errs = append(errs, field.TooLong(p, "", resourcev1.DeviceMaxDomainLength))
		}
		errs = append(errs, each(p, domain, validation.IsDNS1123Subdomain(domain))...)
	}
	if len(id) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(p, "", resourcev1.DeviceMaxIDLength))
	}
	return append(errs, each(p, id, validation.IsCIdentifier(id))...)
}

func deviceTaint(t *resourcev1.DeviceTaint, p *field.Path) field.ErrorList {
	errs := required(t.Key, p.Child("key"))
	if t.Key != "" {
		errs = each(p.Child("key"), t.Key, validation.IsQualifiedName(t.Key))
	}
	errs = append(errs, each(p.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	return append(errs, oneOf(t.Effect, p.Child("effect"), deviceEffects...)...)
}

func validateDeviceTaintRule(o Object) field.ErrorList {
	s, spec := &o.(*resourcev1.DeviceTaintRule).Spec, field.NewPath("spec")
	errs := deviceTaint(&s.Taint, spec.Child("taint"))
	if d := s.DeviceSelector; d != nil {
		at := spec.Child("deviceSelector")
		if d.Driver != nil {
			errs = append(errs, driverName(*d.Driver, at.Child("driver"))...)
		}
		if d.Pool != nil {
			errs = append(errs, poolName(*d.Pool, at.Child("pool"))...)
		}
		if d.Device != nil {
			errs = append(errs, dnsLabel(*d.Device, at.Child("device"))...)
		}
	}
	return errs
}

func validateDeviceTaintRuleStatus(o, _ Object) field.ErrorList {
	list, at := o.(*resourcev1.DeviceTaintRule).Status.Conditions, field.NewPath("status", "conditions")
	return append(atMost(len(list), resourcev1.DeviceTaintRuleStatusMaxConditions, at), metavalidation.ValidateConditions(list, at)...)
}
