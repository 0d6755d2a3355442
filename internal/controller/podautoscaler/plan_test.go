package podautoscaler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

var start = time.Unix(1_700_000_000, 0)

func cpu(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

func amount(name corev1.ResourceName, container, average string) autoscalingv2.MetricSpec {
	q := resource.MustParse(average)
	target := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &q}
	if container != "" {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
			Name: name, Container: container, Target: target,
		}}
	}
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: name, Target: target}}
}

var external = autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
	Metric: autoscalingv2.MetricIdentifier{Name: "queue"},
}}

// world makes facts of a line of pods: "100m" uses that much of its request of 100m and was ready long ago; "?" has no figures; "~" is unready
// but measured; "p" is pending; "x" is going; "new:900m" has been ready for a second.
func world(replicas, least, most int32, pods string, metrics ...autoscalingv2.MetricSpec) *facts {
	f := &facts{
		autoscaler: &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: &least, MaxReplicas: most, Metrics: metrics},
		},
		target: &unstructured.Unstructured{}, selector: labels.SelectorFromSet(labels.Set{"app": "web"}),
		scale: &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}, Status: autoscalingv1.ScaleStatus{Selector: "app=web"}},
	}
	for i, text := range strings.Fields(pods) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("web-%d", i)}}
		p.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
		}}}}
		p.Status.Phase, p.Status.StartTime = corev1.PodRunning, &metav1.Time{Time: start.Add(-time.Hour)}
		ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(-time.Hour))}
		use, measured := text, true
		switch {
		case text == "?":
			measured = false
		case text == "~":
			ready.Status, use, p.Status.StartTime = corev1.ConditionFalse, "900m", &metav1.Time{Time: start.Add(-time.Minute)}
		case text == "p":
			p.Status.Phase, measured = corev1.PodPending, false
		case text == "x":
			p.DeletionTimestamp, use = &metav1.Time{Time: start}, "900m"
		case strings.HasPrefix(text, "new:"):
			use = strings.TrimPrefix(text, "new:")
			p.Status.StartTime, ready.LastTransitionTime = &metav1.Time{Time: start.Add(-2 * time.Second)}, metav1.NewTime(start.Add(-time.Second))
		}
		p.Status.Conditions = []corev1.PodCondition{ready}
		f.pods = append(f.pods, p)
		if measured {
			f.usage = append(f.usage, metricsv1beta1.PodMetrics{
				ObjectMeta: p.ObjectMeta, Timestamp: metav1.NewTime(start), Window: metav1.Duration{Duration: 5 * time.Second},
				Containers: []metricsv1beta1.ContainerMetrics{{Name: "main", Usage: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse(use), corev1.ResourceMemory: resource.MustParse("100Mi"),
				}}},
			})
		}
	}
	return f
}

func conditions(o *outcome) string {
	var out []string
	for _, c := range o.conditions {
		out = append(out, fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason))
	}
	return strings.Join(out, " ")
}

func TestDecide(t *testing.T) {
	change := func(f *facts, do func(*facts)) *facts { do(f); return f }
	cases := []struct {
		name    string
		facts   *facts
		desired int32
		rescale bool
		want    string // part of the conditions
	}{
		{"at target", world(2, 1, 10, "50m 50m", cpu(50)), 2, false, "ScalingLimited=False/DesiredWithinRange"},
		{"within tolerance", world(2, 1, 10, "54m 55m", cpu(50)), 2, false, "ScalingActive=True/ValidMetricFound"},
		{"above target", world(2, 1, 10, "100m 100m", cpu(50)), 4, true, "AbleToScale=True/ReadyForNewScale"},
		{"far above: policies limit", world(2, 1, 20, "900m 900m", cpu(50)), 6, true, "ScalingLimited=True/ScaleUpLimit"},
		{"far above: doubling is more", world(6, 1, 30, "900m 900m 900m 900m 900m 900m", cpu(50)), 12, true, "ScalingLimited=True/ScaleUpLimit"},
		{"above maximum", world(2, 1, 3, "200m 200m", cpu(50)), 3, true, "ScalingLimited=True/TooManyReplicas"},
		{"below target waits", world(4, 1, 10, "10m 10m 10m 10m", cpu(50)), 4, false, "AbleToScale=True/ScaleDownStabilized"},
		{"too few", world(1, 2, 10, "50m", cpu(50)), 2, true, "AbleToScale=True/SucceededGetScale"},
		{"too many", world(9, 2, 5, "", cpu(50)), 5, true, "AbleToScale=True/SucceededGetScale"},
		{"switched off", world(0, 1, 5, "", cpu(50)), 0, false, "ScalingActive=False/ScalingDisabled"},
		{"missing ones are taken for idle going up", world(3, 1, 20, "300m 300m ?", cpu(50)), 7, true, "ScaleUpLimit"},
		{"missing ones turn the tide: nothing is done", world(2, 1, 10, "60m ?", cpu(50)), 2, false, "DesiredWithinRange"},
		{"missing ones are taken for busy going down", world(3, 1, 10, "10m 10m ?", cpu(90)), 3, false, "ScaleDownStabilized"},
		{"unready ones count for nothing going up", world(2, 1, 20, "300m ~", cpu(50)), 6, true, "ScalingActive=True"},
		{"pending ones likewise", world(2, 1, 20, "300m p", cpu(50)), 6, true, "ScalingActive=True"},
		{"going ones are left out", world(2, 1, 10, "50m 50m x", cpu(50)), 2, false, "DesiredWithinRange"},
		{"a start is no load", world(1, 1, 10, "new:900m", cpu(50)), 0, false, "ScalingActive=False/FailedGetResourceMetric"},
		{"an amount", world(2, 1, 10, "100m 200m", amount("cpu", "", "75m")), 4, true, "ValidMetricFound"},
		{"memory needs no readiness", world(1, 1, 10, "new:1m", amount("memory", "", "50Mi")), 2, true, "ValidMetricFound"},
		{"a container", world(2, 1, 10, "100m 100m", amount("cpu", "main", "50m")), 4, true, "ValidMetricFound"},
		{"no such container", world(2, 1, 10, "100m 100m", amount("cpu", "side", "50m")), 0, false, "FailedGetContainerResourceMetric"},
		{"the largest wins", world(2, 1, 10, "100m 100m", cpu(90), cpu(50), cpu(70)), 4, true, "ValidMetricFound"},
		{"a lost metric does not stop going up", world(2, 1, 10, "100m 100m", external, cpu(50)), 4, true, "ValidMetricFound"},
		{"but stops going down", world(4, 1, 10, "10m 10m 10m 10m", external, cpu(50)), 0, false, "ScalingActive=False/FailedGetExternalMetric"},
		{"no figures", change(world(1, 1, 10, "50m", cpu(50)), func(f *facts) { f.usage = nil }), 0, false, "FailedGetResourceMetric"},
		{"no pods", world(2, 1, 10, "", cpu(50)), 0, false, "FailedGetResourceMetric"},
		{"no request", change(world(1, 1, 10, "50m", cpu(50)), func(f *facts) { f.pods[0].Spec.Containers[0].Resources.Requests = nil }), 0, false, "FailedGetResourceMetric"},
		{"no selector", change(world(1, 1, 10, "50m", cpu(50)), func(f *facts) { f.selector = nil }), 0, false, "InvalidSelector"},
		{"two masters", change(world(1, 1, 10, "50m", cpu(50)), func(f *facts) { f.rivals = []string{"default/other"} }), 0, false, "AmbiguousSelector"},
		{"no target", change(world(1, 1, 10, "", cpu(50)), func(f *facts) { f.scaleErr = errors.New("gone") }), 0, false, "AbleToScale=False/FailedGetScale"},
		{"own tolerance", change(world(2, 1, 10, "54m 54m", cpu(50)), func(f *facts) {
			q := resource.MustParse("0.02")
			f.autoscaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{Tolerance: &q}}
		}), 3, true, "ValidMetricFound"},
		{"disabled", change(world(2, 1, 10, "100m 100m", cpu(50)), func(f *facts) {
			never := autoscalingv2.DisabledPolicySelect
			f.autoscaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{SelectPolicy: &never}}
		}), 2, false, "ScalingLimited=True/ScaleUpLimit"},
	}
	for _, c := range cases {
		o := decide(c.facts, &history{}, start)
		if o.desired != c.desired || o.rescale != c.rescale || !strings.Contains(conditions(&o), c.want) {
			t.Errorf("%s: %d (rescale %v), want %d (%v); conditions %s, want %s", c.name, o.desired, o.rescale, c.desired, c.rescale, conditions(&o), c.want)
		}
	}
}

// What people read is worded as upstream words it, and is told once.
func TestMessages(t *testing.T) {
	f := world(2, 1, 10, "100m 100m", amount("cpu", "side", "50m"))
	var h history
	o := decide(f, &h, start)
	const why = "failed to get cpu usage: unable to get metrics for resource cpu: container side not present in metrics for pod default/web-0"
	if got := o.conditions[1].Message; got != "the HPA was unable to compute the replica count: "+why {
		t.Errorf("condition: %s", got)
	}
	if len(o.events) != 2 || o.events[0] != event1("FailedGetContainerResourceMetric", why) ||
		o.events[1].message != "invalid metrics (1 invalid out of 1), first error is: failed to get side container metric value: "+why {
		t.Errorf("events: %+v", o.events)
	}
	f.autoscaler.Status.Conditions = o.conditions
	if again := decide(f, &h, start.Add(5*time.Second)); len(again.events) != 0 || again.conditions[1].LastTransitionTime != o.conditions[1].LastTransitionTime {
		t.Errorf("told again: %+v", again.events)
	}
	f = world(2, 1, 10, "100m 100m", cpu(50))
	o = decide(f, &h, start)
	if o.reason != "cpu resource utilization (percentage of request) above target" || *o.metrics[0].Resource.Current.AverageUtilization != 100 ||
		o.metrics[0].Resource.Current.AverageValue.String() != "100m" {
		t.Errorf("%s: %+v", o.reason, o.metrics)
	}
}

func TestStabilize(t *testing.T) {
	window := func(up, down int32) rules {
		return rulesOf(&autoscalingv2.HorizontalPodAutoscalerBehavior{
			ScaleUp:   &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &up},
			ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &down},
		})
	}
	type step struct {
		after           time.Duration
		current, wanted int32
		stable          int32
	}
	cases := map[string]struct {
		rules rules
		steps []step
	}{
		"going down waits for the highest to be forgotten": {window(0, 20), []step{
			{0, 4, 4, 4}, {5 * time.Second, 4, 1, 4}, {10 * time.Second, 4, 3, 4}, {21 * time.Second, 4, 1, 3}, {29 * time.Second, 3, 1, 3}, {31 * time.Second, 3, 1, 1},
		}},
		"going up waits for the lowest to be forgotten": {window(20, 0), []step{
			{0, 2, 2, 2}, {5 * time.Second, 2, 8, 2}, {10 * time.Second, 2, 6, 2}, {21 * time.Second, 2, 8, 6}, {31 * time.Second, 6, 8, 8},
		}},
		"at once": {window(0, 0), []step{{0, 2, 8, 8}, {time.Second, 8, 1, 1}}},
		"many equal ones are one": {window(0, 20), []step{
			{0, 4, 4, 4}, {5 * time.Second, 4, 4, 4}, {10 * time.Second, 4, 4, 4}, {15 * time.Second, 4, 4, 4}, {34 * time.Second, 4, 1, 4}, {36 * time.Second, 4, 1, 1},
		}},
	}
	for name, c := range cases {
		var h history
		for i, s := range c.steps {
			if got, _, _ := h.stabilize(start.Add(s.after), c.rules, s.current, s.wanted); got != s.stable {
				t.Errorf("%s, step %d: %d, want %d", name, i, got, s.stable)
			}
		}
	}
}

func TestLimit(t *testing.T) {
	policy := func(kind autoscalingv2.HPAScalingPolicyType, n, seconds int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: kind, Value: n, PeriodSeconds: seconds}
	}
	const pods, percent = autoscalingv2.PodsScalingPolicy, autoscalingv2.PercentScalingPolicy
	smallest := autoscalingv2.MinChangePolicySelect
	behave := func(selects *autoscalingv2.ScalingPolicySelect, p ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HorizontalPodAutoscalerBehavior {
		r := &autoscalingv2.HPAScalingRules{SelectPolicy: selects, Policies: p}
		return &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: r, ScaleDown: r}
	}
	cases := []struct {
		name            string
		behavior        *autoscalingv2.HorizontalPodAutoscalerBehavior
		before          []int32 // changes made 10 s ago
		current, wanted int32
		want            int32
		reason          string
	}{
		{"default up", nil, nil, 1, 50, 5, "ScaleUpLimit"},
		{"default up, period used up", nil, []int32{1, 5}, 5, 50, 5, "ScaleUpLimit"},
		{"default down", nil, nil, 50, 1, 1, "DesiredWithinRange"},
		{"pods a minute, some left", behave(nil, policy(pods, 4, 60)), []int32{4, 6}, 6, 20, 8, "ScaleUpLimit"},
		{"pods in 5 s, all left", behave(nil, policy(pods, 4, 5)), []int32{4, 8}, 8, 20, 12, "ScaleUpLimit"},
		{"percent down", behave(nil, policy(percent, 10, 60)), nil, 50, 1, 45, "ScaleDownLimit"},
		{"percent down, period used up", behave(nil, policy(percent, 10, 60)), []int32{50, 45}, 45, 1, 45, "ScaleDownLimit"},
		{"the smallest", behave(&smallest, policy(percent, 100, 60), policy(pods, 2, 60)), nil, 10, 30, 12, "ScaleUpLimit"},
		{"the smallest down", behave(&smallest, policy(percent, 100, 60), policy(pods, 2, 60)), nil, 10, 1, 8, "ScaleDownLimit"},
		{"below minimum", nil, nil, 3, 0, 1, "TooFewReplicas"},
		{"above maximum", nil, nil, 99, 200, 100, "TooManyReplicas"},
	}
	for _, c := range cases {
		var h history
		if c.before != nil {
			h.scaled(start.Add(-10*time.Second), c.before[0], c.before[1], c.behavior)
		}
		got, reason, _ := h.limit(start, rulesOf(c.behavior), c.current, c.wanted, 1, 100)
		if got != c.want || reason != c.reason {
			t.Errorf("%s: %d %s, want %d %s", c.name, got, reason, c.want, c.reason)
		}
	}
}
