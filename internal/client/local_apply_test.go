package client_test

import (
	"context"
	"log/slog"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applyautoscalingv1 "k8s.io/client-go/applyconfigurations/autoscaling/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestLocalApply(t *testing.T) {
	ctx := context.Background()
	c := client.Local(registrytest.Start(t, nil, nil).Registry, registrytest.Admin, slog.New(slog.DiscardHandler))

	config := applycorev1.ConfigMap("c", "default").WithData(map[string]string{"a": "1"})
	if err := c.Apply(ctx, config, crclient.FieldOwner("one")); err != nil {
		t.Fatal(err)
	}
	if config.UID == nil || config.ResourceVersion == nil {
		t.Errorf("the answer is not filled in: %+v", config)
	}
	other := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "c", "namespace": "default"}, "data": map[string]any{"a": "2"},
	}}
	if err := c.Apply(ctx, crclient.ApplyConfigurationFromUnstructured(other.DeepCopy()), crclient.FieldOwner("two")); !apierrors.IsConflict(err) {
		t.Errorf("a conflict is answered with %v", err)
	}
	if err := c.Apply(ctx, crclient.ApplyConfigurationFromUnstructured(other), crclient.FieldOwner("two"), crclient.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	var got corev1.ConfigMap
	if err := c.Live().Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "c"}, &got); err != nil || got.Data["a"] != "2" || other.GetUID() != got.UID {
		t.Errorf("%v %+v", err, got.Data)
	}
}

func TestLocalApplyToSubresources(t *testing.T) {
	ctx := context.Background()
	c := client.Local(registrytest.Start(t, nil, nil).Registry, registrytest.Admin, slog.New(slog.DiscardHandler))
	labels := map[string]string{"app": "d"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "a"}}}},
		},
	}
	if err := c.Create(ctx, d); err != nil {
		t.Fatal(err)
	}
	status := applyappsv1.Deployment("d", "default").WithStatus(applyappsv1.DeploymentStatus().WithObservedGeneration(1))
	if err := c.Status().Apply(ctx, status, crclient.FieldOwner("mine")); err != nil {
		t.Fatal(err)
	}
	kind, version, name := "Scale", "autoscaling/v1", "d"
	scale := &applyautoscalingv1.ScaleApplyConfiguration{
		TypeMetaApplyConfiguration:   applymetav1.TypeMetaApplyConfiguration{Kind: &kind, APIVersion: &version},
		ObjectMetaApplyConfiguration: &applymetav1.ObjectMetaApplyConfiguration{Name: &name},
		Spec:                         applyautoscalingv1.ScaleSpec().WithReplicas(4),
	}
	err := c.SubResource("scale").Apply(ctx, applyappsv1.Deployment("d", "default"), &crclient.SubResourceApplyOptions{
		ApplyOptions:    crclient.ApplyOptions{FieldManager: "mine", Force: new(bool)},
		SubResourceBody: scale,
	})
	if !apierrors.IsConflict(err) { // what nobody tracked belongs to whoever was there before
		t.Errorf("a conflict is answered with %v", err)
	}
	force := true
	err = c.SubResource("scale").Apply(ctx, applyappsv1.Deployment("d", "default"), &crclient.SubResourceApplyOptions{
		ApplyOptions:    crclient.ApplyOptions{FieldManager: "mine", Force: &force},
		SubResourceBody: scale,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got appsv1.Deployment
	if err := c.Live().Get(ctx, crclient.ObjectKeyFromObject(d), &got); err != nil || *got.Spec.Replicas != 4 || got.Status.ObservedGeneration != 1 {
		t.Errorf("%v %+v", err, got)
	}
}
