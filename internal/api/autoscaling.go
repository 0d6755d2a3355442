package api

import (
	"fmt"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
)

// An autoscaler is stored as v2; v1, which knows one target only, is a view of it (autoscaling_v1.go).
func autoscalingRows() []*Resource {
	return []*Resource{of[autoscalingv2.HorizontalPodAutoscaler, autoscalingv2.HorizontalPodAutoscalerList](Resource{
		Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler", Plural: "horizontalpodautoscalers", Short: []string{"hpa"}, Categories: all,
		Key: "horizontalpodautoscalers", Namespaced: true, Status: true, Generation: true, Columns: autoscalerColumns,
		Default:  func(o Object) { defaultAutoscaler(&o.(*autoscalingv2.HorizontalPodAutoscaler).Spec) },
		Validate: validateAutoscaler, ValidateUpdate: sameAsCreate(validateAutoscaler), ValidateStatus: validateAutoscalerStatus,
		Also: []Served{{
			Group: "autoscaling", Version: "v1", Kind: "HorizontalPodAutoscaler", Columns: autoscalerV1Columns,
			New:     func() Object { return &autoscalingv1.HorizontalPodAutoscaler{} },
			NewList: func() runtime.Object { return &autoscalingv1.HorizontalPodAutoscalerList{} },
			To:      func(o Object) Object { return autoscalerToV1(o.(*autoscalingv2.HorizontalPodAutoscaler)) },
			From:    func(o Object) Object { return autoscalerFromV1(o.(*autoscalingv1.HorizontalPodAutoscaler)) },
		}},
	})}
}

// defaultAutoscaler is idempotent. An autoscaler that names no metric goes by CPU.
func defaultAutoscaler(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
	fillNil(&s.MinReplicas, 1)
	if len(s.Metrics) == 0 {
		s.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: pointer(int32(80))},
		}}}
	}
	if s.Behavior == nil {
		return
	}
	scalingRules(&s.Behavior.ScaleUp, pointer(int32(0)),
		autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
		autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15})
	scalingRules(&s.Behavior.ScaleDown, nil, autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15})
}

// scalingRules fills the rules of one direction; window stays open for scaling down, where it is the controller's.
func scalingRules(rules **autoscalingv2.HPAScalingRules, window *int32, policies ...autoscalingv2.HPAScalingPolicy) {
	if *rules == nil {
		*rules = &autoscalingv2.HPAScalingRules{}
	}
	r := *rules
	fillNil(&r.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if r.StabilizationWindowSeconds == nil {
		r.StabilizationWindowSeconds = window
	}
	if r.Policies == nil {
		r.Policies = policies
	}
}

var autoscalerColumns = columns(
	text("Reference", func(h *autoscalingv2.HorizontalPodAutoscaler) string {
		return h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name
	}),
	text("Targets", targetsText),
	text("MinPods", func(h *autoscalingv2.HorizontalPodAutoscaler) string {
		if h.Spec.MinReplicas == nil {
			return "<unset>"
		}
		return number(*h.Spec.MinReplicas)
	}),
	count("MaxPods", func(h *autoscalingv2.HorizontalPodAutoscaler) int32 { return h.Spec.MaxReplicas }),
	count("Replicas", func(h *autoscalingv2.HorizontalPodAutoscaler) int32 { return h.Status.CurrentReplicas }),
)

// autoscalerV1Columns are the same for objects of v1.
var autoscalerV1Columns = func() []Column {
	out := make([]Column, len(autoscalerColumns))
	for i, c := range autoscalerColumns {
		cell := c.Cell
		c.Cell = func(o Object, now time.Time) any {
			return cell(autoscalerFromV1(o.(*autoscalingv1.HorizontalPodAutoscaler)), now)
		}
		out[i] = c
	}
	return out
}()

// shownTargets is how many metrics a line has room for.
const shownTargets = 2

// targetsText is "cpu: 12%/50%": what is, and what is aimed at.
func targetsText(h *autoscalingv2.HorizontalPodAutoscaler) string {
	if len(h.Spec.Metrics) == 0 {
		return "<none>"
	}
	var list []string
	for i := range h.Spec.Metrics {
		var status autoscalingv2.MetricStatus
		if i < len(h.Status.CurrentMetrics) {
			status = h.Status.CurrentMetrics[i]
		}
		list = append(list, targetText(&h.Spec.Metrics[i], &status))
	}
	if more := len(list) - shownTargets; more > 0 {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shownTargets], ", "), more)
	}
	return strings.Join(list, ", ")
}

func targetText(m *autoscalingv2.MetricSpec, s *autoscalingv2.MetricStatus) string {
	var now autoscalingv2.MetricValueStatus
	switch {
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		if s.Resource != nil {
			now = s.Resource.Current
		}
		return string(m.Resource.Name) + ": " + resourceTarget(m.Resource.Target, now)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		if s.ContainerResource != nil {
			now = s.ContainerResource.Current
		}
		return string(m.ContainerResource.Name) + ": " + resourceTarget(m.ContainerResource.Target, now)
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		if s.Pods != nil {
			now = s.Pods.Current
		}
		return amount(now.AverageValue) + "/" + amount(m.Pods.Target.AverageValue)
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		if s.Object != nil {
			now = s.Object.Current
		}
		return valueTarget(m.Object.Target, now)
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		if s.External != nil {
			now = s.External.Current
		}
		return valueTarget(m.External.Target, now)
	}
	return "<unknown type>"
}

func resourceTarget(t autoscalingv2.MetricTarget, now autoscalingv2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return amount(now.AverageValue) + "/" + amount(t.AverageValue)
	}
	is, wanted := "<unknown>", "<auto>"
	if now.AverageUtilization != nil {
		is = number(*now.AverageUtilization) + "%"
	}
	if t.AverageUtilization != nil {
		wanted = number(*t.AverageUtilization) + "%"
	}
	return is + "/" + wanted
}

func valueTarget(t autoscalingv2.MetricTarget, now autoscalingv2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return amount(now.AverageValue) + "/" + amount(t.AverageValue) + " (avg)"
	}
	return amount(now.Value) + "/" + amount(t.Value)
}

func amount(q *resource.Quantity) string {
	if q == nil {
		return "<unknown>"
	}
	return q.String()
}
