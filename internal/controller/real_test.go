package controller_test

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/apiserver/admission"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/registry/registrytest"
	"skiff.dev/skiff/internal/scheduler"
)

// cluster runs all controllers and the scheduler over a real registry, store and etcd. The store fails the test if anybody changes a shared
// object. The test plays the kubelet.
func cluster(t *testing.T) client.Client {
	t.Helper()
	admit, validate := admission.Default()
	r := registrytest.Start(t, admit, validate)
	log := slog.New(slog.DiscardHandler)
	c := client.Local(r.Registry, registrytest.Admin, log)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	all, err := controller.New(controller.Config{Client: c, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, NodeMask: []int{24}, RootCA: []byte("PEM"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	registrytest.Run(t, all)
	registrytest.Run(t, scheduler.New(scheduler.Config{Client: c, Log: log}))
	return c
}

// kubelet reports a node ready, and makes pods ready or lets them end, until the test ends.
func kubelet(t *testing.T, c client.Client, name string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")},
		Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}}}
	status := node.Status
	if err := c.Create(ctx, node); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the node ready", func() bool {
		if c.Get(ctx, crclient.ObjectKeyFromObject(node), node) != nil {
			return false
		}
		ready := node.DeepCopy()
		ready.Status = status
		return c.SubResource("status").Update(ctx, ready) == nil
	})
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			sync(ctx, c, name)
			time.Sleep(5 * time.Millisecond)
		}
	}()
}

func sync(ctx context.Context, c client.Client, node string) {
	var pods corev1.PodList
	if c.List(ctx, &pods, crclient.MatchingFields{"spec.nodeName": node}) != nil {
		return
	}
	for i := range pods.Items {
		p := pods.Items[i].DeepCopy()
		switch {
		case p.DeletionTimestamp != nil:
			_ = c.Delete(ctx, p, crclient.GracePeriodSeconds(0))
		case p.Status.PodIP == "":
			p.Status.Phase, p.Status.PodIP = corev1.PodRunning, "10.244.0."+strconv.Itoa(1+i)
			p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			_ = c.SubResource("status").Update(ctx, p)
		}
	}
}

func TestWorkloadOverRealStore(t *testing.T) {
	ctx, c := context.Background(), cluster(t)
	kubelet(t, c, "n1")
	clienttest.Eventually(t, "the node's range, and no taint", func() bool {
		var n corev1.Node
		return c.Get(ctx, crclient.ObjectKey{Name: "n1"}, &n) == nil && n.Spec.PodCIDR == "10.244.0.0/24" && len(n.Spec.Taints) == 0
	})
	clienttest.Eventually(t, "what every namespace has", func() bool {
		return c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "default"}, &corev1.ServiceAccount{}) == nil &&
			c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "kube-root-ca.crt"}, &corev1.ConfigMap{}) == nil
	})
	if err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
		t.Fatal(err)
	}
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	replicas := int32(3)
	d := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web:1", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}}}}}
	s := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"},
		Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}}
	began := time.Now()
	for _, o := range []crclient.Object{d, s} {
		if err := c.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	rolledOut := func(revision, image string) func() bool {
		return func() bool {
			var got appsv1.Deployment
			if c.Get(ctx, crclient.ObjectKeyFromObject(d), &got) != nil {
				return false
			}
			return got.Status.UpdatedReplicas == 3 && got.Status.Replicas == 3 && got.Status.AvailableReplicas == 3 && got.Status.ObservedGeneration >= got.Generation &&
				got.Annotations["deployment.kubernetes.io/revision"] == revision && got.Spec.Template.Spec.Containers[0].Image == image
		}
	}
	clienttest.Eventually(t, "the first rollout", rolledOut("1", "web:1"))
	t.Logf("first rollout in %s", time.Since(began))
	began = time.Now()
	setImage(t, c, d, "web:2")
	clienttest.Eventually(t, "the second rollout", rolledOut("2", "web:2"))
	t.Logf("second rollout in %s", time.Since(began))
	setImage(t, c, d, "web:1")
	clienttest.Eventually(t, "the way back", rolledOut("3", "web:1"))
	clienttest.Eventually(t, "three endpoints in both shapes", func() bool {
		var slices discoveryv1.EndpointSliceList
		var classic corev1.Endpoints
		return c.List(ctx, &slices, crclient.InNamespace("shop")) == nil && len(slices.Items) == 1 && len(slices.Items[0].Endpoints) == 3 &&
			c.Get(ctx, crclient.ObjectKeyFromObject(s), &classic) == nil && len(classic.Subsets) == 1 && len(classic.Subsets[0].Addresses) == 3
	})

	began = time.Now()
	if err := c.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the namespace gone", func() bool {
		return apierrors.IsNotFound(c.Get(ctx, crclient.ObjectKey{Name: "shop"}, &corev1.Namespace{}))
	})
	t.Logf("namespace gone in %s", time.Since(began))
	var pods corev1.PodList
	if err := c.List(ctx, &pods); err != nil || len(pods.Items) != 0 {
		t.Errorf("%d pods left, %v", len(pods.Items), err)
	}
}

// Cascades: a Deployment deleted in the background, one in the foreground, one whose pods are to stay.
func TestPropagationOverRealStore(t *testing.T) {
	ctx, c := context.Background(), cluster(t)
	kubelet(t, c, "n1")
	for policy, left := range map[metav1.DeletionPropagation]int{
		metav1.DeletePropagationBackground: 0, metav1.DeletePropagationForeground: 0, metav1.DeletePropagationOrphan: 1,
	} {
		name := strings.ToLower(string(policy))
		one := int32(1)
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: appsv1.DeploymentSpec{
			Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web:1"}}}}}}
		if err := c.Create(ctx, d); err != nil {
			t.Fatal(err)
		}
		clienttest.Eventually(t, "the pod available", func() bool {
			var got appsv1.Deployment
			return c.Get(ctx, crclient.ObjectKeyFromObject(d), &got) == nil && got.Status.AvailableReplicas == 1
		})
		if err := c.Delete(ctx, d, crclient.PropagationPolicy(policy)); err != nil {
			t.Fatal(err)
		}
		clienttest.Eventually(t, name+": the Deployment gone and the rest as asked", func() bool {
			var sets appsv1.ReplicaSetList
			labels := crclient.MatchingLabels{"app": name}
			return apierrors.IsNotFound(c.Get(ctx, crclient.ObjectKeyFromObject(d), &appsv1.Deployment{})) &&
				c.List(ctx, &sets, labels) == nil && len(sets.Items) == left
		})
	}
}

func setImage(t *testing.T, c client.Client, d *appsv1.Deployment, image string) {
	t.Helper()
	clienttest.Eventually(t, "a change of the image", func() bool {
		var got appsv1.Deployment
		if c.Get(context.Background(), crclient.ObjectKeyFromObject(d), &got) != nil {
			return false
		}
		changed := got.DeepCopy()
		changed.Spec.Template.Spec.Containers[0].Image = image
		return c.Update(context.Background(), changed) == nil
	})
}
