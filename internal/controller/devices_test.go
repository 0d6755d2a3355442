package controller_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

// Pods get claims from a template, claims get devices, one each; what a pod had goes with it, and the next one gets it.
func TestDevicesOverRealStore(t *testing.T) {
	ctx, c := context.Background(), cluster(t)
	kubelet(t, c, "n1")
	clienttest.Eventually(t, "the service account", func() bool {
		return c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "default"}, &corev1.ServiceAccount{}) == nil
	})
	request := resourcev1.DeviceRequest{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}
	spec := resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{request}}}
	pod := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{
			ResourceClaims: []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: new("one")}},
			Containers: []corev1.Container{{Name: "c", Image: "web:1",
				Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "gpu"}}}}}}}
	}
	for _, o := range []crclient.Object{
		&resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{
			Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "gpu.example.com"`}}}}},
		&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "n1-gpus"}, Spec: resourcev1.ResourceSliceSpec{
			Driver: "gpu.example.com", NodeName: new("n1"), Pool: resourcev1.ResourcePool{Name: "n1", ResourceSliceCount: 1},
			Devices: []resourcev1.Device{{Name: "gpu-0"}, {Name: "gpu-1"}}}},
		&resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "one"}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: spec}},
		pod("p0"), pod("p1"), pod("p2"),
	} {
		if err := c.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	running := func() (names []string) {
		var pods corev1.PodList
		if err := c.List(ctx, &pods, crclient.InNamespace("default")); err != nil {
			t.Fatal(err)
		}
		for i := range pods.Items {
			if p := &pods.Items[i]; p.Spec.NodeName != "" && len(p.Status.ResourceClaimStatuses) == 1 {
				names = append(names, p.Name)
			}
		}
		return names
	}
	clienttest.Eventually(t, "two of three pods bound", func() bool { return len(running()) == 2 })
	devices := map[string]string{}
	var claims resourcev1.ResourceClaimList
	clienttest.Eventually(t, "three claims, two with devices", func() bool {
		if err := c.List(ctx, &claims, crclient.InNamespace("default")); err != nil {
			t.Fatal(err)
		}
		clear(devices)
		for i := range claims.Items {
			if a := claims.Items[i].Status.Allocation; a != nil && len(claims.Items[i].Status.ReservedFor) == 1 {
				devices[a.Devices.Results[0].Device] = claims.Items[i].Name
			}
		}
		return len(claims.Items) == 3 && len(devices) == 2
	})
	first := running()[0]
	if err := c.Delete(ctx, pod(first)); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the third pod bound", func() bool { return len(running()) == 2 && running()[0] != first && running()[1] != first })
	clienttest.Eventually(t, "the first pod's claim gone", func() bool {
		if err := c.List(ctx, &claims, crclient.InNamespace("default")); err != nil {
			t.Fatal(err)
		}
		for i := range claims.Items {
			if strings.HasPrefix(claims.Items[i].Name, first+"-gpu-") {
				return false
			}
		}
		return len(claims.Items) == 2
	})
	for _, name := range running() {
		if err := c.Delete(ctx, pod(name)); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "nothing left", func() bool {
		return c.List(ctx, &claims, crclient.InNamespace("default")) == nil && len(claims.Items) == 0
	})
}
