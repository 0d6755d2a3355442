package nodelifecycle

import (
	"context"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func node(conditions string, taints ...corev1.Taint) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: taints}}
	for _, c := range strings.Fields(conditions) {
		kind, status, _ := strings.Cut(c, "=")
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeConditionType(kind), Status: corev1.ConditionStatus(status)})
	}
	return n
}

func describe(taints []corev1.Taint) string {
	var parts []string
	for _, t := range taints {
		parts = append(parts, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
	}
	return strings.Join(parts, " ")
}

func TestWantedTaints(t *testing.T) {
	notReady := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	mine := corev1.Taint{Key: "mine", Value: "x", Effect: corev1.TaintEffectNoExecute}
	for _, tt := range []struct {
		name string
		node *corev1.Node
		same bool
		want string
	}{
		{name: "just registered, tainted by admission", node: node("", notReady), same: true, want: "not-ready:NoSchedule"},
		{name: "ready", node: node("Ready=True", notReady, mine), want: "mine:NoExecute"},
		{name: "ready and clean", node: node("Ready=True", mine), same: true, want: "mine:NoExecute"},
		{name: "not ready", node: node("Ready=False"), want: "not-ready:NoExecute not-ready:NoSchedule"},
		{name: "lost", node: node("Ready=Unknown", notReady), want: "unreachable:NoExecute unreachable:NoSchedule"},
		{name: "short of all", node: node("Ready=True MemoryPressure=True DiskPressure=True PIDPressure=True NetworkUnavailable=True"),
			want: "disk-pressure:NoSchedule memory-pressure:NoSchedule network-unavailable:NoSchedule pid-pressure:NoSchedule"},
		{name: "unknown pressure is none", node: node("Ready=True MemoryPressure=Unknown"), same: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, changed := wantedTaints(tt.node, start)
			if describe(got) != tt.want || changed == tt.same {
				t.Errorf("%s, changed %v; want %s", describe(got), changed, tt.want)
			}
		})
	}
	cordoned := node("Ready=True")
	cordoned.Spec.Unschedulable = true
	if got, _ := wantedTaints(cordoned, start); describe(got) != "unschedulable:NoSchedule" {
		t.Errorf("cordoned: %s", describe(got))
	}
}

// A node that falls silent is lost after the grace, by the clock of whoever listens; its pods stop serving; it comes back.
func TestSilence(t *testing.T) {
	ctx, now := context.Background(), start
	n := node("Ready=True MemoryPressure=False")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n"},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	c := clienttest.New(t, n, pod)
	r := newReconciler(c)
	r.now = func() time.Time { return now }
	r.nodeChanged(nil, n)
	step := func(wantAfter time.Duration, wantTaints string) {
		t.Helper()
		after, err := r.reconcile(ctx, harness.Key{Name: "n"})
		if err != nil {
			t.Fatal(err)
		}
		var got corev1.Node
		if err := c.Get(ctx, crclient.ObjectKey{Name: "n"}, &got); err != nil {
			t.Fatal(err)
		}
		if after != wantAfter || describe(got.Spec.Taints) != wantTaints {
			t.Errorf("again in %s, taints %s; want %s, %s", after, describe(got.Spec.Taints), wantAfter, wantTaints)
		}
	}
	step(grace+time.Millisecond, "")
	now = now.Add(grace * 4 / 5)
	renewed := metav1.NewMicroTime(start.Add(-time.Hour)) // a wall clock that is wrong doesn't matter
	r.leaseChanged(nil, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: "n"}, Spec: coordinationv1.LeaseSpec{RenewTime: &renewed}})
	now = now.Add(grace * 4 / 5)
	step(grace-grace*4/5+time.Millisecond, "")
	now = now.Add(grace)
	step(0, "unreachable:NoExecute unreachable:NoSchedule")
	var marked corev1.Pod
	if err := c.Get(ctx, crclient.ObjectKeyFromObject(pod), &marked); err != nil || marked.Status.Conditions[0].Status != corev1.ConditionFalse {
		t.Errorf("pod %+v, %v", marked.Status, err)
	}
	var got corev1.Node
	if err := c.Get(ctx, crclient.ObjectKey{Name: "n"}, &got); err != nil || got.Status.Conditions[1].Reason != "NodeStatusUnknown" {
		t.Errorf("conditions %+v, %v", got.Status.Conditions, err)
	}
	before := got.DeepCopy()
	got.Status.Conditions[0].Status, got.Status.Conditions[0].LastHeartbeatTime = corev1.ConditionTrue, metav1.NewTime(now)
	if err := c.SubResource("status").Update(ctx, &got); err != nil {
		t.Fatal(err)
	}
	r.nodeChanged(before, &got)
	step(grace+time.Millisecond, "")
}
