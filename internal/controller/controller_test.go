package controller

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

// start runs controllers against an API in memory until the test ends.
func start(t *testing.T, selection string, objects ...crclient.Object) *clienttest.Client {
	t.Helper()
	c := clienttest.New(t, objects...)
	all, err := New(Config{
		Client: c, Select: selection, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, NodeMask: []int{24}, RootCA: []byte("PEM"),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- all.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("controllers ended with %v", err)
		}
	})
	<-all.Ready()
	return c
}

// serve plays the kubelet: every pod is given an address and made ready.
func serve(t *testing.T, c *clienttest.Client) {
	t.Helper()
	var pods corev1.PodList
	if err := c.List(context.Background(), &pods); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Status.PodIP != "" {
			continue
		}
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.0." + p.Name[len(p.Name)-1:],
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}}
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
		_ = c.SubResource("status").Update(context.Background(), p) // lost races are made good at the next look
	}
}

func webDeployment(image string, replicas int32) *appsv1.Deployment {
	surge, unavailable := intstr.FromInt32(1), intstr.FromInt32(0)
	history, deadline := int32(10), int32(600)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, RevisionHistoryLimit: &history, ProgressDeadlineSeconds: &deadline,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}}},
		},
	}
}

// The life of a Deployment through all controllers at once: made, served, rolled out, deleted.
func TestDeploymentLife(t *testing.T) {
	ctx := context.Background()
	c := start(t, "*", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{
		ClusterIP: "10.96.0.9", Selector: map[string]string{"app": "web"}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}}}}
	d := webDeployment("web:1", 3)
	for _, o := range []crclient.Object{service, d} {
		if err := c.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	settled := func(image string, sets int) func() bool {
		return func() bool {
			serve(t, c)
			var got appsv1.Deployment
			var pods corev1.PodList
			if c.Get(ctx, crclient.ObjectKeyFromObject(d), &got) != nil || c.List(ctx, &pods) != nil {
				return false
			}
			ours := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.Spec.Containers[0].Image != image })
			return got.Status.AvailableReplicas == 3 && got.Status.UpdatedReplicas == 3 && got.Status.Replicas == 3 && len(ours) == 3 &&
				len(c.Names(t, &appsv1.ReplicaSetList{})) == sets
		}
	}
	clienttest.Eventually(t, "three pods of the first template", settled("web:1", 1))
	ready := func(want int) func() bool {
		return func() bool {
			var slices discoveryv1.EndpointSliceList
			if c.List(ctx, &slices) != nil || len(slices.Items) != 1 {
				return false
			}
			n := 0
			for _, e := range slices.Items[0].Endpoints {
				if *e.Conditions.Ready {
					n++
				}
			}
			var classic corev1.Endpoints
			return n == want && c.Get(ctx, crclient.ObjectKeyFromObject(service), &classic) == nil &&
				len(classic.Subsets) == 1 && len(classic.Subsets[0].Addresses) == want && classic.Subsets[0].Ports[0].Port == 8080
		}
	}
	clienttest.Eventually(t, "three endpoints", ready(3))
	clienttest.Eventually(t, "a second template", func() bool {
		var got appsv1.Deployment
		if c.Get(ctx, crclient.ObjectKeyFromObject(d), &got) != nil {
			return false
		}
		got.Spec.Template.Spec.Containers[0].Image = "web:2"
		return c.Update(ctx, &got) == nil
	})
	clienttest.Eventually(t, "three pods of the second template", settled("web:2", 2))
	var got appsv1.Deployment
	if err := c.Get(ctx, crclient.ObjectKeyFromObject(d), &got); err != nil || got.Annotations["deployment.kubernetes.io/revision"] != "2" {
		t.Errorf("annotations %v, %v", got.Annotations, err)
	}
	clienttest.Eventually(t, "three endpoints again", ready(3))
	var account corev1.ServiceAccount
	var authority corev1.ConfigMap
	if c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "default"}, &account) != nil ||
		c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "kube-root-ca.crt"}, &authority) != nil || authority.Data["ca.crt"] != "PEM" {
		t.Error("the namespace lacks its service account or its authority")
	}
	if err := c.Delete(ctx, d); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "nothing left of the Deployment", func() bool {
		return len(c.Names(t, &appsv1.ReplicaSetList{})) == 0 && len(c.Names(t, &corev1.PodList{})) == 0
	})
	clienttest.Eventually(t, "no endpoints", ready0(c))
	if events := c.Events(); !slices.ContainsFunc(events, func(e string) bool { return len(e) > 40 && e[:25] == "Normal ScalingReplicaSet " }) {
		t.Errorf("events %q", events)
	}
}

func ready0(c *clienttest.Client) func() bool {
	return func() bool {
		var slices discoveryv1.EndpointSliceList
		return c.List(context.Background(), &slices) == nil && len(slices.Items) == 1 && len(slices.Items[0].Endpoints) == 0
	}
}

func TestPodsAreReplaced(t *testing.T) {
	ctx := context.Background()
	c := start(t, "replicaset-controller")
	replicas := int32(4)
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: appsv1.ReplicaSetSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}}}}
	if err := c.Create(ctx, rs); err != nil {
		t.Fatal(err)
	}
	pods := func() []string { return c.Names(t, &corev1.PodList{}) }
	clienttest.Eventually(t, "four pods", func() bool { return len(pods()) == 4 })
	first := pods()
	if err := c.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: first[0]}}); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "a replacement", func() bool { return len(pods()) == 4 && !slices.Contains(pods(), first[0]) })

	// An orphan that matches is adopted in place of another; one whose labels go is released and replaced.
	stray := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "stray", Labels: map[string]string{"app": "web"}}}
	if err := c.Create(ctx, stray); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "one of five pods gone", func() bool { return len(pods()) == 4 })
	var released corev1.Pod
	clienttest.Eventually(t, "a pod without labels", func() bool {
		if c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: pods()[0]}, &released) != nil {
			return false
		}
		released.Labels = nil
		return c.Update(ctx, &released) == nil
	})
	clienttest.Eventually(t, "the released pod stays beside four", func() bool {
		var p corev1.Pod
		return len(pods()) == 5 && c.Get(ctx, crclient.ObjectKeyFromObject(&released), &p) == nil && len(p.OwnerReferences) == 0
	})
	clienttest.Eventually(t, "the status", func() bool {
		var got appsv1.ReplicaSet
		return c.Get(ctx, crclient.ObjectKeyFromObject(rs), &got) == nil && got.Status.Replicas == 4 && got.Status.FullyLabeledReplicas == 4
	})
}

func TestNamespaceEnds(t *testing.T) {
	ctx := context.Background()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Finalizers: []string{"test/hold"}},
		Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}}
	held := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "held", Finalizers: []string{"test/hold"}}}
	c := start(t, "namespace-controller", ns, held,
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "key"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "key"}})
	if err := c.Delete(ctx, ns); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the reason why it stays", func() bool {
		var got corev1.Namespace
		if c.Get(ctx, crclient.ObjectKeyFromObject(ns), &got) != nil {
			return false
		}
		return slices.ContainsFunc(got.Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == corev1.NamespaceFinalizersRemaining &&
				c.Message == "Some content in the namespace has finalizers remaining: test/hold in 1 resource instances"
		})
	})
	if names := c.Names(t, &corev1.SecretList{}, crclient.InNamespace("shop")); len(names) != 1 {
		t.Errorf("secrets %v went before the pods", names)
	}
	var pod corev1.Pod
	if err := c.Get(ctx, crclient.ObjectKeyFromObject(held), &pod); err != nil {
		t.Fatal(err)
	}
	pod.Finalizers = nil
	if err := c.Update(ctx, &pod); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the namespace gone", func() bool { return len(c.Names(t, &corev1.NamespaceList{})) == 0 })
	if names := c.Names(t, &corev1.SecretList{}); len(names) != 1 {
		t.Errorf("secrets %v are left, want only the other namespace's", names)
	}
}
