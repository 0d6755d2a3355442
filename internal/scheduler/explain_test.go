package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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
	if _, text := explained(t, s, "db-1"); !strings.Contains(text, "zone=x has 1 pod that it must not be with (app=db): default/db-0") ||
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
		"slow":    "claim slow asks 1Gi of class slow: the one free volume of the class does not fit here",
	} {
		name := "p-" + claim
		create(t, c, using(pod(name, "100m"), claim))
		if _, text := explained(t, s, name); !strings.Contains(text, want) || !strings.Contains(text, "Nearest:") {
			t.Errorf("%s: want %q in:\n%s", claim, want, text)
		}
	}
	unlimited := labelled(node("c", "4"), corev1.LabelTopologyZone, "east")
	create(t, c, unlimited)
	for claim, want := range map[string]string{"elsewhere": "volume far is reached only from nodes with kubernetes.io/hostname=b", "west": "volume zoned is in topology.kubernetes.io/zone=west, the node in east"} {
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

// What is said to be nearest would do, and is said only where nothing else is in the way.
func TestNearest(t *testing.T) {
	gpu := corev1.Taint{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}
	tainted := func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{gpu} }
	ssd := func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }
	apart := func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "db"}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}}}
	}
	near := func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}}}}
	}
	spread := func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "db"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelHostname,
			WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}
	}
	port := func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, Protocol: corev1.ProtocolTCP}}
	}
	app := func(name, node string) func(*hinted) {
		return podIs(changed(pod(name, "100m"), func(p *corev1.Pod) { p.Labels = map[string]string{"app": "db"} }), node)
	}
	for _, k := range []struct {
		what  string
		nodes []*corev1.Node
		there []func(*hinted)
		pod   *corev1.Pod
		want  string
	}{
		{"a cordoned node with room before one that is full", []*corev1.Node{labelled(node("full", "1")), changed(labelled(node("idle", "4")), cordoned)},
			[]func(*hinted){podIs(pod("q", "1"), "full")}, pod("p", "2"), "fits on idle if it were not cordoned"},
		{"a cordoned node without room", []*corev1.Node{changed(labelled(node("a", "2")), cordoned)}, []func(*hinted){podIs(pod("q", "1"), "a")}, pod("p", "2"),
			"no single change would do; least is in the way on a: NodeUnschedulable, NodeResourcesFit"},
		{"a cordoned node of other labels", []*corev1.Node{changed(labelled(node("a", "4")), cordoned)}, nil, changed(pod("p", "2"), ssd),
			"no single change would do; least is in the way on a: NodeUnschedulable, NodeAffinity"},
		{"a cordoned node with a taint", []*corev1.Node{changed(labelled(node("a", "4")), cordoned, tainted)}, nil, pod("p", "2"),
			"no single change would do; least is in the way on a: NodeUnschedulable, TaintToleration"},
		{"a tainted node with a port taken", []*corev1.Node{changed(labelled(node("a", "4")), tainted)}, []func(*hinted){podIs(changed(pod("q", "1"), port), "a")},
			changed(pod("p", "1"), port), "no single change would do; least is in the way on a: TaintToleration, NodePorts"},
		{"a tainted node", []*corev1.Node{changed(labelled(node("a", "4")), tainted)}, nil, pod("p", "2"), "fits on a if its taint were tolerated (gpu:NoSchedule)"},
		{"labels", []*corev1.Node{labelled(node("a", "4"), "disk", "hdd")}, nil, changed(pod("p", "2"), ssd),
			`fits on a if its labels were those that the pod wants (nodeSelector disk=ssd: the node has "hdd")`},
		{"a port", []*corev1.Node{labelled(node("a", "4"))}, []func(*hinted){podIs(changed(pod("q", "1"), port), "a")}, changed(pod("p", "1"), port),
			"fits on a if the host port were free (80/TCP is used by default/q)"},
		{"a port, and no room", []*corev1.Node{labelled(node("a", "4"))}, []func(*hinted){podIs(changed(pod("q", "3"), port), "a")}, changed(pod("p", "2"), port),
			"no single change would do; least is in the way on a: NodePorts, NodeResourcesFit"},
		{"one pod", []*corev1.Node{labelled(node("a", "4"))}, []func(*hinted){app("q", "a")}, changed(pod("p", "1"), apart), "fits on a if these pods were not there: default/q"},
		{"four pods", []*corev1.Node{labelled(node("a", "4"))}, []func(*hinted){app("q", "a"), app("r", "a"), app("s", "a"), app("t", "a")}, changed(pod("p", "1"), apart),
			"fits on a if these pods were not there: default/q, default/r, default/s and more"},
		{"a pod that wants to be apart, too", []*corev1.Node{labelled(node("a", "4"))}, []func(*hinted){podIs(changed(pod("q", "1"), apart), "a")},
			changed(pod("p", "1"), apart), "fits on a if these pods were not there: default/q"},
		{"a pod, and no room", []*corev1.Node{labelled(node("a", "1"))}, []func(*hinted){app("q", "a")}, changed(pod("p", "1"), apart),
			"no single change would do; least is in the way on a: NodeResourcesFit, InterPodAffinity"},
		{"one too small and cordoned, one large and taken", []*corev1.Node{labelled(node("a", "4")), changed(labelled(node("b", "8")), cordoned)}, nil, pod("p", "9"),
			"no node is large enough, even empty: b, the nearest to it, has 8 CPU in all, and the pod asks for 9"},
		{"a node that is not there", []*corev1.Node{labelled(node("a", "4"))}, nil, changed(pod("p", "1"), func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
					{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"gone"}}}}}}}}
		}), "the pod may go only to gone, and there is no such node"},
		{"a pod to be with", []*corev1.Node{labelled(node("a", "4")), labelled(node("b", "50m"))}, []func(*hinted){app("q", "b")}, changed(pod("p", "1"), near),
			"fits on a if a pod that it must be with ran there (kubernetes.io/hostname=a has no pod that it must be with (app=db))"},
		{"spreading", []*corev1.Node{labelled(node("a", "4")), labelled(node("b", "50m"))}, []func(*hinted){app("q", "a")}, changed(pod("p", "1"), spread),
			"fits on a if its topology spread constraint let one more in (kubernetes.io/hostname=a has 1 pod (app=db), the least is 0: one more makes a skew of 2, and maxSkew is 1)"},
		{"too small", []*corev1.Node{labelled(node("a", "4")), labelled(node("b", "8"))}, nil, pod("p", "9"),
			"no node is large enough, even empty: b, the nearest to it, has 8 CPU in all, and the pod asks for 9"},
		{"none of a resource", []*corev1.Node{labelled(node("a", "4"))}, nil,
			changed(pod("p", "1"), func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = resource.MustParse("2")
			}),
			"no node is large enough, even empty: a, the nearest to it, has no example.com/gpu, and the pod asks for 2"},
	} {
		l := idle(t, nil)
		for _, n := range k.nodes {
			l.happen(nodeIs(n))
		}
		l.happen(k.there...)
		l.happen(podIs(k.pod, ""))
		l.schedule(l.queue.Pop(l.now()))
		e := l.queue.Get("p")
		if e == nil || l.assumed["p"] {
			t.Errorf("%s: the pod is placed", k.what)
			continue
		}
		if out := l.explain(e.Pod.Pod); out.Nearest != k.want {
			t.Errorf("%s: nearest is %q, want %q", k.what, out.Nearest, k.want)
		}
	}
}

// A pod that no node is looked at for is told why, in one line.
func TestExplainWithoutNodes(t *testing.T) {
	now := metav1.Now()
	l := idle(t, nil)
	l.happen(nodeIs(node("a", "4")))
	for _, k := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{changed(pod("p", "1"), func(p *corev1.Pod) { p.Spec.SchedulerName = "typo" }),
			`Pod default/p was made 0s ago; its schedulerName is "typo", and this scheduler places only pods of default-scheduler; unless another program places it, it stays without a node.`},
		{changed(pod("p", "1"), func(p *corev1.Pod) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a.b/c"}, {Name: "d.e/f"}}
		}),
			"Pod default/p was made 0s ago; it waits until its scheduling gates are removed: a.b/c, d.e/f."},
		{changed(pod("p", "1"), func(p *corev1.Pod) { p.DeletionTimestamp = &now }), "Pod default/p was made 0s ago; it is being deleted and gets no node any more."},
		{changed(pod("p", "1"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), "Pod default/p was made 0s ago; it is over (Failed) and needs no node."},
	} {
		k.pod.CreationTimestamp = now
		var text bytes.Buffer
		if err := l.explain(k.pod).Write(&text, false, now.Time); err != nil || text.String() != k.want+"\n" {
			t.Errorf("got %q (%v), want %q", text.String(), err, k.want)
		}
	}
}

// BenchmarkExplain is what a question costs the loop: 5,000 nodes that are full, with twenty pods each.
func BenchmarkExplain(b *testing.B) {
	l := pendingLoop(b, clienttest.New(b), 5000, 0, 1)
	for i := range 100000 {
		p := on(pod(fmt.Sprintf("q%d", i), "190m"), fmt.Sprintf("n%d", i%5000))
		p.UID = types.UID(p.Name)
		l.podChanged(nil, p)
	}
	p := pod("p", "1")
	p.UID = "p"
	l.podChanged(nil, p)
	l.schedule(l.queue.Pop(l.now()))
	for b.Loop() {
		if out := l.explain(p); out.Nearest == "" {
			b.Fatal("nothing is nearest")
		}
	}
}
