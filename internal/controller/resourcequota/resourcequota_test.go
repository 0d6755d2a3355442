package resourcequota_test

import (
	"context"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/resourcequota"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// A quota counts what is there, and what leaves or ends is given back.
func TestCounting(t *testing.T) {
	r := registrytest.Start(t, nil, nil)
	log := slog.New(slog.DiscardHandler)
	c := client.Local(r.Registry, registrytest.Admin, log)
	ctx, cancel := context.WithCancel(context.Background())
	ran, worked := make(chan error, 1), make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	loop := resourcequota.New(c, r.Table())
	loop.Name = "resourcequota"
	go func() { worked <- harness.Run(ctx, loop, c, harness.NewMetrics(nil), log, func() {}) }()
	t.Cleanup(func() { cancel(); <-worked; <-ran })

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}}
	a, b := registrytest.Pod("a", asks("100m")), registrytest.Pod("b", asks("200m"))
	r.Must(secret, a, b, registrytest.Pod("elsewhere", asks("1"), func(p *corev1.Pod) { p.Namespace = "kube-system" }))
	hard := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{"pods", "requests.cpu", "secrets", "count/deployments.apps"} {
		hard[name] = resource.MustParse("10")
	}
	r.Must(&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}})
	expect := func(pods, cpu, secrets string) {
		t.Helper()
		clienttest.Eventually(t, "pods "+pods+", cpu "+cpu+", secrets "+secrets, func() bool {
			var q corev1.ResourceQuota
			if c.Live().Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "q"}, &q) != nil {
				return false
			}
			is := func(name corev1.ResourceName, want string) bool {
				v, has := q.Status.Used[name]
				return has && v.Cmp(resource.MustParse(want)) == 0
			}
			return len(q.Status.Hard) == 4 && is("pods", pods) && is("requests.cpu", cpu) && is("secrets", secrets) && is("count/deployments.apps", "0")
		})
	}
	expect("2", "300m", "1")
	if err := r.Delete(registrytest.Admin, a); err != nil {
		t.Fatal(err)
	}
	expect("1", "200m", "1")
	if err := r.Delete(registrytest.Admin, secret); err != nil {
		t.Fatal(err)
	}
	expect("1", "200m", "0")
	var ended corev1.Pod
	if err := c.Live().Get(ctx, crclient.ObjectKeyFromObject(b), &ended); err != nil {
		t.Fatal(err)
	}
	ended.Status.Phase = corev1.PodSucceeded
	if err := c.Status().Update(ctx, &ended); err != nil {
		t.Fatal(err)
	}
	expect("0", "0", "0")

	// A claim leaves a class's quota when it has got another class, which only its status says.
	gold := "gold"
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		VolumeAttributesClassName: &gold, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}
	r.Must(claim, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "silver"}, Spec: corev1.ResourceQuotaSpec{
		Hard: corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: resource.MustParse("5")},
		ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: corev1.ResourceQuotaScopeVolumeAttributesClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"silver"}},
		}},
	}})
	for _, is := range []struct{ class, want string }{{"gold", "0"}, {"silver", "1"}, {"gold", "0"}} {
		var c1 corev1.PersistentVolumeClaim
		if err := c.Live().Get(ctx, crclient.ObjectKeyFromObject(claim), &c1); err != nil {
			t.Fatal(err)
		}
		c1.Status.CurrentVolumeAttributesClassName = &is.class
		if err := c.Status().Update(ctx, &c1); err != nil {
			t.Fatal(err)
		}
		clienttest.Eventually(t, is.want+" claims of class silver", func() bool {
			var q corev1.ResourceQuota
			err := c.Live().Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "silver"}, &q)
			v, has := q.Status.Used[corev1.ResourcePersistentVolumeClaims]
			return err == nil && has && v.Cmp(resource.MustParse(is.want)) == 0
		})
	}
}

func asks(cpu string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
}
