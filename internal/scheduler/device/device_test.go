package device

import (
	"fmt"
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/structured"
)

func allocation(device string) *resourcev1.AllocationResult {
	return &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
		Results: []resourcev1.DeviceRequestAllocationResult{{Driver: "d", Pool: "p", Device: device}}}}
}

func claim(uid types.UID, a *resourcev1.AllocationResult) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: string(uid), UID: uid}, Status: resourcev1.ResourceClaimStatus{Allocation: a}}
}

// A promised device is nobody else's from the promise until its claim gives it back, whatever comes in between.
func TestPromises(t *testing.T) {
	const pod = types.UID("pod")
	open := []Claimed{{Claim: claim("c", nil), Allocation: allocation("gpu")}}
	written := func(b *Book) { b.ClaimChanged(claim("c", nil), claim("c", allocation("gpu"))) }
	for _, one := range []struct {
		name string
		do   func(b *Book)
		free bool
	}{
		{"being written", func(*Book) {}, false},
		{"being written, and the pod gone", func(b *Book) { b.Forget(pod) }, false},
		{"written, and not seen yet", func(b *Book) { b.Kept(pod, open, []Outcome{Written}) }, false},
		{"written for a pod that is gone", func(b *Book) { b.Forget(pod); b.Kept(pod, open, []Outcome{Written}) }, false},
		{"written and seen", func(b *Book) { b.Kept(pod, open, []Outcome{Written}); written(b) }, false},
		{"seen before it is known to be written", func(b *Book) { written(b); b.Kept(pod, open, []Outcome{Written}) }, false},
		{"seen without devices, which is older news", func(b *Book) { b.ClaimChanged(claim("c", nil), claim("c", nil)) }, false},
		{"refused", func(b *Book) { b.Kept(pod, open, []Outcome{Refused}) }, true},
		{"not come to", func(b *Book) { b.Kept(pod, open, nil) }, true},
		{"refused, and another pod counts on it", func(b *Book) { b.Promise("other", open); b.Kept(pod, open, nil) }, false},
		{"in doubt", func(b *Book) { b.Kept(pod, open, []Outcome{Unknown}) }, false},
		{"in doubt, and then given up", func(b *Book) { b.Kept(pod, open, []Outcome{Unknown}); b.Forget(pod) }, true},
		{"in doubt for a pod that is gone", func(b *Book) { b.Forget(pod); b.Kept(pod, open, []Outcome{Unknown}) }, true},
		{"its claim deleted", func(b *Book) { b.ClaimChanged(claim("c", nil), nil) }, true},
		{"given back", func(b *Book) { written(b); b.ClaimChanged(claim("c", allocation("gpu")), claim("c", nil)) }, true},
		{"had by two, given back by one", func(b *Book) {
			written(b)
			b.ClaimChanged(nil, claim("c2", allocation("gpu")))
			b.ClaimChanged(claim("c", allocation("gpu")), nil)
		}, false},
	} {
		b := NewBook(nil)
		b.ClaimChanged(nil, claim("c", nil))
		b.Promise(pod, open)
		one.do(b)
		if taken := !b.held.free(structured.MakeDeviceID("d", "p", "gpu")); taken == one.free {
			t.Errorf("%s: taken %t", one.name, taken)
		}
	}
}

// Whoever looks after a device does not have it.
func TestAdminAccess(t *testing.T) {
	b := NewBook(nil)
	a := allocation("gpu")
	a.Devices.Results[0].AdminAccess = new(true)
	b.ClaimChanged(nil, claim("c", a))
	if len(b.held.devices) != 0 {
		t.Error("taken", b.held.devices)
	}
}

// Rules taint devices on a copy, and only those they select; slices come in the order of their names, the node's first.
func TestOffered(t *testing.T) {
	b := NewBook(nil)
	node := "n"
	slice := func(name string, on *string, devices ...string) *resourcev1.ResourceSlice {
		s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceSliceSpec{Driver: "d", NodeName: on, Pool: resourcev1.ResourcePool{Name: "p"}}}
		for _, d := range devices {
			s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: d})
		}
		return s
	}
	original := slice("b", &node, "x", "y")
	b.SliceChanged(nil, original)
	b.SliceChanged(nil, slice("a", &node, "z"))
	b.SliceChanged(nil, slice("everywhere", nil, "w"))
	b.RuleChanged(nil, &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Device: new("y")}, Taint: resourcev1.DeviceTaint{Key: "broken"}}})
	got := b.offered(node)
	if len(got) != 3 || got[0].Name != "a" || got[1].Name != "b" || got[2].Name != "everywhere" {
		t.Fatalf("offered %v", got)
	}
	if d := got[1].Spec.Devices; len(d[0].Taints) != 0 || len(d[1].Taints) != 1 || len(original.Spec.Devices[1].Taints) != 0 {
		t.Errorf("devices %v, original %v", d, original.Spec.Devices)
	}
	if other := b.offered("other"); len(other) != 1 || other[0].Name != "everywhere" {
		t.Errorf("another node is offered %v", other)
	}
	b.SliceChanged(original, nil)
	if got := b.offered(node); len(got) != 2 {
		t.Errorf("after one is gone %v", got)
	}
}

// Shares of a device are counted one by one: what one claim gives back is free, and one that is promised and seen counts once.
func TestShares(t *testing.T) {
	share := func(id types.UID, much string) *resourcev1.AllocationResult {
		a := allocation("gpu")
		a.Devices.Results[0].ShareID = &id
		a.Devices.Results[0].ConsumedCapacity = map[resourcev1.QualifiedName]resource.Quantity{"memory": resource.MustParse(much)}
		return a
	}
	b, id := NewBook(nil), structured.MakeDeviceID("d", "p", "gpu")
	used := func(want string) {
		t.Helper()
		got := "none"
		if q := b.held.state.AggregatedCapacity[id]["memory"]; q != nil {
			got = q.String()
		}
		if got != want || len(b.held.devices) != 0 || b.held.free(id) != (want == "none") {
			t.Errorf("used %s, want %s", got, want)
		}
	}
	b.Promise("pod", []Claimed{{Claim: claim("c", nil), Allocation: share("1", "2Gi")}})
	used("2Gi")
	b.ClaimChanged(nil, claim("c", share("1", "2Gi")))
	used("2Gi")
	b.ClaimChanged(nil, claim("other", share("2", "3Gi")))
	used("5Gi")
	b.ClaimChanged(claim("c", share("1", "2Gi")), claim("c", nil))
	used("3Gi")
	if b.held.state.AllocatedSharedDeviceIDs.Len() != 1 {
		t.Error("shares", b.held.state.AllocatedSharedDeviceIDs)
	}
	b.ClaimChanged(claim("other", share("2", "3Gi")), nil)
	used("none")
}

// Devices are ready when all their conditions are true, of each share by itself, and none that says they won't be.
func TestReady(t *testing.T) {
	const first, second = "0a1b2c3d-0000-4000-8000-000000000001", "0a1b2c3d-0000-4000-8000-000000000002"
	now := time.Unix(1_800_000_000, 0)
	conditions := func(share string, types ...string) resourcev1.AllocatedDeviceStatus {
		d := resourcev1.AllocatedDeviceStatus{Driver: "d", Pool: "p", Device: "gpu", ShareID: &share}
		for _, name := range types {
			d.Conditions = append(d.Conditions, metav1.Condition{Type: name, Status: metav1.ConditionTrue, Reason: "R", Message: "m"})
		}
		return d
	}
	for _, one := range []struct {
		name    string
		devices []resourcev1.AllocatedDeviceStatus
		age     time.Duration // of the allocation
		ready   bool
		fails   string
		unready bool
	}{
		{"nothing reported", nil, 0, false, "", false},
		{"one of two", []resourcev1.AllocatedDeviceStatus{conditions(first, "Attached", "Warm"), conditions(second, "Attached")}, 0, false, "", false},
		{"all", []resourcev1.AllocatedDeviceStatus{conditions(first, "Attached", "Warm"), conditions(second, "Warm", "Attached")}, 0, true, "", false},
		{"one failed", []resourcev1.AllocatedDeviceStatus{conditions(second, "Warm", "Attached", "Broken")}, 0, false, `device binding failed: claim=c, reason=R, message="m"`, true},
		{"too late", nil, time.Minute, false, "", true},
		{"all, and old", []resourcev1.AllocatedDeviceStatus{conditions(first, "Attached", "Warm"), conditions(second, "Warm", "Attached")}, time.Hour, true, "", false},
	} {
		a := &resourcev1.AllocationResult{AllocationTimestamp: new(metav1.NewTime(now.Add(-one.age)))}
		for _, id := range []types.UID{first, second} {
			a.Devices.Results = append(a.Devices.Results, resourcev1.DeviceRequestAllocationResult{Driver: "d", Pool: "p", Device: "gpu", ShareID: &id,
				BindingConditions: []string{"Attached", "Warm"}, BindingFailureConditions: []string{"Broken"}})
		}
		c := claim("c", a)
		c.Status.Devices = one.devices
		ready, err := Ready(c)
		if fails := fmt.Sprint(err); ready != one.ready || (err != nil) != (one.fails != "") || err != nil && fails != one.fails {
			t.Errorf("%s: ready %t, %v", one.name, ready, err)
		}
		if unready(c, now.Add(-time.Minute)) != one.unready {
			t.Errorf("%s: of no use %t", one.name, !one.unready)
		}
		if since, waits := Awaits([]*resourcev1.AllocationResult{allocation("x"), a}, now); !waits || !since.Equal(now.Add(-one.age)) {
			t.Errorf("%s: awaited since %v, %t", one.name, since, waits)
		}
	}
	if _, waits := Awaits([]*resourcev1.AllocationResult{allocation("x")}, now); waits {
		t.Error("a device without conditions is waited for")
	}
	if ready, err := Ready(claim("c", nil)); ready || err != nil {
		t.Error("a claim without devices is ready", err)
	}
}

// How much devices are preferred goes by their places in the requests' lists.
func TestPreferred(t *testing.T) {
	sub := func(names ...string) (list []resourcev1.DeviceSubRequest) {
		for _, name := range names {
			list = append(list, resourcev1.DeviceSubRequest{Name: name})
		}
		return list
	}
	c := claim("c", nil)
	c.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "x", FirstAvailable: sub("a", "b", "c")}, {Name: "y", FirstAvailable: sub("a")}, {Name: "z", Exactly: &resourcev1.ExactDeviceRequest{}}}
	n := &Need{open: []*resourcev1.ResourceClaim{c}}
	if n.Most() != 16 {
		t.Error("most", n.Most())
	}
	for _, one := range []struct {
		requests []string
		want     int64
	}{{[]string{"x/a", "y/a", "z"}, 16}, {[]string{"x/c", "x/c", "y/a"}, 14}, {[]string{"x/b"}, 7}} {
		a := &resourcev1.AllocationResult{}
		for _, r := range one.requests {
			a.Devices.Results = append(a.Devices.Results, resourcev1.DeviceRequestAllocationResult{Request: r})
		}
		if got := n.Preferred([]Claimed{{Claim: claim("has", allocation("d"))}, {Claim: c, Allocation: a}}); got != one.want {
			t.Errorf("%v: %d", one.requests, got)
		}
	}
	c.Spec.Devices.Requests = c.Spec.Devices.Requests[1:]
	if n.Most() != 0 {
		t.Error("one alternative is no choice")
	}
}
