package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

const extendedGPU = "example.com/gpu"

func asks(name corev1.ResourceName, much string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		r := &p.Spec.Containers[0].Resources
		r.Requests[name] = resource.MustParse(much)
		r.Limits = corev1.ResourceList{name: resource.MustParse(much)}
	}
}

func called(extended string) func(*resourcev1.DeviceClass) {
	return func(c *resourcev1.DeviceClass) { c.Spec.ExtendedResourceName = &extended }
}

func plugin(much string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Status.Allocatable[extendedGPU] = resource.MustParse(much) }
}

// specialClaims are those made for extended resources, by pod.
func specialClaims(t *testing.T, c *clienttest.Client) map[string]*resourcev1.ResourceClaim {
	t.Helper()
	var list resourcev1.ResourceClaimList
	if err := c.List(context.Background(), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]*resourcev1.ResourceClaim{}
	for i := range list.Items {
		if one := &list.Items[i]; one.Annotations[resourcev1.ExtendedResourceClaimAnnotation] == "true" {
			out[metav1.GetControllerOf(one).Name] = one
		}
	}
	return out
}

// wantDevices wants a bound pod to have a claim of its own with so many devices of its node, and to say so.
func wantDevices(t *testing.T, c *clienttest.Client, name string, devices int, mappings ...corev1.ContainerExtendedResourceRequest) {
	t.Helper()
	p, claim := get(t, c, name), specialClaims(t, c)[name]
	if claim == nil {
		t.Errorf("%s has no claim", name)
		return
	}
	got := devicesOf(claim)
	if len(got) != devices || slices.ContainsFunc(got, func(d string) bool { return !strings.HasPrefix(d, p.Spec.NodeName+"-") }) {
		t.Errorf("%s on %s has %v", name, p.Spec.NodeName, got)
	}
	if len(claim.Status.ReservedFor) != 1 || claim.Status.ReservedFor[0].UID != p.UID || !slices.Contains(claim.Finalizers, resourcev1.Finalizer) ||
		!strings.HasPrefix(claim.Name, name+"-extended-resources-") {
		t.Errorf("the claim of %s is %+v, reserved for %v", name, claim.ObjectMeta, claim.Status.ReservedFor)
	}
	if s := p.Status.ExtendedResourceClaimStatus; s == nil || s.ResourceClaimName != claim.Name || !slices.Equal(s.RequestMappings, mappings) {
		t.Errorf("%s says %+v, its claim is %s", name, s, claim.Name)
	}
}

// Of two nodes with devices, a strategy that weighs the resource takes the one that has more, or less, of them in use, though the other is better for the rest.
func TestExtendedResourcesScored(t *testing.T) {
	for strategy, want := range map[string]string{"MostAllocated": "used", "LeastAllocated": "idle"} {
		_, c := beginWith(t, settingsOf(t, "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: "+strategy+
			", resources: [{name: "+extendedGPU+", weight: 9}, {name: cpu, weight: 1}]}}}]}]"),
			node("used", "4"), node("idle", "4"), slice("used", "big", "big", "big"), slice("idle", "big", "big", "big"), changed(gpuClass("gpus", ""), called(extendedGPU)),
			on(pod("filler", "1"), "idle"))
		first := changed(pod("first", "100m"), asks(extendedGPU, "1"))
		first.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"used"}}}}}}}}
		create(t, c, first)
		clienttest.Eventually(t, "the first pod bound", func() bool { return get(t, c, "first").Spec.NodeName == "used" })
		create(t, c, changed(pod("second", "100m"), asks(extendedGPU, "1")))
		clienttest.Eventually(t, "the second pod bound", func() bool { return get(t, c, "second").Spec.NodeName != "" })
		if got := get(t, c, "second").Spec.NodeName; got != want {
			t.Errorf("%s: on %s, want %s", strategy, got, want)
		}
	}
}

// A pod that asks for an extended resource gets it from a plug-in where there is one, and devices of the class elsewhere, by either of its names. Each device
// goes to one pod only, whichever way it was asked for; who comes too late says so, and gets in when a device is free.
func TestExtendedResourcesByDevices(t *testing.T) {
	ctx := context.Background()
	s, c := beginScheduler(t, node("a", "4"), changed(node("plug", "4"), plugin("1")), slice("a", "big", "big", "big"), changed(gpuClass("gpus", ""), called(extendedGPU)))
	on := func(name, node string, change ...func(*corev1.Pod)) *corev1.Pod {
		p := changed(pod(name, "100m"), change...)
		p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": node}
		return p
	}
	for _, n := range []string{"a", "plug"} {
		var live corev1.Node
		if err := c.Get(ctx, crclient.ObjectKey{Name: n}, &live); err != nil {
			t.Fatal(err)
		}
		live.Labels = map[string]string{"kubernetes.io/hostname": n}
		if err := c.Update(ctx, live.DeepCopy()); err != nil {
			t.Fatal(err)
		}
	}
	bound := func(name, node string) {
		t.Helper()
		clienttest.Eventually(t, name+" bound", func() bool { return get(t, c, name).Spec.NodeName == node })
	}
	create(t, c, on("plugged", "plug", asks(extendedGPU, "1")))
	bound("plugged", "plug")
	if p := get(t, c, "plugged"); p.Status.ExtendedResourceClaimStatus != nil || len(specialClaims(t, c)) != 0 {
		t.Errorf("the plug-in's pod says %+v; claims %v", p.Status.ExtendedResourceClaimStatus, specialClaims(t, c))
	}
	mapping := func(name string) corev1.ContainerExtendedResourceRequest {
		return corev1.ContainerExtendedResourceRequest{ContainerName: "c", ResourceName: name, RequestName: "container-0-request-1"}
	}
	create(t, c, on("two", "a", asks(extendedGPU, "2")))
	bound("two", "a")
	wantDevices(t, c, "two", 2, mapping(extendedGPU))
	create(t, c, on("implicit", "a", asks("deviceclass.resource.kubernetes.io/gpus", "1")))
	bound("implicit", "a")
	wantDevices(t, c, "implicit", 1, mapping("deviceclass.resource.kubernetes.io/gpus"))
	if a, b := devicesOf(specialClaims(t, c)["two"]), devicesOf(specialClaims(t, c)["implicit"]); slices.ContainsFunc(a, func(d string) bool { return slices.Contains(b, d) }) {
		t.Errorf("two has %v, implicit %v", a, b)
	}

	create(t, c, changed(pod("late", "100m"), asks(extendedGPU, "1")), claimOf("c", exactly("gpus", 1)), claiming("ordinary", "c"))
	clienttest.Eventually(t, "the reasons", func() bool {
		text := why(get(t, c, "late"))
		return strings.Contains(text, "1 Insufficient "+extendedGPU) && strings.Contains(text, "1 cannot allocate all claims") && strings.Contains(why(get(t, c, "ordinary")), "2 cannot allocate all claims")
	})
	told, err := s.Explain(ctx, "default", "late")
	if text := fmt.Sprint(told); err != nil || !strings.Contains(text, extendedGPU+" is devices of class gpus, 0 of 3 devices of "+driver+" free") {
		t.Errorf("explanation %s, %v", text, err)
	}
	if err := c.Delete(ctx, get(t, c, "plugged")); err != nil { // room on the plug-in's node
		t.Fatal(err)
	}
	bound("late", "plug")
	gone := specialClaims(t, c)["implicit"].DeepCopy()
	gone.Finalizers = nil // as the claims' controller and the garbage collector do once the pod is gone
	if err := errors.Join(c.Delete(ctx, get(t, c, "implicit")), c.Update(ctx, gone), crclient.IgnoreNotFound(c.Delete(ctx, gone))); err != nil {
		t.Fatal(err)
	}
	bound("ordinary", "a")
}

// When a binding fails, the claim is deleted and the pod says nothing of it any more; the next try makes another.
func TestExtendedResourcesWhenBindingFails(t *testing.T) {
	var tries atomic.Int32
	names := map[string]bool{}
	c := clienttest.New(t, node("a", "1"), slice("a", "big"), changed(gpuClass("gpus", ""), called(extendedGPU)))
	run(t, Config{Log: slog.New(slog.DiscardHandler), Client: refusing{c, func(pod, _ string) error {
		claims := specialClaims(t, c)
		if p := get(t, c, pod); len(claims) != 1 || len(devicesOf(claims[pod])) != 1 || p.Status.ExtendedResourceClaimStatus == nil || p.Status.ExtendedResourceClaimStatus.ResourceClaimName != claims[pod].Name {
			t.Errorf("bound with claims %v, and %+v on it", claims, p.Status.ExtendedResourceClaimStatus)
		}
		names[claims[pod].Name] = true // binders have a pod's writes one after the other
		if tries.Add(1) <= 2 {
			return errors.New("connection refused")
		}
		return nil
	}}})
	create(t, c, changed(pod("p", "100m"), asks(extendedGPU, "1")))
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
	wantDevices(t, c, "p", 1, corev1.ContainerExtendedResourceRequest{ContainerName: "c", ResourceName: extendedGPU, RequestName: "container-0-request-1"})
	if len(names) != 3 || len(specialClaims(t, c)) != 1 {
		t.Errorf("tried with %v, left %v", names, specialClaims(t, c))
	}
}

// quotaed refuses claims for extended resources as long as it is told to.
type quotaed struct {
	*clienttest.Client
	full *atomic.Bool
}

func (q quotaed) Create(ctx context.Context, o crclient.Object, opts ...crclient.CreateOption) error {
	if _, claim := o.(*resourcev1.ResourceClaim); claim && q.full.Load() {
		return apierrors.NewForbidden(resourcev1.Resource("resourceclaims"), "x", errors.New("exceeded quota: q"))
	}
	return q.Client.Create(ctx, o, opts...)
}

// A claim that may not be made keeps the pod waiting, and its devices are free for others meanwhile.
func TestExtendedResourcesBeyondQuota(t *testing.T) {
	c, full := clienttest.New(t, node("a", "1"), slice("a", "big"), changed(gpuClass("gpus", ""), called(extendedGPU))), &atomic.Bool{}
	full.Store(true)
	run(t, Config{Log: slog.New(slog.DiscardHandler), Client: quotaed{c, full}})
	create(t, c, changed(pod("p", "100m"), asks(extendedGPU, "1")))
	var events []string
	clienttest.Eventually(t, "the event", func() bool {
		events = append(events, c.Events()...)
		return slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "exceeded quota: q") })
	})
	create(t, c, claimOf("c", exactly("gpus", 1)), claiming("other", "c"))
	clienttest.Eventually(t, "the other bound", func() bool { return get(t, c, "other").Spec.NodeName == "a" })
	if p := get(t, c, "p"); p.Spec.NodeName != "" || p.Status.ExtendedResourceClaimStatus != nil {
		t.Errorf("p is on %q and says %+v", p.Spec.NodeName, p.Status.ExtendedResourceClaimStatus)
	}
}

// What an earlier run of the scheduler left behind, a claim with devices of a pod that was never bound, is deleted, and the pod gets its devices anew.
func TestExtendedResourcesLeftOver(t *testing.T) {
	c := clienttest.New(t, node("a", "1"), slice("a", "big"), changed(gpuClass("gpus", ""), called(extendedGPU)))
	create(t, c, changed(pod("p", "100m"), asks(extendedGPU, "1")))
	left := claimOf("left", exactly("gpus", 1))
	left.Annotations, left.Finalizers = map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"}, []string{resourcev1.Finalizer}
	left.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(get(t, c, "p"), corev1.SchemeGroupVersion.WithKind("Pod"))}
	create(t, c, left)
	written := getClaim(t, c, "left").DeepCopy()
	written.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "gpu", Driver: driver, Pool: "a", Device: "a-0"}}}}
	if err := c.SubResource("status").Update(context.Background(), written); err != nil {
		t.Fatal(err)
	}
	run(t, Config{Log: slog.New(slog.DiscardHandler), Client: c})
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
	wantDevices(t, c, "p", 1, corev1.ContainerExtendedResourceRequest{ContainerName: "c", ResourceName: extendedGPU, RequestName: "container-0-request-1"})
	if claims := specialClaims(t, c); len(claims) != 1 || claims["p"].Name == "left" {
		t.Errorf("claims %v", claims)
	}
}

// What a pod says of a claim from a try that failed is taken back before it is bound where a plug-in has what it asks for: its node would look for that claim.
func TestExtendedResourcesNamedInVain(t *testing.T) {
	c := clienttest.New(t, changed(node("plug", "1"), plugin("1")), changed(gpuClass("gpus", ""), called(extendedGPU)))
	create(t, c, changed(pod("p", "100m"), asks(extendedGPU, "1")))
	named := get(t, c, "p").DeepCopy()
	named.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "gone", RequestMappings: []corev1.ContainerExtendedResourceRequest{
		{ContainerName: "c", ResourceName: extendedGPU, RequestName: "container-0-request-1"}}}
	if err := c.SubResource("status").Update(context.Background(), named); err != nil {
		t.Fatal(err)
	}
	run(t, Config{Log: slog.New(slog.DiscardHandler), Client: refusing{c, func(pod, _ string) error {
		if s := get(t, c, pod).Status.ExtendedResourceClaimStatus; s != nil {
			t.Errorf("bound while it says %+v", s)
		}
		return nil
	}}})
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName == "plug" })
}
