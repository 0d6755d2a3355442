package devicetainteviction

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

var added = time.Unix(1000, 0)

func taint(key string) resourcev1.DeviceTaint {
	return resourcev1.DeviceTaint{Key: key, Effect: resourcev1.DeviceTaintEffectNoExecute, TimeAdded: &metav1.Time{Time: added}}
}

func tolerates(key string, seconds ...int64) resourcev1.DeviceToleration {
	t := resourcev1.DeviceToleration{Key: key, Operator: resourcev1.DeviceTolerationOpExists}
	if len(seconds) > 0 {
		t.TolerationSeconds = &seconds[0]
	}
	return t
}

func TestUntil(t *testing.T) {
	for name, c := range map[string]struct {
		taints      []resourcev1.DeviceTaint
		tolerations []resourcev1.DeviceToleration
		after       time.Duration
		limited     bool
	}{
		"no taint":           {tolerations: []resourcev1.DeviceToleration{tolerates("a", 1)}},
		"not tolerated":      {taints: []resourcev1.DeviceTaint{taint("a")}, tolerations: []resourcev1.DeviceToleration{tolerates("b")}, limited: true},
		"for ever":           {taints: []resourcev1.DeviceTaint{taint("a")}, tolerations: []resourcev1.DeviceToleration{tolerates("a")}},
		"for a time":         {taints: []resourcev1.DeviceTaint{taint("a")}, tolerations: []resourcev1.DeviceToleration{tolerates("a", 30)}, after: 30 * time.Second, limited: true},
		"the shortest":       {taints: []resourcev1.DeviceTaint{taint("a"), taint("b")}, tolerations: []resourcev1.DeviceToleration{tolerates("a", 30), tolerates("", 60)}, after: 30 * time.Second, limited: true},
		"one of two for now": {taints: []resourcev1.DeviceTaint{taint("a"), taint("b")}, tolerations: []resourcev1.DeviceToleration{tolerates("a", 30)}, limited: true},
	} {
		at, limited := until(c.taints, c.tolerations)
		if limited != c.limited || limited && !at.Equal(added.Add(c.after)) {
			t.Errorf("%s: %s, %v", name, at, limited)
		}
	}
}

// Only the newest generation of a pool counts, and a rule counts for the devices it selects.
func TestTaints(t *testing.T) {
	slice := func(generation int64, taints ...resourcev1.DeviceTaint) resourcev1.ResourceSlice {
		return resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{
			Driver: "d", Pool: resourcev1.ResourcePool{Name: "p", Generation: generation}, Devices: []resourcev1.Device{{Name: "one", Taints: taints}, {Name: "two"}},
		}}
	}
	only := taint("schedule")
	only.Effect = resourcev1.DeviceTaintEffectNoSchedule
	published := []resourcev1.ResourceSlice{slice(1, taint("old")), slice(2, taint("new"), only)}
	other := "other"
	rules := []resourcev1.DeviceTaintRule{
		{Spec: resourcev1.DeviceTaintRuleSpec{DeviceSelector: &resourcev1.DeviceTaintSelector{}, Taint: taint("all")}},
		{Spec: resourcev1.DeviceTaintRuleSpec{DeviceSelector: &resourcev1.DeviceTaintSelector{Pool: &other}, Taint: taint("other")}},
		{Spec: resourcev1.DeviceTaintRuleSpec{Taint: taint("nothing")}},
	}
	got := taints(&resourcev1.DeviceRequestAllocationResult{Driver: "d", Pool: "p", Device: "one"}, published, rules)
	if len(got) != 2 || got[0].Key != "new" || got[1].Key != "all" {
		t.Errorf("taints %v", got)
	}
}

func TestEviction(t *testing.T) {
	ctx, now := context.Background(), added
	claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Status: resourcev1.ResourceClaimStatus{
		Allocation: &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
			{Request: "r", Driver: "d", Pool: "p", Device: "one", Tolerations: []resourcev1.DeviceToleration{tolerates("a", 30)}},
		}}},
		ReservedFor: []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "u"}},
	}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"}, Spec: corev1.PodSpec{
		NodeName: "n", ResourceClaims: []corev1.PodResourceClaim{{Name: "r", ResourceClaimName: &claim.Name}},
	}}
	rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{}, Taint: taint("a"),
	}}
	c := clienttest.New(t, claim, pod)
	r := newReconciler(c)
	r.now = func() time.Time { return now }
	key := harness.Key{Namespace: "default", Name: "p"}
	step := func(want time.Duration) {
		t.Helper()
		if after, err := r.reconcile(ctx, key); after != want || err != nil {
			t.Errorf("again in %s, %v; want %s", after, err, want)
		}
	}
	step(0)
	if err := c.Create(ctx, rule); err != nil {
		t.Fatal(err)
	}
	about := harness.Key{Name: "broken"}
	progress := func(want string) {
		t.Helper()
		if _, err := r.reconcile(ctx, about); err != nil {
			t.Error(err)
		}
		var now resourcev1.DeviceTaintRule
		if err := c.Get(ctx, crclient.ObjectKey{Name: "broken"}, &now); err != nil {
			t.Fatal(err)
		}
		if len(now.Status.Conditions) != 1 {
			t.Fatalf("conditions %v", now.Status.Conditions)
		}
		if got := now.Status.Conditions[0]; got.Type != "EvictionInProgress" || string(got.Status)+": "+got.Message != want || got.ObservedGeneration != now.Generation {
			t.Errorf("condition %+v, want %s", got, want)
		}
	}
	if keys := r.ruleChanged(nil, rule); len(keys) != 2 || keys[0] != key || keys[1] != about {
		t.Errorf("keys %v", keys)
	}
	step(30 * time.Second)
	progress("True: 1 pod in 1 namespace to be evicted. 0 pods evicted since the controller started.")
	if err := c.Delete(ctx, rule); err != nil {
		t.Fatal(err)
	}
	step(0)
	rule.ResourceVersion = ""
	if err := c.Create(ctx, rule); err != nil {
		t.Fatal(err)
	}
	now = now.Add(30 * time.Second)
	step(0)
	progress("False: 1 pod evicted since the controller started.")
	if left := c.Names(t, &corev1.PodList{}); len(left) != 0 {
		t.Errorf("%v left", left)
	}
	events := c.Events()
	if len(events) != 2 || events[0] != "Normal DeviceTaintManagerEviction Cancelling deletion" || events[1] != "Normal DeviceTaintManagerEviction Marking for deletion" {
		t.Errorf("events %q", events)
	}
}

// A rule without effect says once what it would do with one; a rule about scheduling evicts nobody.
func TestOtherEffects(t *testing.T) {
	ctx := context.Background()
	claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Status: resourcev1.ResourceClaimStatus{
		Allocation:  &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "r", Driver: "d", Pool: "p", Device: "one"}}}},
		ReservedFor: []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "u"}, {Resource: "pods", Name: "q", UID: "v"}},
	}}
	running := func(name, uid string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(uid)}, Spec: corev1.PodSpec{NodeName: "n"}}
	}
	rule := func(effect resourcev1.DeviceTaintEffect) *resourcev1.DeviceTaintRule {
		return &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(string(effect))}, Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{}, Taint: resourcev1.DeviceTaint{Key: "a", Effect: effect}}}
	}
	c := clienttest.New(t, claim, running("p", "u"), running("q", "v"), rule(resourcev1.DeviceTaintEffectNone), rule(resourcev1.DeviceTaintEffectNoSchedule))
	r := newReconciler(c)
	says := func(name, want string) {
		t.Helper()
		if _, err := r.reconcile(ctx, harness.Key{Name: name}); err != nil {
			t.Error(err)
		}
		var now resourcev1.DeviceTaintRule
		if err := c.Get(ctx, crclient.ObjectKey{Name: name}, &now); err != nil || len(now.Status.Conditions) != 1 {
			t.Fatalf("conditions %v, %v", now.Status.Conditions, err)
		}
		if got := now.Status.Conditions[0]; got.Status != metav1.ConditionFalse || got.Message != want {
			t.Errorf("condition %+v, want %s", got, want)
		}
	}
	const would = "2 pods in 1 namespace would be evicted if the effect was NoExecute. This is not updated before the rule changes."
	says("none", would)
	says("noschedule", "Pods are evicted only if the effect is NoExecute.")
	if err := c.Delete(ctx, running("q", "v")); err != nil {
		t.Fatal(err)
	}
	says("none", would)
}
