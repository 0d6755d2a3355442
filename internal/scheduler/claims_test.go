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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

const driver = "gpu.example.com"

// slice is what a driver offers on a node: devices with a model, named after the node.
func slice(node string, models ...string) *resourcev1.ResourceSlice {
	s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node + "-gpus"}, Spec: resourcev1.ResourceSliceSpec{
		Driver: driver, NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1}}}
	for k, model := range models {
		s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: fmt.Sprintf("%s-%d", node, k),
			Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: &model}}})
	}
	return s
}

func gpuClass(name, model string) *resourcev1.DeviceClass {
	expression := fmt.Sprintf(`device.driver == %q && device.attributes[%q].model.startsWith(%q)`, driver, driver, model)
	return &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.DeviceClassSpec{
		Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: expression}}}}}
}

func exactly(class string, count int64) resourcev1.DeviceRequest {
	return resourcev1.DeviceRequest{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count}}
}

func claimOf(name string, requests ...resourcev1.DeviceRequest) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}}}
}

func claiming(name string, claims ...string) *corev1.Pod {
	p := pod(name, "100m")
	for _, claim := range claims {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: claim, ResourceClaimName: &claim})
	}
	return p
}

func getClaim(t *testing.T, c *clienttest.Client, name string) *resourcev1.ResourceClaim {
	t.Helper()
	var claim resourcev1.ResourceClaim
	if err := c.Get(context.Background(), crclient.ObjectKey{Namespace: "default", Name: name}, &claim); err != nil {
		t.Fatal(err)
	}
	return &claim
}

func devicesOf(claim *resourcev1.ResourceClaim) (list []string) {
	if claim.Status.Allocation != nil {
		for _, r := range claim.Status.Allocation.Devices.Results {
			list = append(list, r.Device)
		}
	}
	return list
}

func create(t *testing.T, c *clienttest.Client, objects ...crclient.Object) {
	t.Helper()
	for _, o := range objects {
		if err := c.Create(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// Ten pods want a device each and there are four: four get one each, on the node that has it, and the others wait and say so. When a claim is
// gone, the next pod gets its device.
func TestDevicesAreNotSharedOut(t *testing.T) {
	ctx := context.Background()
	s, c := beginScheduler(t, node("a", "4"), node("b", "4"), node("none", "4"), slice("a", "big"), slice("b", "small", "small", "big"), gpuClass("gpu", ""))
	for i := range 10 {
		name := fmt.Sprintf("c%d", i)
		create(t, c, claimOf(name, exactly("gpu", 1)), claiming(strings.Replace(name, "c", "p", 1), name))
	}
	look := func() (bound []int, waiting int, devices map[string]int) {
		devices = map[string]int{}
		for i := range 10 {
			p := get(t, c, fmt.Sprintf("p%d", i))
			claim := getClaim(t, c, fmt.Sprintf("c%d", i))
			for _, d := range devicesOf(claim) {
				devices[d]++
			}
			switch {
			case p.Spec.NodeName == "":
				waiting++
				continue
			case len(claim.Status.ReservedFor) != 1 || claim.Status.ReservedFor[0].UID != p.UID || !slices.Contains(claim.Finalizers, resourcev1.Finalizer):
				t.Errorf("%s is bound, and its claim is reserved for %v, %v", p.Name, claim.Status.ReservedFor, claim.Finalizers)
			case !strings.HasPrefix(devicesOf(claim)[0], p.Spec.NodeName):
				t.Errorf("%s on %s has %v", p.Name, p.Spec.NodeName, devicesOf(claim))
			}
			bound = append(bound, i)
		}
		return bound, waiting, devices
	}
	clienttest.Eventually(t, "four pods bound", func() bool { bound, _, _ := look(); return len(bound) == 4 })
	bound, waiting, devices := look()
	if waiting != 6 || len(devices) != 4 {
		t.Fatalf("%d wait, devices %v", waiting, devices)
	}
	for d, n := range devices {
		if n != 1 {
			t.Errorf("%d claims have device %s", n, d)
		}
	}
	waits := slices.IndexFunc([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, func(i int) bool { return !slices.Contains(bound, i) })
	name := fmt.Sprintf("p%d", waits)
	clienttest.Eventually(t, "the reason", func() bool {
		return strings.HasPrefix(why(get(t, c, name)), "Unschedulable: 0/3 nodes are available: 3 cannot allocate all claims.")
	})
	told, err := s.Explain(ctx, "default", name)
	if err != nil || told.Feasible != 0 || len(told.Nodes) != 3 || told.Nodes[0].Plugin != "DynamicResources" || !strings.Contains(fmt.Sprint(told.Nodes), "0 of 3 devices of "+driver+" free") {
		t.Errorf("explanation %+v, %v", told, err)
	}
	gone, claim := get(t, c, fmt.Sprintf("p%d", bound[0])), getClaim(t, c, fmt.Sprintf("c%d", bound[0]))
	if err := c.Delete(ctx, gone); err != nil {
		t.Fatal(err)
	}
	free := claim.DeepCopy()
	free.Status = resourcev1.ResourceClaimStatus{} // as its controller does
	if err := c.SubResource("status").Update(ctx, free); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the next pod bound", func() bool {
		var list corev1.PodList
		if err := c.List(ctx, &list); err != nil {
			t.Fatal(err)
		}
		return len(slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.Spec.NodeName == "" })) == 4
	})
}

// What a claim may ask for: a model, several, all, the first of a list that there is, and the same or different attributes.
func TestWhatClaimsAskFor(t *testing.T) {
	sub := func(name, class string, count int64) resourcev1.DeviceSubRequest {
		return resourcev1.DeviceSubRequest{Name: name, DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count}
	}
	all := exactly("small", 0)
	all.Exactly.AllocationMode = resourcev1.DeviceAllocationModeAll
	alike := claimOf("alike", exactly("gpu", 2))
	model := resourcev1.FullyQualifiedName(driver + "/model")
	alike.Spec.Devices.Constraints = []resourcev1.DeviceConstraint{{MatchAttribute: &model}}
	watching := exactly("big", 1)
	watching.Exactly.AdminAccess = new(true)
	missing := claimOf("missing", exactly("nothing", 1))
	for _, one := range []struct {
		claim *resourcev1.ResourceClaim
		want  string // devices, or a reason
	}{
		{claimOf("model", exactly("big", 1)), "[b-2]"},
		{claimOf("several", exactly("gpu", 3)), "[b-0 b-1 b-2]"},
		{claimOf("all", all), "[b-0 b-1]"},
		{claimOf("list", resourcev1.DeviceRequest{Name: "gpu", FirstAvailable: []resourcev1.DeviceSubRequest{sub("best", "big", 2), sub("good", "small", 2)}}), "[b-0 b-1]"},
		{alike, "[b-0 b-1]"},
		{claimOf("watching", watching), "[b-2]"},
		{claimOf("much", exactly("gpu", 4)), "2 cannot allocate all claims"},
		{missing, "request gpu: device class nothing does not exist"},
	} {
		t.Run(one.claim.Name, func(t *testing.T) {
			c := begin(t, node("a", "4"), node("b", "4"), slice("b", "small", "small", "big"), gpuClass("gpu", ""), gpuClass("big", "big"), gpuClass("small", "small"))
			create(t, c, one.claim, claiming("p", one.claim.Name))
			clienttest.Eventually(t, one.want, func() bool {
				if strings.HasPrefix(one.want, "[") {
					return get(t, c, "p").Spec.NodeName == "b" && fmt.Sprint(devicesOf(getClaim(t, c, one.claim.Name))) == one.want
				}
				return strings.Contains(why(get(t, c, "p")), one.want)
			})
		})
	}
}

// A claim that several pods use holds them to the node where its devices are, whoever came first.
func TestSharedClaim(t *testing.T) {
	c := begin(t, node("a", "1"), node("b", "1"), slice("a", "big"), slice("b", "big"), gpuClass("gpu", ""))
	create(t, c, claimOf("shared", exactly("gpu", 1)))
	for i := range 3 {
		create(t, c, claiming(fmt.Sprintf("p%d", i), "shared"))
	}
	clienttest.Eventually(t, "all on one node", func() bool {
		return get(t, c, "p0").Spec.NodeName != "" && get(t, c, "p0").Spec.NodeName == get(t, c, "p1").Spec.NodeName && get(t, c, "p1").Spec.NodeName == get(t, c, "p2").Spec.NodeName
	})
	if claim := getClaim(t, c, "shared"); len(claim.Status.ReservedFor) != 3 || len(devicesOf(claim)) != 1 {
		t.Errorf("reserved for %v, devices %v", claim.Status.ReservedFor, devicesOf(claim))
	}
}

// Pods wait for their claim, its class and a device that is not tainted, and go on when that comes.
func TestClaimsThatComeLater(t *testing.T) {
	ctx := context.Background()
	rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: new(driver)}, Taint: resourcev1.DeviceTaint{Key: "broken", Effect: resourcev1.DeviceTaintEffectNoSchedule}}}
	c := begin(t, node("a", "1"), slice("a", "big"), rule)
	tolerant := exactly("gpu", 1)
	tolerant.Exactly.Tolerations = []resourcev1.DeviceToleration{{Key: "broken", Operator: resourcev1.DeviceTolerationOpExists}}
	create(t, c, claiming("p", "late"))
	says := func(what string) {
		t.Helper()
		clienttest.Eventually(t, what, func() bool { return strings.Contains(why(get(t, c, "p")), what) })
	}
	says(`resourceclaim "late" not found`)
	create(t, c, claimOf("late", exactly("gpu", 1)))
	says("device class gpu does not exist")
	create(t, c, gpuClass("gpu", ""))
	says("1 cannot allocate all claims")
	create(t, c, claimOf("tolerant", tolerant), claiming("q", "tolerant"))
	clienttest.Eventually(t, "the tolerant pod bound", func() bool { return get(t, c, "q").Spec.NodeName == "a" })
	if err := c.Delete(ctx, get(t, c, "q")); err != nil {
		t.Fatal(err)
	}
	free := getClaim(t, c, "tolerant").DeepCopy()
	free.Status = resourcev1.ResourceClaimStatus{}
	if err := c.SubResource("status").Update(ctx, free); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, rule.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
}

// A claim whose devices are where the pod cannot go gives them back, and gets others.
func TestDevicesElsewhere(t *testing.T) {
	ctx := context.Background()
	c := begin(t, node("a", "1"), slice("a", "big"), gpuClass("gpu", ""))
	create(t, c, claimOf("c", exactly("gpu", 1)), claiming("first", "c"))
	clienttest.Eventually(t, "the first pod bound", func() bool { return get(t, c, "first").Spec.NodeName == "a" })
	if err := c.Delete(ctx, get(t, c, "first")); err != nil {
		t.Fatal(err)
	}
	unused := getClaim(t, c, "c").DeepCopy()
	unused.Status.ReservedFor = nil
	if err := c.SubResource("status").Update(ctx, unused); err != nil {
		t.Fatal(err)
	}
	bound := claiming("second", "c")
	bound.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	b := node("b", "1")
	b.Labels = map[string]string{"disk": "ssd"}
	create(t, c, b, slice("b", "big"), bound)
	clienttest.Eventually(t, "the second pod bound", func() bool { return get(t, c, "second").Spec.NodeName == "b" })
	if got := devicesOf(getClaim(t, c, "c")); fmt.Sprint(got) != "[b-0]" {
		t.Errorf("devices %v", got)
	}
}

// When a binding fails, the reservation is taken back, and the next try uses the same devices; nobody else gets them meanwhile.
func TestBindingWithClaimsFails(t *testing.T) {
	var failed atomic.Int32
	c := clienttest.New(t, node("a", "1"), slice("a", "big"), gpuClass("gpu", ""))
	run(t, Config{Log: slog.New(slog.DiscardHandler), Client: refusing{c, func(pod, _ string) error {
		claim := getClaim(t, c, "c-"+pod)
		if len(claim.Status.ReservedFor) != 1 || len(devicesOf(claim)) != 1 {
			t.Errorf("%s is bound before its claim is written: %+v", pod, claim.Status)
		}
		if failed.Add(1) <= 2 {
			return errors.New("connection refused")
		}
		return nil
	}}})
	create(t, c, claimOf("c-one", exactly("gpu", 1)), claimOf("c-two", exactly("gpu", 1)), claiming("one", "c-one"), claiming("two", "c-two"))
	clienttest.Eventually(t, "one of them bound", func() bool { return get(t, c, "one").Spec.NodeName == "a" || get(t, c, "two").Spec.NodeName == "a" })
	if a, b := devicesOf(getClaim(t, c, "c-one")), devicesOf(getClaim(t, c, "c-two")); len(a)+len(b) != 1 {
		t.Errorf("devices %v and %v", a, b)
	}
	if failed.Load() < 3 {
		t.Error("the binding did not fail")
	}
}

// A pod whose claim is still to be made from its template waits without a word written to it, and goes on when its status names the claim.
func TestClaimFromATemplate(t *testing.T) {
	ctx := context.Background()
	s, c := beginScheduler(t, node("a", "1"), slice("a", "big"), gpuClass("gpu", ""))
	p := pod("p", "100m")
	p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: new("template")}}
	create(t, c, p)
	clienttest.Eventually(t, "the pod tried", func() bool {
		told, err := s.Explain(ctx, "default", "p")
		return err == nil && told.Attempts == 1 && strings.Contains(told.Nearest, "ResourceClaim not created yet")
	})
	create(t, c, claimOf("other", exactly("gpu", 1)), claimOf("made", exactly("gpu", 1))) // changes that others would be tried again for
	if told, err := s.Explain(ctx, "default", "p"); err != nil || told.Attempts != 1 || why(get(t, c, "p")) != "" {
		t.Errorf("tried %d times, %q written, %v", told.Attempts, why(get(t, c, "p")), err)
	}
	made := getClaim(t, c, "made").DeepCopy()
	made.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(get(t, c, "p"), corev1.SchemeGroupVersion.WithKind("Pod"))}
	if err := c.Update(ctx, made); err != nil {
		t.Fatal(err)
	}
	named := get(t, c, "p").DeepCopy()
	named.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: new("made")}}
	if err := c.SubResource("status").Update(ctx, named); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
}
