package podautoscaler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// facts are all that a decision is made of, but the time and the history.
type facts struct {
	autoscaler  *autoscalingv2.HorizontalPodAutoscaler
	target      *unstructured.Unstructured
	scale       *autoscalingv1.Scale
	scaleErr    error
	selector    labels.Selector // nil: the scale has none
	selectorErr error
	pods        []*corev1.Pod
	podsErr     error
	usage       []metricsv1beta1.PodMetrics
	usageErr    error
	outside     map[int]reading // of metrics that somebody outside knows
	rivals      []string
}

// outcome is what is to be done, and said.
type outcome struct {
	current, desired int32
	rescale          bool
	done             bool // the target was scaled
	reason           string
	metrics          []autoscalingv2.MetricStatus
	conditions       []autoscalingv2.HorizontalPodAutoscalerCondition
	events           []event
}

type event struct{ kind, reason, message string }

// decide says how many replicas there shall be. It notes what it recommends in the history.
func decide(f *facts, h *history, now time.Time) outcome {
	a := f.autoscaler
	o := outcome{
		current: a.Status.CurrentReplicas, desired: a.Status.DesiredReplicas, metrics: a.Status.CurrentMetrics, conditions: slices.Clone(a.Status.Conditions),
	}
	if f.scaleErr != nil {
		o.complain(autoscalingv2.AbleToScale, "FailedGetScale", f.scaleErr.Error(),
			fmt.Sprintf("the HPA controller was unable to get the target's current scale: %v", f.scaleErr), now)
		return o
	}
	o.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale", now)
	o.current, o.metrics = f.scale.Spec.Replicas, nil
	if len(h.recommended) == 0 {
		h.recommend(now, o.current)
	}
	least := leastOf(a)
	switch {
	case o.current == 0 && !o.wakesFromNothing(a.Spec.Metrics):
		// Whoever scales a workload to nothing wants it off.
		o.desired = 0
		o.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero", now)
	case o.current > a.Spec.MaxReplicas:
		o.desired, o.rescale, o.reason = a.Spec.MaxReplicas, true, "Current number of replicas above Spec.MaxReplicas"
	case o.current < least:
		o.desired, o.rescale, o.reason = least, true, "Current number of replicas below Spec.MinReplicas"
	default:
		o.byMetrics(f, h, least, now)
	}
	return o
}

func leastOf(a *autoscalingv2.HorizontalPodAutoscaler) int32 {
	if a.Spec.MinReplicas != nil {
		return *a.Spec.MinReplicas
	}
	return 1
}

// byMetrics asks every metric and goes by the one that wants the most.
func (o *outcome) byMetrics(f *facts, h *history, least int32, now time.Time) {
	wanted, metric, ok := o.wanted(f, now)
	if !ok {
		o.desired = f.autoscaler.Status.DesiredReplicas
		return
	}
	switch {
	case wanted > o.current:
		o.reason = metric + " above target"
	case wanted < o.current:
		o.reason = "All metrics below target"
	}
	rules := rulesOf(f.autoscaler.Spec.Behavior)
	stable, reason, message := h.stabilize(now, rules, o.current, wanted)
	o.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, reason, message, now)
	var limited corev1.ConditionStatus
	o.desired, reason, message = h.limit(now, rules, o.current, stable, least, f.autoscaler.Spec.MaxReplicas)
	if limited = corev1.ConditionFalse; o.desired != stable {
		limited = corev1.ConditionTrue
	}
	o.set(autoscalingv2.ScalingLimited, limited, reason, message, now)
	o.rescale = o.desired != o.current
}

// wanted is the largest number that a metric asks for. Metrics that cannot be had are passed over, unless they might have kept replicas alive.
func (o *outcome) wanted(f *facts, now time.Time) (replicas int32, metric string, ok bool) {
	if reason, message := unselected(f); reason != "" {
		event := reason
		if f.selector == nil && f.selectorErr == nil {
			event = "SelectorRequired"
		}
		if o.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, reason, message, now) {
			o.events = append(o.events, event1(event, message))
		}
		return 0, "", false
	}
	var first *failure
	failed, specs := 0, f.autoscaler.Spec.Metrics
	o.metrics = make([]autoscalingv2.MetricStatus, len(specs))
	for i := range specs {
		p, err := propose(f, i, now)
		if err != nil {
			if first == nil {
				first = err
			}
			failed++
			continue
		}
		o.metrics[i] = p.status
		if metric == "" || p.replicas > replicas {
			replicas, metric = p.replicas, p.name
		}
	}
	if failed == len(specs) || failed > 0 && replicas < o.current {
		message := fmt.Sprintf("the HPA was unable to compute the replica count: %v", first.cause)
		if o.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, first.reason, message, now) {
			o.events = append(o.events, event1(first.reason, first.cause.Error()), event1("FailedComputeMetricsReplicas",
				fmt.Sprintf("invalid metrics (%d invalid out of %d), first error is: %v", failed, len(specs), first)))
		}
		return 0, "", false
	}
	o.set(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound",
		"the HPA was able to successfully calculate a replica count from "+metric, now)
	return replicas, metric, true
}

// unselected says why it isn't known which pods are the target's.
func unselected(f *facts) (reason, message string) {
	switch {
	case f.selectorErr != nil:
		return "InvalidSelector", fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", f.selectorErr)
	case f.selector == nil:
		return "InvalidSelector", "the HPA target's scale is missing a selector"
	case len(f.rivals) > 0:
		all := append(slices.Clone(f.rivals), f.autoscaler.Namespace+"/"+f.autoscaler.Name)
		slices.Sort(all)
		return "AmbiguousSelector", fmt.Sprintf("pods by selector %v are controlled by multiple HPAs: [%s]", f.selector, strings.Join(all, " "))
	}
	return "", ""
}

// failure is a metric that cannot be had: upstream's reason, and why.
type failure struct {
	reason string
	what   string // "failed to get cpu resource metric value"
	cause  error
}

func (f *failure) Error() string { return f.what + ": " + f.cause.Error() }

// proposal is what one metric asks for.
type proposal struct {
	replicas int32
	name     string
	status   autoscalingv2.MetricStatus
}

// propose asks the i-th metric.
func propose(f *facts, i int, now time.Time) (proposal, *failure) {
	m := &f.autoscaler.Spec.Metrics[i]
	switch {
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		p, err := proposeResource(f, m.Resource.Name, "", m.Resource.Target, now)
		if err != nil {
			return p, &failure{"FailedGetResourceMetric", fmt.Sprintf("failed to get %s resource metric value", m.Resource.Name), err}
		}
		current := p.status.Resource.Current
		p.status = autoscalingv2.MetricStatus{Type: m.Type, Resource: &autoscalingv2.ResourceMetricStatus{Name: m.Resource.Name, Current: current}}
		return p, nil
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		r := m.ContainerResource
		p, err := proposeResource(f, r.Name, r.Container, r.Target, now)
		if err != nil {
			return p, &failure{"FailedGetContainerResourceMetric", fmt.Sprintf("failed to get %s container metric value", r.Container), err}
		}
		current := p.status.Resource.Current
		p.status = autoscalingv2.MetricStatus{Type: m.Type, ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{
			Name: r.Name, Container: r.Container, Current: current,
		}}
		return p, nil
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		return proposePods(f, m.Pods, f.outside[i], now)
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		return proposeObject(f, m.Object, f.outside[i])
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		return proposeExternal(f, m.External, f.outside[i])
	}
	return proposal{}, &failure{"InvalidMetricSourceType", "invalid metric", fmt.Errorf("unknown metric source type %q", string(m.Type))}
}

var errNoTarget = errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")

// failed and succeeded say how scaling went.
func (o *outcome) failed(err error, now time.Time) {
	o.events = append(o.events, event1("FailedRescale", fmt.Sprintf("New size: %d; reason: %s; error: %v", o.desired, o.reason, err)))
	o.set(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err), now)
	o.desired = o.current
}

func (o *outcome) succeeded(a *autoscalingv2.HorizontalPodAutoscaler, now time.Time) {
	o.done = true
	o.tellZero(a.Spec.Metrics, leastOf(a), now)
	o.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", o.desired), now)
	o.events = append(o.events, event{corev1.EventTypeNormal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", o.desired, o.reason)})
}

// complain sets a condition to false, with an event if that is news.
func (o *outcome) complain(t autoscalingv2.HorizontalPodAutoscalerConditionType, reason, text, message string, now time.Time) {
	if o.set(t, corev1.ConditionFalse, reason, message, now) {
		o.events = append(o.events, event1(reason, text))
	}
}

func event1(reason, message string) event { return event{corev1.EventTypeWarning, reason, message} }

// set a condition; it says whether that is news. Whatever is evaluated every few seconds would otherwise tell the same again and again.
func (o *outcome) set(t autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) (news bool) {
	next := autoscalingv2.HorizontalPodAutoscalerCondition{Type: t, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
	for i := range o.conditions {
		c := &o.conditions[i]
		if c.Type != t {
			continue
		}
		news = c.Status != status || c.Reason != reason || c.Message != message
		if c.Status == status {
			next.LastTransitionTime = c.LastTransitionTime
		}
		*c = next
		return news
	}
	o.conditions = append(o.conditions, next)
	return true
}
