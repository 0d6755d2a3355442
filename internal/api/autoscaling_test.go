package api

import (
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

const autoscalerText = `
metadata: {name: web, namespace: default, annotations: {mine: "1"}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 9
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
  - {type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 64Mi}}}
  - {type: ContainerResource, containerResource: {name: cpu, container: main, target: {type: Utilization, averageUtilization: 70}}}
  - {type: Pods, pods: {metric: {name: hits, selector: {matchLabels: {a: b}}}, target: {type: AverageValue, averageValue: "5"}}}
  - {type: Object, object: {describedObject: {kind: Service, name: web, apiVersion: v1}, metric: {name: hits}, target: {type: Value, value: "7"}}}
  - {type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: "30"}}}
  behavior:
    scaleUp: {stabilizationWindowSeconds: 3, selectPolicy: Min, policies: [{type: Pods, value: 2, periodSeconds: 10}], tolerance: "0.05"}
status:
  currentReplicas: 3
  desiredReplicas: 4
  currentMetrics:
  - {type: Resource, resource: {name: cpu, current: {averageUtilization: 55, averageValue: 55m}}}
  conditions:
  - {type: AbleToScale, status: "True", reason: ReadyForNewScale, message: fine}
`

// Through v1 and back nothing is lost.
func TestAutoscalerVersions(t *testing.T) {
	r := rowOf(t, "autoscaling/HorizontalPodAutoscaler")
	obj := parse(t, r, autoscalerText, "{}")
	r.Default(obj)
	obj.GetObjectKind().SetGroupVersionKind(r.GVK())
	before := obj.DeepCopyObject()
	v1 := r.Also[0].To(obj).(*autoscalingv1.HorizontalPodAutoscaler)
	if !equal(obj, before) {
		t.Error("the stored object was changed")
	}
	if *v1.Spec.TargetCPUUtilizationPercentage != 60 || *v1.Status.CurrentCPUUtilizationPercentage != 55 || v1.Annotations["mine"] != "1" ||
		!strings.Contains(v1.Annotations[behaviorAnnotation], `"SelectPolicy":"Min"`) {
		t.Errorf("%+v", v1)
	}
	if back := r.Also[0].From(v1); !equal(back, before) {
		t.Errorf("came back as\n%+v\nwas\n%+v", back, before)
	}
	if got := autoscalerV1Columns[2].Cell(v1, time.Now()); got != "cpu: 55%/60%, memory: <unknown>/64Mi + 4 more..." {
		t.Errorf("targets: %v", got)
	}
	v1.Annotations[metricsAnnotation] = "broken"
	if got := r.Also[0].From(v1).(*autoscalingv2.HorizontalPodAutoscaler); len(got.Spec.Metrics) != 1 || len(got.Annotations) != 1 {
		t.Errorf("a broken annotation makes %+v", got.Spec.Metrics)
	}
}

func TestAutoscalerDefaults(t *testing.T) {
	r := rowOf(t, "autoscaling/HorizontalPodAutoscaler")
	h := parse(t, r, "spec: {scaleTargetRef: {kind: Deployment, name: web, apiVersion: apps/v1}, maxReplicas: 3, behavior: {scaleDown: {stabilizationWindowSeconds: 5}}}",
		"{}").(*autoscalingv2.HorizontalPodAutoscaler)
	r.Default(h)
	once := h.DeepCopy()
	r.Default(h)
	if !equal(h, once) {
		t.Error("defaults are not idempotent")
	}
	if *h.Spec.MinReplicas != 1 || *h.Spec.Metrics[0].Resource.Target.AverageUtilization != 80 || len(h.Spec.Behavior.ScaleUp.Policies) != 2 ||
		*h.Spec.Behavior.ScaleDown.StabilizationWindowSeconds != 5 || len(h.Spec.Behavior.ScaleDown.Policies) != 1 {
		t.Errorf("%+v", h.Spec)
	}
	if errs := r.Validate(h); len(errs) > 0 {
		t.Error(errs)
	}
}

func TestAutoscalerValidation(t *testing.T) {
	r := rowOf(t, "autoscaling/HorizontalPodAutoscaler")
	metric := func(m string) string { return "spec: {metrics: [" + m + "]}" }
	cases := map[string]string{
		"spec: {minReplicas: -1}": "spec.minReplicas: Invalid value: -1: must be greater than or equal to 0",
		"spec: {minReplicas: 0, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]}": "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
		"spec: {maxReplicas: 0}":                                      "spec.maxReplicas: Invalid value: 0: must be greater than 0",
		"spec: {maxReplicas: 1}":                                      "must be greater than or equal to `minReplicas`",
		"spec: {scaleTargetRef: {name: null}}":                        "spec.scaleTargetRef.name: Required value",
		"spec: {scaleTargetRef: {kind: a/b}}":                         "spec.scaleTargetRef.kind: Invalid value",
		"spec: {scaleTargetRef: {apiVersion: a/b/c}}":                 "spec.scaleTargetRef.apiVersion: Invalid value",
		metric("{type: Nonesuch}"):                                    "spec.metrics[0].type: Unsupported value",
		metric("{type: Resource}"):                                    "spec.metrics[0].resource: Required value: must populate information for the given metric source",
		metric("{type: Resource, resource: {name: cpu, target: {}}}"): "must set either a target raw value or a target utilization",
		metric("{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 0}}}"):                   "must be greater than 0",
		metric("{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 5, averageValue: 5}}}"):  "may not set both a target raw value and a target utilization",
		metric("{type: ContainerResource, containerResource: {name: cpu, target: {type: Utilization, averageUtilization: 5}}}"): "must specify a container",
		metric("{type: Pods, pods: {metric: {name: a}, target: {type: AverageValue, averageValue: -1}}}"):                       "must specify a positive target averageValue",
		"spec: {behavior: {scaleUp: {stabilizationWindowSeconds: 3601}}}":                                                       "must be less than or equal to 3600",
		"spec: {behavior: {scaleUp: {selectPolicy: Some}}}":                                                                     "spec.behavior.scaleUp.selectPolicy: Unsupported value",
		"spec: {behavior: {scaleDown: {policies: []}}}":                                                                         "must specify at least one Policy",
		"spec: {behavior: {scaleDown: {policies: [{type: Pods, value: 0, periodSeconds: 1801}]}}}":                              "must be less than or equal to 1800",
		"spec: {behavior: {scaleDown: {tolerance: -1, policies: [{type: Pods, value: 1, periodSeconds: 1}]}}}":                  "must be greater or equal to 0",
	}
	for change, want := range cases {
		obj := parse(t, r, autoscalerText, change)
		if errs := r.Validate(obj); !strings.Contains(errs.ToAggregate().Error(), want) {
			t.Errorf("%s: %v, want %q", change, errs, want)
		}
	}
}
