package podautoscaler

import (
	"context"
	"log/slog"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

// A sample wakes every autoscaler; the target is scaled through its scale, the status and an event say so.
func TestSampleScales(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	one, least, target := int32(1), int32(1), int32(50)
	labels := map[string]string{"app": "web"}
	old := metav1.NewTime(time.Now().Add(-time.Hour))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: labels},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
		}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &old, Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: old},
		}},
	}
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "ReplicationController", Name: "web"},
			MinReplicas:    &least, MaxReplicas: 5, Metrics: []autoscalingv2.MetricSpec{cpu(target)},
		},
	}
	cl := clienttest.New(t, pod, h, &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.ReplicationControllerSpec{Replicas: &one, Selector: labels},
	})
	sampled := make(chan func(), 1)
	loop := New(cl, func(f func()) func() { sampled <- f; return func() {} }, nil)
	ended, synced := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- harness.Run(ctx, loop, cl, harness.NewMetrics(nil), slog.New(slog.DiscardHandler), func() { close(synced) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-synced
	status := func() (got autoscalingv2.HorizontalPodAutoscalerStatus) {
		var now autoscalingv2.HorizontalPodAutoscaler
		if err := cl.Get(ctx, crclient.ObjectKeyFromObject(h), &now); err != nil {
			t.Fatal(err)
		}
		return now.Status
	}
	clienttest.Eventually(t, "the condition that nothing was measured yet", func() bool {
		c := status().Conditions
		return len(c) == 2 && c[1].Reason == "FailedGetResourceMetric" &&
			c[1].Message == "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"
	})
	if err := cl.Create(ctx, &metricsv1beta1.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: labels}, Timestamp: metav1.Now(), Window: metav1.Duration{Duration: 5 * time.Second},
		Containers: []metricsv1beta1.ContainerMetrics{{Name: "main", Usage: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("150m")}}},
	}); err != nil {
		t.Fatal(err)
	}
	(<-sampled)()
	clienttest.Eventually(t, "three replicas", func() bool {
		var d corev1.ReplicationController
		return cl.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "web"}, &d) == nil && *d.Spec.Replicas == 3
	})
	clienttest.Eventually(t, "a status that says so", func() bool {
		s := status()
		return s.DesiredReplicas == 3 && s.LastScaleTime != nil && s.Conditions[0].Reason == "SucceededRescale" && len(s.CurrentMetrics) == 1
	})
	clienttest.Eventually(t, "an event", func() bool {
		for _, e := range cl.Events() {
			if e == "Normal SuccessfulRescale New size: 3; reason: cpu resource utilization (percentage of request) above target" {
				return true
			}
		}
		return false
	})
}
