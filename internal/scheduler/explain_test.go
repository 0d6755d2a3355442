package scheduler

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/explain"
)

// explained waits until a pod was tried and returns what is said of it.
func explained(t *testing.T, s *Scheduler, name string) (*explain.Pod, string) {
	t.Helper()
	var out *explain.Pod
	clienttest.Eventually(t, name+" was tried", func() bool {
		var err error
		if out, err = s.Explain(context.Background(), "default", name); err != nil {
			t.Fatal(err)
		}
		return out.Attempts > 0 || out.State != explain.Pending
	})
	var text bytes.Buffer
	if err := out.Write(&text, false, time.Now()); err != nil {
		t.Fatal(err)
	}
	return out, text.String()
}

// Each node's verdict comes with its figure, and the nearest miss is that of the node where least is missing.
func TestExplain(t *testing.T) {
	ctx := context.Background()
	cordoned, tainted, disk := node("cordoned", "8"), node("tainted", "8"), node("disk", "8")
	cordoned.Spec.Unschedulable = true
	tainted.Spec.Taints = []corev1.Taint{{Key: "gpu", Value: "a", Effect: corev1.TaintEffectNoSchedule}}
	near, far := node("near", "2"), node("far", "1")
	for _, n := range []*corev1.Node{cordoned, tainted, near, far} {
		n.Labels = map[string]string{"disk": "ssd"}
	}
	disk.Labels = map[string]string{"disk": "hdd"}
	s, c := beginScheduler(t, cordoned, tainted, disk, near, far)
	first := pod("first", "1200m")
	first.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	if err := c.Create(ctx, first); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the first is placed", func() bool { return get(t, c, "first").Spec.NodeName == "near" })
	big := pod("big", "1")
	big.Spec.NodeSelector = first.Spec.NodeSelector
	second := pod("second", "900m")
	second.Spec.NodeSelector = first.Spec.NodeSelector
	if err := c.Create(ctx, second); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the second is placed", func() bool { return get(t, c, "second").Spec.NodeName == "far" })
	if err := c.Create(ctx, big); err != nil {
		t.Fatal(err)
	}
	out, text := explained(t, s, "big")
	for _, want := range []string{
		"cpu: asks 1, free 800m of 2 (default/first 1200m)",
		"cpu: asks 1, free 100m of 1 (default/second 900m)",
		"the node is cordoned", "not tolerated: gpu=a:NoSchedule", `nodeSelector disk=ssd: the node has "hdd"`,
		"fits on near if 200m CPU were free", "no pod is less important than this one (priority 0)",
		"0/5 nodes are available", "Asks for:   1 cpu",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in:\n%s", want, text)
		}
	}
	if out.Nodes[0].Name != "near" || out.Feasible != 0 || out.Since.IsZero() || out.Tried.IsZero() {
		t.Errorf("%+v", out)
	}

	urgent := pod("urgent", "1")
	urgent.Spec.NodeSelector, urgent.Spec.Priority = first.Spec.NodeSelector, new(int32(10))
	never := corev1.PreemptNever
	urgent.Spec.PreemptionPolicy = &never
	if err := c.Create(ctx, urgent); err != nil {
		t.Fatal(err)
	}
	if _, text := explained(t, s, "urgent"); !strings.Contains(text, "not eligible due to preemptionPolicy=Never.") {
		t.Errorf("want why it does not preempt in:\n%s", text)
	}
}

// Rules about other pods are told with the domain, the counts and the pods that make it so.
func TestExplainRules(t *testing.T) {
	ctx := context.Background()
	a, b := node("a", "8"), node("b", "8")
	a.Labels, b.Labels = map[string]string{"zone": "x"}, map[string]string{"zone": "x"}
	s, c := beginScheduler(t, a, b)
	apart := func(name string) *corev1.Pod {
		p := pod(name, "100m")
		p.Labels = map[string]string{"app": "db"}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "zone",
				LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}}}
		return p
	}
	if err := c.Create(ctx, apart("db-0")); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the first is placed", func() bool { return get(t, c, "db-0").Spec.NodeName != "" })
	if err := c.Create(ctx, apart("db-1")); err != nil {
		t.Fatal(err)
	}
	if _, text := explained(t, s, "db-1"); !strings.Contains(text, "1 pods it must not be with in zone=x; because of default/db-0") ||
		!strings.Contains(text, "if these pods were not there: default/db-0") {
		t.Errorf("got:\n%s", text)
	}
	gated := pod("gated", "1")
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/quota"}}
	if err := c.Create(ctx, gated); err != nil {
		t.Fatal(err)
	}
	if out, text := explained(t, s, "gated"); out.State != explain.Gated || !strings.Contains(text, "example.com/quota") {
		t.Errorf("got:\n%s", text)
	}
	if out, _ := explained(t, s, "db-0"); out.State != explain.Scheduled || out.Node == "" {
		t.Errorf("got %+v", out)
	}
}

// What is in the way of a pod's volumes is told with the volume, the claim, who has it, or the figure.
func TestExplainVolumes(t *testing.T) {
	const later = storagev1.VolumeBindingWaitForFirstConsumer
	sole := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	zoned := storageVolume("zoned", "", "")
	zoned.Labels = map[string]string{corev1.LabelTopologyZone: "west"}
	one := int32(1)
	s, c := beginScheduler(t, labelled(node("a", "4"), corev1.LabelTopologyZone, "east"),
		&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
			{Name: "e.com", NodeID: "a", Allocatable: &storagev1.VolumeNodeResources{Count: &one}}}}},
		storageVolume("v", "", ""), storageClaim("had", "", boundTo("v"), sole), on(using(pod("first", "100m"), "had"), "a"),
		storageClaim("second", "", boundTo("w")), storageVolume("w", "", ""), storageClass("e", "e.com", later), storageClaim("new", "e"),
		changed(needed(), func(d *storagev1.CSIDriver) { d.Name = "other.com" }), storageClaim("missing", "", boundTo("x")),
		changed(storageVolume("x", "", ""), func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = "other.com" }),
		storageVolume("far", "", "b"), storageClaim("elsewhere", "", boundTo("far")),
		storageClaim("west", "", boundTo("zoned")), zoned,
		storageClaim("slow", "slow"), storageClass("slow", "kubernetes.io/no-provisioner", later), storageVolume("there", "slow", "b"))
	for claim, want := range map[string]string{
		"had":     "default/first has the claim for itself",
		"second":  "e.com: asks 1, attached 1 of 1",
		"missing": "the node's CSINode does not have other.com",
		"new":     "e.com: asks 1, attached 1 of 1", // also for one that is still to be made
		"slow":    "claim slow asks 1Gi of class slow: 1 free volumes of the class, none that fits here",
	} {
		name := "p-" + claim
		create(t, c, using(pod(name, "100m"), claim))
		if _, text := explained(t, s, name); !strings.Contains(text, want) || !strings.Contains(text, "Nearest:") {
			t.Errorf("%s: want %q in:\n%s", claim, want, text)
		}
	}
	unlimited := labelled(node("c", "4"), corev1.LabelTopologyZone, "east")
	create(t, c, unlimited)
	for claim, want := range map[string]string{"elsewhere": "volume far cannot be reached from here", "west": "volume zoned is in zone west, the node in east"} {
		name := "p-" + claim
		create(t, c, using(pod(name, "100m"), claim))
		if _, text := explained(t, s, name); !strings.Contains(text, want) {
			t.Errorf("%s: want %q in:\n%s", claim, want, text)
		}
	}
}

// The scores of a pod that is still to be placed are those by which it will be, with what its claim's list prefers.
func TestExplainedScores(t *testing.T) {
	l := idle(t, nil)
	worse, better := slice("worse", "big"), slice("better", "small")
	create(t, l.client, worse, better, gpuClass("big", "big"), gpuClass("small", "small"), claimOf("c", either("big", "small")))
	l.sliceChanged(nil, worse)
	l.sliceChanged(nil, better)
	l.happen(nodeIs(node("worse", "1")), nodeIs(node("better", "8")), podIs(claiming("p", "c"), ""))
	e := l.queue.Get("p")
	alone := map[string]int64{}
	for i, s := range l.classes.Of(e.Pod).Scores() {
		alone[l.nodes.Name(i)] = s
	}
	told := l.explain(e.Pod.Pod)
	if len(told.Nodes) != 2 || told.Nodes[0].Name != "worse" || alone["worse"] >= alone["better"] {
		t.Fatalf("of %v: %+v", alone, told.Nodes)
	}
	for k, more := range []int64{2 * 100, 2 * (100 * 7 / 8)} {
		if n := told.Nodes[k]; n.Score != alone[n.Name]+more {
			t.Errorf("score of %s: %d, want %d and %d", n.Name, n.Score, alone[n.Name], more)
		}
	}
	l.schedule(l.queue.Pop(l.now()))
	if at, placed := l.nodes.Where("p"); !placed || l.nodes.Name(at) != "worse" {
		t.Error("the pod was not placed where the score is highest")
	}
}
