package podautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"skiff.dev/skiff/internal/controller/podstate"
)

// Proposals from metrics that somebody outside knows (custom.metrics.k8s.io, external.metrics.k8s.io).

// proposePods goes by the average over the pods, as usage of a resource does; readiness means nothing for it.
func proposePods(f *facts, m *autoscalingv2.PodsMetricSource, r reading, now time.Time) (proposal, *failure) {
	fail := func(err error) (proposal, *failure) {
		return proposal{}, &failure{"FailedGetPodsMetric", "failed to get pods metric value", err}
	}
	if r.err != nil {
		return fail(fmt.Errorf("unable to get metric %s: %w", m.Metric.Name, r.err))
	}
	if m.Target.AverageValue == nil {
		return fail(errors.New("invalid pods metric source: no average value target was set"))
	}
	wanted := m.Target.AverageValue.MilliValue()
	c := calculation{ratio: plainRatio(wanted), full: func(string) int64 { return wanted }}
	replicas, _, average, err := c.replicasOf(f, r.byPod, "", now)
	if err != nil {
		return fail(err)
	}
	return proposal{replicas, "pods metric " + m.Metric.Name, autoscalingv2.MetricStatus{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricStatus{
		Metric: m.Metric, Current: autoscalingv2.MetricValueStatus{AverageValue: milli(average)},
	}}}, nil
}

func proposeObject(f *facts, m *autoscalingv2.ObjectMetricSource, r reading) (proposal, *failure) {
	fail := func(err error) (proposal, *failure) {
		return proposal{}, &failure{"FailedGetObjectMetric", "failed to get object metric value", err}
	}
	if r.err != nil {
		return fail(fmt.Errorf("unable to get metric %s: %s on %s %s: %w", m.Metric.Name, m.DescribedObject.Kind, f.autoscaler.Namespace, m.DescribedObject.Name, r.err))
	}
	replicas, current, ok := byValue(f, m.Target, r.value)
	if !ok {
		return fail(errors.New("invalid object metric source: neither a value target nor an average value target was set"))
	}
	name := fmt.Sprintf("%s metric %s", m.DescribedObject.Kind, m.Metric.Name)
	if m.Target.Type == autoscalingv2.AverageValueMetricType {
		name = fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector)
	}
	return proposal{replicas, name, autoscalingv2.MetricStatus{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricStatus{
		DescribedObject: m.DescribedObject, Metric: m.Metric, Current: current,
	}}}, nil
}

func proposeExternal(f *facts, m *autoscalingv2.ExternalMetricSource, r reading) (proposal, *failure) {
	fail := func(err error) (proposal, *failure) {
		return proposal{}, &failure{"FailedGetExternalMetric", fmt.Sprintf("failed to get %s external metric value", m.Metric.Name), err}
	}
	if r.err != nil {
		_, failed := fail(fmt.Errorf("unable to get external metric %s/%s/%+v: %w", f.autoscaler.Namespace, m.Metric.Name, m.Metric.Selector, r.err))
		again := ": failed to get external metric " + m.Metric.Name
		if m.Target.AverageValue != nil {
			again = fmt.Sprintf(": failed to get %s external metric", m.Metric.Name)
		}
		failed.what += again // upstream says it twice, and people search for its words
		return proposal{}, failed
	}
	replicas, current, ok := byValue(f, m.Target, r.value)
	if !ok {
		return fail(errors.New("invalid external metric source: neither a value target nor an average value target was set"))
	}
	return proposal{replicas, fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector), autoscalingv2.MetricStatus{
		Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricStatus{Metric: m.Metric, Current: current},
	}}, nil
}

// byValue is how many replicas one value asks for. Measured against a value, it says how many times as many as there are; measured against an average, how
// many share it. Without any replica there is nothing to multiply, so each whole target asks for one.
func byValue(f *facts, target autoscalingv2.MetricTarget, value int64) (replicas int32, current autoscalingv2.MetricValueStatus, ok bool) {
	within := toleranceOf(f.autoscaler.Spec.Behavior)
	switch {
	case target.AverageValue != nil && target.Type != autoscalingv2.ValueMetricType:
		wanted, there := target.AverageValue.MilliValue(), f.scale.Status.Replicas
		if ratio := float64(value) / (float64(wanted) * float64(there)); there > 0 && within.hold(ratio) {
			replicas = there
		} else {
			replicas = clamp(math.Ceil(float64(value) / float64(wanted)))
		}
		average := int64(math.Ceil(float64(value) / float64(max(there, 1))))
		return replicas, autoscalingv2.MetricValueStatus{AverageValue: milli(average)}, true
	case target.Value != nil:
		ratio := float64(value) / float64(target.Value.MilliValue())
		switch {
		case f.scale.Spec.Replicas == 0:
			replicas = clamp(math.Ceil(ratio))
		case within.hold(ratio):
			replicas = f.scale.Spec.Replicas
		default:
			replicas = clamp(math.Ceil(ratio * float64(readyPods(f.pods))))
		}
		return replicas, autoscalingv2.MetricValueStatus{Value: milli(value)}, true
	}
	return 0, current, false
}

func readyPods(pods []*corev1.Pod) (n int) {
	for _, p := range pods {
		if p.Status.Phase == corev1.PodRunning && podstate.Ready(p) {
			n++
		}
	}
	return n
}

func milli(v int64) *resource.Quantity { return resource.NewMilliQuantity(v, resource.DecimalSI) }

// wakesFromNothing says whether the workload has no replicas because this controller took the last one away, and whether a metric can tell that one is
// wanted again. Otherwise whoever scaled it to nothing wants it off.
func (o *outcome) wakesFromNothing(specs []autoscalingv2.MetricSpec) bool {
	for _, c := range o.conditions {
		if c.Type == autoscalingv2.ScaledToZero {
			return c.Status == corev1.ConditionTrue && fromOutside(specs)
		}
	}
	return false
}

func fromOutside(specs []autoscalingv2.MetricSpec) bool {
	for i := range specs {
		if specs[i].Type == autoscalingv2.ObjectMetricSourceType || specs[i].Type == autoscalingv2.ExternalMetricSourceType {
			return true
		}
	}
	return false
}

// tellZero says who took the last replica away.
func (o *outcome) tellZero(specs []autoscalingv2.MetricSpec, least int32, now time.Time) {
	if o.current > 0 && o.desired == 0 && least == 0 && fromOutside(specs) {
		o.set(autoscalingv2.ScaledToZero, corev1.ConditionTrue, "ScaledToZero", "the HPA controller scaled the workload to zero", now)
		return
	}
	o.set(autoscalingv2.ScaledToZero, corev1.ConditionFalse, "NotScaledToZero", "the HPA controller did not scale the workload to zero", now)
}
