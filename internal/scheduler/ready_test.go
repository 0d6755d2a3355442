package scheduler

import (
	"context"
	"fmt"
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

// attached is what a driver offers on a node whose devices have to be attached first.
func attached(node string, models ...string) *resourcev1.ResourceSlice {
	s := slice(node, models...)
	for k := range s.Spec.Devices {
		d := &s.Spec.Devices[k]
		d.BindsToNode, d.BindingConditions, d.BindingFailureConditions = new(true), []string{"Attached"}, []string{"Broken"}
	}
	return s
}

// report has the driver say that a condition of all of a claim's devices is true.
func report(t *testing.T, c *clienttest.Client, claim, condition string) {
	t.Helper()
	next := getClaim(t, c, claim).DeepCopy()
	next.Status.Devices = nil
	for _, r := range next.Status.Allocation.Devices.Results {
		next.Status.Devices = append(next.Status.Devices, resourcev1.AllocatedDeviceStatus{Driver: r.Driver, Pool: r.Pool, Device: r.Device, Conditions: []metav1.Condition{
			{Type: condition, Status: metav1.ConditionTrue, Reason: "Tested", Message: "as it is", LastTransitionTime: metav1.Now()}}})
	}
	if err := c.SubResource("status").Update(context.Background(), next); err != nil {
		t.Fatal(err)
	}
}

// A pod whose device has to get ready has its claim written, is bound when the condition is true and not before, and can say what it waits for.
func TestBindingConditions(t *testing.T) {
	s, c := beginScheduler(t, node("a", "1"), attached("a", "big"), gpuClass("gpu", ""))
	create(t, c, claimOf("c", exactly("gpu", 1)), claiming("p", "c"))
	clienttest.Eventually(t, "what the pod waits for", func() bool {
		told, err := s.Explain(context.Background(), "default", "p")
		return err == nil && told.Node == "a" && strings.Contains(told.Message, "Attached of device gpu.example.com/a/a-0")
	})
	claim := getClaim(t, c, "c")
	a := claim.Status.Allocation
	if len(claim.Status.ReservedFor) != 1 || a.AllocationTimestamp == nil || fmt.Sprint(a.Devices.Results[0].BindingConditions) != "[Attached]" ||
		a.NodeSelector == nil || a.NodeSelector.NodeSelectorTerms[0].MatchFields[0].Values[0] != "a" {
		t.Errorf("the claim's status is %+v", claim.Status)
	}
	if get(t, c, "p").Spec.NodeName != "" {
		t.Fatal("the pod was bound before its device was ready")
	}
	report(t, c, "c", "Attached")
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
}

// A device that fails to get ready is given back, and the pod gets another that is ready. What was reported of the first goes with it.
func TestBindingFailureConditions(t *testing.T) {
	ctx := context.Background()
	c := begin(t, node("a", "1"), attached("a", "big"), gpuClass("gpu", ""))
	create(t, c, claimOf("c", exactly("gpu", 1)), claiming("p", "c"))
	clienttest.Eventually(t, "the device allocated", func() bool { return fmt.Sprint(devicesOf(getClaim(t, c, "c"))) == "[a-0]" })
	var s resourcev1.ResourceSlice
	if err := c.Get(ctx, crclient.ObjectKey{Name: "a-gpus"}, &s); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, &s); err != nil { // a driver sees to it that it is not chosen again
		t.Fatal(err)
	}
	create(t, c, node("b", "1"), slice("b", "big"))
	report(t, c, "c", "Broken")
	clienttest.Eventually(t, "the pod bound elsewhere", func() bool { return get(t, c, "p").Spec.NodeName == "b" })
	if claim := getClaim(t, c, "c"); fmt.Sprint(devicesOf(claim)) != "[b-0]" || len(claim.Status.Devices) != 0 {
		t.Errorf("the claim's status is %+v", claim.Status)
	}
	if want := `running PreBind plugin "DynamicResources": device binding failed: claim=c, reason=`; !contains(c.Events(), want) {
		t.Error("no event", want)
	}
}

// A device that does not get ready in time is given back too: the pod waits no longer than its profile says, and starts anew.
func TestBindingTimeout(t *testing.T) {
	_, c := beginWith(t, settingsOf(t, "profiles: [{pluginConfig: [{name: DynamicResources, args: {bindingTimeout: 1s}}]}]"), node("a", "1"), attached("a", "big"), gpuClass("gpu", ""))
	create(t, c, claimOf("c", exactly("gpu", 1)), claiming("p", "c"))
	var first *metav1.Time
	clienttest.Eventually(t, "the device allocated", func() bool {
		if a := getClaim(t, c, "c").Status.Allocation; a != nil {
			first = a.AllocationTimestamp
		}
		return first != nil
	})
	clienttest.Eventually(t, "it allocated once more", func() bool {
		a := getClaim(t, c, "c").Status.Allocation
		return a != nil && a.AllocationTimestamp.After(first.Time)
	})
	if want := `Warning FailedScheduling running PreBind plugin "DynamicResources": device binding timeout: claim=c`; !contains(c.Events(), want) {
		t.Error("no event", want)
	}
	report(t, c, "c", "Attached")
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
}

// A search for devices that takes too long is an error, which passes by itself, and no verdict about nodes.
func TestSearchForDevicesTimesOut(t *testing.T) {
	_, c := beginWith(t, settingsOf(t, "profiles: [{pluginConfig: [{name: DynamicResources, args: {filterTimeout: 1ns}}]}]"), node("a", "1"), slice("a", "big"), gpuClass("gpu", ""))
	create(t, c, claimOf("c", exactly("gpu", 1)), claiming("p", "c"))
	clienttest.Eventually(t, "the error told", func() bool {
		return why(get(t, c, "p")) == `SchedulerError: running "DynamicResources" filter plugin: node a: timed out trying to allocate devices`
	})
}

// While a pod waits its devices are its own; one that is deleted waits no more, and another gets them.
func TestPodGoneWhileItsDeviceGetsReady(t *testing.T) {
	ctx := context.Background()
	c := begin(t, node("a", "1"), attached("a", "big"), gpuClass("gpu", ""))
	create(t, c, claimOf("c", exactly("gpu", 1)), claiming("p", "c"))
	clienttest.Eventually(t, "the device allocated", func() bool { return len(devicesOf(getClaim(t, c, "c"))) == 1 })
	create(t, c, claimOf("d", exactly("gpu", 1)), claiming("q", "d"))
	clienttest.Eventually(t, "the other waits", func() bool { return strings.Contains(why(get(t, c, "q")), "cannot allocate all claims") })
	if err := c.Delete(ctx, get(t, c, "p")); err != nil {
		t.Fatal(err)
	}
	free := getClaim(t, c, "c").DeepCopy()
	free.Status = resourcev1.ResourceClaimStatus{} // as its controller does
	if err := c.SubResource("status").Update(ctx, free); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the device allocated to the other", func() bool { return len(devicesOf(getClaim(t, c, "d"))) == 1 })
	report(t, c, "d", "Attached")
	clienttest.Eventually(t, "the other bound", func() bool { return get(t, c, "q").Spec.NodeName == "a" })
}

// either is a request for one device of the first of several classes that has one.
func either(classes ...string) resourcev1.DeviceRequest {
	r := resourcev1.DeviceRequest{Name: "gpu"}
	for _, class := range classes {
		r.FirstAvailable = append(r.FirstAvailable, resourcev1.DeviceSubRequest{Name: class, DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1})
	}
	return r
}

// Of two nodes that a claim's list has something for, the one with what is wished for first is taken, though the other's score is higher otherwise.
func TestFirstAvailableScores(t *testing.T) {
	for _, one := range []struct{ name, config, want string }{
		{"as upstream", "", "worse"},
		{"without that score", "plugins: {score: {disabled: [{name: DynamicResources}]}}", "better"},
	} {
		t.Run(one.name, func(t *testing.T) {
			_, c := beginWith(t, settingsOf(t, "profiles: [{schedulerName: default-scheduler, "+one.config+"}]"), node("worse", "1"), node("better", "8"), slice("worse", "big"), slice("better", "small"), gpuClass("big", "big"), gpuClass("small", "small"))
			create(t, c, claimOf("c", either("big", "small")), claiming("p", "c"))
			clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName != "" })
			if got := get(t, c, "p").Spec.NodeName; got != one.want {
				t.Errorf("on %s, want %s", got, one.want)
			}
		})
	}
}

// Claims share a device that allows it until its capacity is gone; each has a share of its own, and what it gives back is free.
func TestConsumableCapacity(t *testing.T) {
	ctx := context.Background()
	shared := slice("a", "big")
	shared.Spec.Devices[0].AllowMultipleAllocations = new(true)
	shared.Spec.Devices[0].Capacity = map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"memory": {Value: resource.MustParse("10Gi")}}
	s, c := beginScheduler(t, node("a", "4"), shared, gpuClass("gpu", ""))
	for i := range 3 {
		r := exactly("gpu", 1)
		r.Exactly.Capacity = &resourcev1.CapacityRequirements{Requests: map[resourcev1.QualifiedName]resource.Quantity{"memory": resource.MustParse("4Gi")}}
		create(t, c, claimOf(fmt.Sprintf("c%d", i), r), claiming(fmt.Sprintf("p%d", i), fmt.Sprintf("c%d", i)))
	}
	bound := func() (list []int) {
		for i := range 3 {
			if get(t, c, fmt.Sprintf("p%d", i)).Spec.NodeName != "" {
				list = append(list, i)
			}
		}
		return list
	}
	waits := ""
	clienttest.Eventually(t, "two bound, one refused", func() bool {
		for i := range 3 {
			if name := fmt.Sprintf("p%d", i); strings.Contains(why(get(t, c, name)), "cannot allocate all claims") {
				waits = name
			}
		}
		return len(bound()) == 2 && waits != ""
	})
	shares := map[string]bool{}
	for _, i := range bound() {
		r := getClaim(t, c, fmt.Sprintf("c%d", i)).Status.Allocation.Devices.Results[0]
		if memory := r.ConsumedCapacity["memory"]; r.ShareID == nil || memory.String() != "4Gi" {
			t.Errorf("allocated %+v", r)
			continue
		}
		shares[string(*r.ShareID)] = true
	}
	if len(shares) != 2 {
		t.Errorf("shares %v", shares)
	}
	told, err := s.Explain(ctx, "default", waits)
	if err != nil || !strings.Contains(fmt.Sprint(told.Nodes), "2Gi of 10Gi memory of a-0 free") {
		t.Errorf("explanation %+v, %v", told, err)
	}
	gone := bound()[0]
	if err := c.Delete(ctx, get(t, c, fmt.Sprintf("p%d", gone))); err != nil {
		t.Fatal(err)
	}
	free := getClaim(t, c, fmt.Sprintf("c%d", gone)).DeepCopy()
	free.Status = resourcev1.ResourceClaimStatus{}
	if err := c.SubResource("status").Update(ctx, free); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the third bound", func() bool { return get(t, c, waits).Spec.NodeName == "a" })
}
