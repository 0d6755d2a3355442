package podautoscaler

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/clienttest"
)

func target(kind autoscalingv2.MetricTargetType, amount string) autoscalingv2.MetricTarget {
	q := resource.MustParse(amount)
	if kind == autoscalingv2.ValueMetricType {
		return autoscalingv2.MetricTarget{Type: kind, Value: &q}
	}
	return autoscalingv2.MetricTarget{Type: kind, AverageValue: &q}
}

var (
	queue = autoscalingv2.MetricIdentifier{Name: "queue", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"of": "orders"}}}
	hits  = autoscalingv2.MetricIdentifier{Name: "hits"}
	front = autoscalingv2.CrossVersionObjectReference{Kind: "Ingress", Name: "main", APIVersion: "networking.k8s.io/v1"}
)

func outside(kind autoscalingv2.MetricSourceType, t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	m := autoscalingv2.MetricSpec{Type: kind}
	switch kind {
	case autoscalingv2.PodsMetricSourceType:
		m.Pods = &autoscalingv2.PodsMetricSource{Metric: hits, Target: t}
	case autoscalingv2.ObjectMetricSourceType:
		m.Object = &autoscalingv2.ObjectMetricSource{DescribedObject: front, Metric: hits, Target: t}
	default:
		m.External = &autoscalingv2.ExternalMetricSource{Metric: queue, Target: t}
	}
	return m
}

// found puts a reading at the first metric.
func found(f *facts, value string, byPod ...string) *facts {
	q := resource.MustParse(value)
	r := reading{value: q.MilliValue(), byPod: map[string]measure{}}
	for i, v := range byPod {
		pq := resource.MustParse(v)
		r.byPod[f.pods[i].Name] = measure{value: pq.MilliValue()}
	}
	f.outside = map[int]reading{0: r}
	f.scale.Status.Replicas = f.scale.Spec.Replicas
	return f
}

func asleep(f *facts, scaledToZero bool) *facts {
	status := corev1.ConditionFalse
	if scaledToZero {
		status = corev1.ConditionTrue
	}
	f.autoscaler.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScaledToZero, Status: status}}
	return f
}

func TestOutsideMetrics(t *testing.T) {
	const pods, object, external = autoscalingv2.PodsMetricSourceType, autoscalingv2.ObjectMetricSourceType, autoscalingv2.ExternalMetricSourceType
	value, average := autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType
	at := func(f *facts) *facts { // stabilization aside
		none := int32(0)
		f.autoscaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &none}}
		return f
	}
	for name, c := range map[string]struct {
		facts   *facts
		desired int32
		want    string // part of the conditions
		message string // part of ScalingActive's
	}{
		"pods: average":                    {found(world(2, 1, 10, "1m 1m", outside(pods, target(average, "10"))), "0", "15", "25"), 4, "ValidMetricFound", "from pods metric hits"},
		"pods: readiness means nothing":    {found(world(2, 1, 10, "1m ~", outside(pods, target(average, "10"))), "0", "15", "25"), 4, "ValidMetricFound", ""},
		"pods: a missing one is idle":      {found(world(3, 1, 10, "1m 1m ?", outside(pods, target(average, "10"))), "0", "30", "30"), 6, "ValidMetricFound", ""},
		"object: value":                    {found(world(2, 1, 10, "1m 1m", outside(object, target(value, "100"))), "250"), 5, "ValidMetricFound", "from Ingress metric hits"},
		"object: value counts ready pods":  {found(world(2, 1, 10, "1m ~", outside(object, target(value, "100"))), "300"), 3, "ValidMetricFound", ""},
		"object: value within tolerance":   {found(world(3, 1, 10, "1m ~ ~", outside(object, target(value, "100"))), "105"), 3, "ValidMetricFound", ""},
		"object: average":                  {found(world(2, 1, 10, "1m 1m", outside(object, target(average, "100"))), "250"), 3, "ValidMetricFound", ""},
		"external: value":                  {found(world(2, 1, 10, "1m 1m", outside(external, target(value, "30"))), "60"), 4, "ValidMetricFound", "from external metric queue("},
		"external: average":                {found(world(2, 1, 10, "1m 1m", outside(external, target(average, "30"))), "100"), 4, "ValidMetricFound", ""},
		"external: average within":         {found(world(2, 1, 10, "1m 1m", outside(external, target(average, "30"))), "62"), 2, "ValidMetricFound", ""},
		"external: down":                   {at(found(world(4, 1, 10, "1m 1m 1m 1m", outside(external, target(average, "30"))), "60")), 2, "ValidMetricFound", ""},
		"to zero":                          {at(found(world(1, 0, 10, "1m", outside(external, target(average, "30"))), "0")), 0, "ValidMetricFound", ""},
		"not below the least":              {at(found(world(2, 1, 10, "1m 1m", outside(external, target(average, "30"))), "0")), 1, "TooFewReplicas", ""},
		"from zero, by average":            {asleep(found(world(0, 0, 10, "", outside(external, target(average, "30"))), "61"), true), 3, "ValidMetricFound", ""},
		"from zero, by value":              {asleep(found(world(0, 0, 10, "", outside(object, target(value, "30"))), "1"), true), 1, "ValidMetricFound", ""},
		"nothing to do at zero":            {asleep(found(world(0, 0, 10, "", outside(external, target(value, "30"))), "0"), true), 0, "ValidMetricFound", ""},
		"a resource cannot say so at zero": {asleep(found(world(0, 0, 10, "", outside(external, target(value, "30")), cpu(50)), "45"), true), 2, "ValidMetricFound", ""},
		"switched off by somebody":         {asleep(found(world(0, 0, 10, "", outside(external, target(value, "30"))), "99"), false), 0, "ScalingActive=False/ScalingDisabled", ""},
		"never scaled":                     {found(world(0, 0, 10, "", outside(external, target(value, "30"))), "99"), 0, "ScalingActive=False/ScalingDisabled", ""},
		"the least has become one":         {asleep(found(world(0, 1, 10, "", outside(external, target(value, "30"))), "0"), true), 1, "SucceededGetScale", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := decide(c.facts, &history{}, start)
			if got := conditions(&o); o.desired != c.desired || !strings.Contains(got, c.want) {
				t.Errorf("%d replicas, want %d; conditions %s", o.desired, c.desired, got)
			}
			for _, cond := range o.conditions {
				if cond.Type == autoscalingv2.ScalingActive && !strings.Contains(cond.Message, c.message) {
					t.Errorf("message: %s", cond.Message)
				}
			}
		})
	}
}

func TestWhoTookTheLast(t *testing.T) {
	f := found(world(1, 0, 10, "1m", outside(autoscalingv2.ExternalMetricSourceType, target(autoscalingv2.ValueMetricType, "30"))), "0")
	for _, c := range []struct {
		current, desired int32
		want             string
	}{{1, 0, "ScaledToZero=True/ScaledToZero"}, {0, 2, "ScaledToZero=False/NotScaledToZero"}} {
		o := outcome{current: c.current, desired: c.desired}
		if o.succeeded(f.autoscaler, start); !strings.Contains(conditions(&o), c.want) {
			t.Errorf("from %d to %d: %s", c.current, c.desired, conditions(&o))
		}
	}
}

// What cannot be had is worded as upstream words it.
func TestOutsideFailures(t *testing.T) {
	refused := errors.New("unable to fetch metrics from custom metrics API: refused")
	for kind, want := range map[autoscalingv2.MetricSourceType]string{
		autoscalingv2.PodsMetricSourceType:   "FailedGetPodsMetric: failed to get pods metric value: unable to get metric hits: " + refused.Error(),
		autoscalingv2.ObjectMetricSourceType: "FailedGetObjectMetric: failed to get object metric value: unable to get metric hits: Ingress on default main: " + refused.Error(),
		autoscalingv2.ExternalMetricSourceType: "FailedGetExternalMetric: failed to get queue external metric value: failed to get queue external metric: " +
			"unable to get external metric default/queue/&LabelSelector{MatchLabels:map[string]string{of: orders,},MatchExpressions:[]LabelSelectorRequirement{},}: " + refused.Error(),
	} {
		f := world(1, 1, 10, "1m", outside(kind, target(autoscalingv2.AverageValueMetricType, "1")))
		f.outside = map[int]reading{0: {err: refused}}
		if _, err := propose(f, 0, start); err == nil || err.reason+": "+err.Error() != want {
			t.Errorf("%s: %v, want %s", kind, err, want)
		}
	}
}

// mapped is a client that knows the plural of Ingress.
type mapped struct{ client.Client }

func (mapped) RESTMapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	m.Add(networkingv1.SchemeGroupVersion.WithKind("Ingress"), meta.RESTScopeNamespace)
	return m
}

func TestMeasured(t *testing.T) {
	const items = `{"items":[{"describedObject":{"kind":"Pod","name":"web-0"},"timestamp":"2023-01-01T00:00:00Z","value":"1500m"}]}`
	answers := map[string]string{
		"/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/hits?labelSelector=app%3Dweb":   items,
		"/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/ingresses.networking.k8s.io/main/hits": items,
		"/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/metrics/hits":                          items,
		"/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue?labelSelector=of%3Dorders":     `{"items":[{"value":"2"},{"value":"3"}]}`,
		"/apis/external.metrics.k8s.io/v1beta1/namespaces/default/empty":                               `{"items":[]}`,
	}
	ask := func(_ context.Context, path string) ([]byte, bool, error) {
		if strings.Contains(path, "/v1beta2/") {
			return nil, false, nil // only the older version is there
		}
		body, known := answers[path]
		if !known {
			return nil, true, errors.New("no " + path)
		}
		return []byte(body), true, nil
	}
	average := target(autoscalingv2.AverageValueMetricType, "1")
	ofNamespace, empty := outside(autoscalingv2.ObjectMetricSourceType, average), outside(autoscalingv2.ExternalMetricSourceType, average)
	ofNamespace.Object = &autoscalingv2.ObjectMetricSource{DescribedObject: autoscalingv2.CrossVersionObjectReference{Kind: "Namespace", Name: "default", APIVersion: "v1"}, Metric: hits}
	empty.External = &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "empty"}, Target: average}
	f := world(1, 1, 10, "1m", cpu(50), outside(autoscalingv2.PodsMetricSourceType, average), outside(autoscalingv2.ObjectMetricSourceType, average),
		ofNamespace, outside(autoscalingv2.ExternalMetricSourceType, average), empty)
	a := &autoscaler{client: mapped{clienttest.New(t)}, ask: ask, now: time.Now}
	got := a.measured(context.Background(), f)
	if len(got) != 5 || got[1].err != nil || got[1].byPod["web-0"].value != 1500 || got[2].err != nil || got[2].value != 1500 || got[3].value != 1500 || got[4].value != 5000 {
		t.Errorf("%+v", got)
	}
	if err := got[5].err; err == nil || err.Error() != "no metrics returned from external metrics API" {
		t.Error(err)
	}
	a.ask = nil
	got = a.measured(context.Background(), f)
	for i, want := range map[int]string{
		1: "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered",
		4: "unable to fetch metrics from external metrics API: no external metrics API (external.metrics.k8s.io) registered",
	} {
		if err := got[i].err; err == nil || err.Error() != want {
			t.Errorf("%d: %v", i, err)
		}
	}
}
