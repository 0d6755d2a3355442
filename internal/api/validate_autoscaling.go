package api

import (
	"fmt"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The longest that policies and windows may look back.
const (
	longestWindow = 3600
	longestPeriod = 1800
)

func validateAutoscaler(o Object) (errs field.ErrorList) {
	s, spec := &o.(*autoscalingv2.HorizontalPodAutoscaler).Spec, field.NewPath("spec")
	if s.MinReplicas != nil && *s.MinReplicas < 0 {
		errs = append(errs, field.Invalid(spec.Child("minReplicas"), *s.MinReplicas, "must be greater than or equal to 0"))
	}
	if s.MinReplicas != nil && *s.MinReplicas == 0 && !scalesToZero(s.Metrics) {
		errs = append(errs, field.Forbidden(spec.Child("metrics"), "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	if s.MaxReplicas < 1 {
		errs = append(errs, field.Invalid(spec.Child("maxReplicas"), s.MaxReplicas, "must be greater than 0"))
	}
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(spec.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, crossReference(s.ScaleTargetRef, spec.Child("scaleTargetRef"))...)
	for i := range s.Metrics {
		errs = append(errs, metricErrors(&s.Metrics[i], spec.Child("metrics").Index(i))...)
	}
	if s.Behavior != nil {
		errs = append(errs, ruleErrors(s.Behavior.ScaleUp, spec.Child("behavior", "scaleUp"))...)
		errs = append(errs, ruleErrors(s.Behavior.ScaleDown, spec.Child("behavior", "scaleDown"))...)
	}
	return errs
}

func validateAutoscalerStatus(o, _ Object) field.ErrorList {
	s, status := &o.(*autoscalingv2.HorizontalPodAutoscaler).Status, field.NewPath("status")
	return append(nonNegative(int64(s.CurrentReplicas), status.Child("currentReplicas")), nonNegative(int64(s.DesiredReplicas), status.Child("desiredReplicas"))...)
}

// scalesToZero: only a metric that is not the pods' own can tell that the first one is wanted.
func scalesToZero(metrics []autoscalingv2.MetricSpec) bool {
	return slices.ContainsFunc(metrics, func(m autoscalingv2.MetricSpec) bool {
		return m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	})
}

func crossReference(r autoscalingv2.CrossVersionObjectReference, p *field.Path) (errs field.ErrorList) {
	for _, part := range []struct{ name, value string }{{"kind", r.Kind}, {"name", r.Name}} {
		if part.value == "" {
			errs = append(errs, field.Required(p.Child(part.name), ""))
		} else {
			errs = append(errs, each(p.Child(part.name), part.value, path.IsValidPathSegmentName(part.value))...)
		}
	}
	if _, err := schema.ParseGroupVersion(r.APIVersion); err != nil {
		errs = append(errs, field.Invalid(p.Child("apiVersion"), r.APIVersion, err.Error()))
	}
	return errs
}

var metricSources = []autoscalingv2.MetricSourceType{
	autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType, autoscalingv2.ObjectMetricSourceType,
	autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType,
}

// metricErrors checks that a metric names a source, fills that one and no other, and has a target that fits it.
func metricErrors(m *autoscalingv2.MetricSpec, p *field.Path) (errs field.ErrorList) {
	if m.Type == "" {
		return field.ErrorList{field.Required(p.Child("type"), "must specify a metric source type")}
	}
	if !slices.Contains(metricSources, m.Type) {
		return field.ErrorList{field.NotSupported(p.Child("type"), m.Type, metricSources)}
	}
	for _, source := range []struct {
		kind   autoscalingv2.MetricSourceType
		name   string
		filled bool
		check  func(p *field.Path) field.ErrorList
	}{
		{autoscalingv2.ObjectMetricSourceType, "object", m.Object != nil, func(p *field.Path) field.ErrorList {
			errs := append(crossReference(m.Object.DescribedObject, p.Child("describedObject")), identifierErrors(m.Object.Metric, p.Child("metric"))...)
			errs = append(errs, targetErrors(m.Object.Target, p.Child("target"))...)
			if m.Object.Target.Value == nil && m.Object.Target.AverageValue == nil {
				errs = append(errs, field.Required(p.Child("target", "averageValue"), "must set either a target value or averageValue"))
			}
			return errs
		}},
		{autoscalingv2.PodsMetricSourceType, "pods", m.Pods != nil, func(p *field.Path) field.ErrorList {
			errs := append(identifierErrors(m.Pods.Metric, p.Child("metric")), targetErrors(m.Pods.Target, p.Child("target"))...)
			if q := m.Pods.Target.AverageValue; q == nil || q.Sign() != 1 {
				errs = append(errs, field.Required(p.Child("target", "averageValue"), "must specify a positive target averageValue"))
			}
			return errs
		}},
		{autoscalingv2.ResourceMetricSourceType, "resource", m.Resource != nil, func(p *field.Path) field.ErrorList {
			return resourceMetricErrors(string(m.Resource.Name), m.Resource.Target, p)
		}},
		{autoscalingv2.ContainerResourceMetricSourceType, "containerResource", m.ContainerResource != nil, func(p *field.Path) field.ErrorList {
			errs := resourceMetricErrors(string(m.ContainerResource.Name), m.ContainerResource.Target, p)
			if c := m.ContainerResource.Container; c == "" {
				errs = append(errs, field.Required(p.Child("container"), "must specify a container"))
			} else {
				errs = append(errs, dnsLabel(c, p.Child("container"))...)
			}
			return errs
		}},
		{autoscalingv2.ExternalMetricSourceType, "external", m.External != nil, func(p *field.Path) field.ErrorList {
			errs := append(identifierErrors(m.External.Metric, p.Child("metric")), targetErrors(m.External.Target, p.Child("target"))...)
			switch t := m.External.Target; {
			case t.Value == nil && t.AverageValue == nil:
				errs = append(errs, field.Required(p.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target"))
			case t.Value != nil && t.AverageValue != nil:
				errs = append(errs, field.Forbidden(p.Child("target", "value"), "may not set both a target value for metric and a per-pod target"))
			}
			return errs
		}},
	} {
		at := p.Child(source.name)
		switch {
		case source.filled && source.kind != m.Type:
			errs = append(errs, field.Forbidden(at, "must populate the given metric source only"))
		case source.filled:
			errs = append(errs, source.check(at)...)
		case source.kind == m.Type:
			errs = append(errs, field.Required(at, "must populate information for the given metric source"))
		}
	}
	return errs
}

func resourceMetricErrors(name string, t autoscalingv2.MetricTarget, p *field.Path) (errs field.ErrorList) {
	if name == "" {
		errs = append(errs, field.Required(p.Child("name"), "must specify a resource name"))
	}
	errs = append(errs, targetErrors(t, p.Child("target"))...)
	switch {
	case t.AverageUtilization == nil && t.AverageValue == nil:
		errs = append(errs, field.Required(p.Child("target", "averageUtilization"), "must set either a target raw value or a target utilization"))
	case t.AverageUtilization != nil && t.AverageValue != nil:
		errs = append(errs, field.Forbidden(p.Child("target", "averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func targetErrors(t autoscalingv2.MetricTarget, p *field.Path) (errs field.ErrorList) {
	kinds := []autoscalingv2.MetricTargetType{autoscalingv2.AverageValueMetricType, autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType}
	switch {
	case t.Type == "":
		errs = append(errs, field.Required(p.Child("type"), "must specify a metric target type"))
	case !slices.Contains(kinds, t.Type):
		errs = append(errs, field.Invalid(p.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	if t.Value != nil && t.Value.Sign() != 1 {
		errs = append(errs, field.Invalid(p.Child("value"), t.Value.String(), "must be positive"))
	}
	if t.AverageValue != nil && t.AverageValue.Sign() != 1 {
		errs = append(errs, field.Invalid(p.Child("averageValue"), t.AverageValue.String(), "must be positive"))
	}
	if t.AverageUtilization != nil && *t.AverageUtilization < 1 {
		errs = append(errs, field.Invalid(p.Child("averageUtilization"), *t.AverageUtilization, "must be greater than 0"))
	}
	return errs
}

func identifierErrors(m autoscalingv2.MetricIdentifier, p *field.Path) (errs field.ErrorList) {
	if m.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), "must specify a metric name"))
	} else {
		errs = append(errs, each(p.Child("name"), m.Name, path.IsValidPathSegmentName(m.Name))...)
	}
	if m.Selector != nil {
		errs = append(errs, labelSelector(m.Selector, p.Child("selector"))...)
	}
	return errs
}

// ruleErrors checks how fast an autoscaler may go one way.
func ruleErrors(r *autoscalingv2.HPAScalingRules, p *field.Path) (errs field.ErrorList) {
	if r == nil {
		return nil
	}
	if w := r.StabilizationWindowSeconds; w != nil && *w < 0 {
		errs = append(errs, field.Invalid(p.Child("stabilizationWindowSeconds"), *w, "must be greater than or equal to zero"))
	} else if w != nil && *w > longestWindow {
		errs = append(errs, field.Invalid(p.Child("stabilizationWindowSeconds"), *w, fmt.Sprintf("must be less than or equal to %d", longestWindow)))
	}
	selects := []autoscalingv2.ScalingPolicySelect{autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect}
	if r.SelectPolicy != nil && !slices.Contains(selects, *r.SelectPolicy) {
		errs = append(errs, field.NotSupported(p.Child("selectPolicy"), *r.SelectPolicy, selects))
	}
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(p.Child("policies"), "must specify at least one Policy"))
	}
	kinds := []autoscalingv2.HPAScalingPolicyType{autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy}
	for i, policy := range r.Policies {
		at := p.Child("policies").Index(i)
		if !slices.Contains(kinds, policy.Type) {
			errs = append(errs, field.NotSupported(at.Child("type"), policy.Type, kinds))
		}
		if policy.Value <= 0 {
			errs = append(errs, field.Invalid(at.Child("value"), policy.Value, "must be greater than zero"))
		}
		if policy.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), policy.PeriodSeconds, "must be greater than zero"))
		} else if policy.PeriodSeconds > longestPeriod {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), policy.PeriodSeconds, fmt.Sprintf("must be less than or equal to %d", longestPeriod)))
		}
	}
	if r.Tolerance != nil && r.Tolerance.Sign() < 0 {
		errs = append(errs, field.Invalid(p.Child("tolerance"), r.Tolerance.String(), "must be greater or equal to 0"))
	}
	return errs
}
