package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/queue"
)

// gangOf is a PodGroup whose pods get nodes together; one that asks for none at least is basic.
func gangOf(name string, least int32) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	if least > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: least}
	} else {
		g.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	}
	return g
}

func member(group, name, cpu string) *corev1.Pod {
	p := pod(name, cpu)
	p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &group}
	return p
}

// grouped is a scheduler where groups are served, with a clock that can be put forward.
type grouped struct {
	*clienttest.Client
	t     *testing.T
	s     *Scheduler
	ahead atomic.Int64
}

func beginGrouped(t *testing.T, objects ...crclient.Object) *grouped {
	t.Helper()
	g := &grouped{Client: clienttest.New(t, objects...), t: t}
	g.s = New(Config{Groups: true, Client: g.Client, Log: slog.New(slog.DiscardHandler)})
	g.s.now = func() time.Time { return time.Now().Add(time.Duration(g.ahead.Load())) }
	start(t, g.s)
	return g
}

func (g *grouped) create(objects ...crclient.Object) {
	g.t.Helper()
	for _, o := range objects {
		if err := g.Create(context.Background(), o); err != nil {
			g.t.Fatal(err)
		}
	}
}

// on says where pods are, "" for nowhere.
func (g *grouped) on(names ...string) (nodes []string) {
	g.t.Helper()
	for _, name := range names {
		nodes = append(nodes, get(g.t, g.Client, name).Spec.NodeName)
	}
	return nodes
}

func (g *grouped) placed(names ...string) bool {
	g.t.Helper()
	return !slices.Contains(g.on(names...), "")
}

// condition of a group, as status, reason and message.
func (g *grouped) condition(name string) string {
	g.t.Helper()
	var group schedulingv1beta1.PodGroup
	if err := g.Get(context.Background(), crclient.ObjectKey{Namespace: "default", Name: name}, &group); err != nil {
		g.t.Fatal(err)
	}
	for _, c := range group.Status.Conditions {
		if c.Type == "PodGroupInitiallyScheduled" {
			return strings.TrimSpace(fmt.Sprint(c.Status, " ", c.Reason, " ", c.Message))
		}
	}
	return ""
}

// later puts the clock forward and wakes the loop, by a pod that is none of its business.
func (g *grouped) later(by time.Duration) {
	g.t.Helper()
	g.ahead.Add(int64(by))
	p := pod(fmt.Sprintf("foreign-%d", g.ahead.Load()), "1m")
	p.Spec.SchedulerName = "other"
	g.create(p)
}

// Pods wait for their PodGroup, then for one another, are told so when that takes long, and then go together.
func TestGangsWaitForTheirPods(t *testing.T) {
	g := beginGrouped(t, node("a", "4"))
	g.create(member("g", "p0", "1"), member("g", "p1", "1"))
	g.create(pod("other", "1"))
	clienttest.Eventually(t, "a pod of no group placed", func() bool { return g.placed("other") })
	e, err := g.s.Explain(context.Background(), "default", "p0")
	if err != nil || e.Waits != "waits for its group" || e.Nearest != "PodGroup g is not there" {
		t.Errorf("explained as %+v (%v)", e, err)
	}
	g.later(queue.Patience)
	clienttest.Eventually(t, "the pods told", func() bool {
		return why(get(t, g.Client, "p1")) == `NotReadyForScheduling: waiting for pods's pod group "g" to appear in scheduling queue`
	})
	g.create(gangOf("g", 3))
	g.later(queue.Patience)
	clienttest.Eventually(t, "the pods told anew", func() bool {
		return why(get(t, g.Client, "p0")) == "NotReadyForScheduling: waiting for minCount pods from a gang to appear in scheduling queue"
	})
	if e, err = g.s.Explain(context.Background(), "default", "p0"); err != nil || e.Nearest != "PodGroup g has 2 of the 3 pods that it needs at least" {
		t.Errorf("explained as %+v (%v)", e, err)
	}
	if got := g.condition("g"); got != "" || g.on("p0")[0] != "" {
		t.Errorf("the group was tried: %s", got)
	}
	g.create(member("g", "p2", "1"))
	clienttest.Eventually(t, "all placed", func() bool { return g.placed("p0", "p1", "p2") })
	clienttest.Eventually(t, "the group told", func() bool { return g.condition("g") == "True Scheduled" })
	events := strings.Join(g.Events(), "\n")
	if want := "Warning NotReadyForScheduling waiting for minCount pods from a gang to appear in scheduling queue"; strings.Count(events, want) != 2 {
		t.Errorf("want %q of two pods:\n%s", want, events)
	}
}

// A gang that does not fit takes nothing and is in nobody's way; it goes when there is room for all of it.
func TestGangsGoTogetherOrNotAtAll(t *testing.T) {
	g := beginGrouped(t, node("a", "2"), gangOf("g", 3))
	names := []string{"p0", "p1", "p2"}
	for _, name := range names {
		g.create(member("g", name, "1"))
	}
	const short = "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining"
	clienttest.Eventually(t, "the group told", func() bool { return g.condition("g") == "False Unschedulable "+short })
	clienttest.Eventually(t, "the pods told", func() bool {
		return why(get(t, g.Client, "p0")) == "Unschedulable: "+short && why(get(t, g.Client, "p2")) == "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."
	})
	g.create(pod("small", "2"))
	clienttest.Eventually(t, "another pod placed", func() bool { return g.placed("small") })
	if got := g.on(names...); strings.Join(got, "") != "" {
		t.Fatalf("some are placed: %v", got)
	}
	g.create(node("b", "2"))
	g.later(time.Minute)
	clienttest.Eventually(t, "the group tried again", func() bool { return strings.HasPrefix(why(get(t, g.Client, "p2")), "Unschedulable: 0/2 nodes") })
	g.create(node("c", "2"))
	g.later(time.Minute)
	clienttest.Eventually(t, "all placed", func() bool { return g.placed(names...) })
	clienttest.Eventually(t, "the group told", func() bool { return g.condition("g") == "True Scheduled" })

	// More pods come: each that finds room goes, and what the condition says stays.
	g.create(member("g", "p3", "1"), member("g", "p4", "1"))
	clienttest.Eventually(t, "one more placed", func() bool { return g.placed("p3") || g.placed("p4") })
	clienttest.Eventually(t, "the other told", func() bool {
		return slices.ContainsFunc([]string{"p3", "p4"}, func(name string) bool { return strings.Contains(why(get(t, g.Client, name)), "3 Insufficient cpu") })
	})
	if got := g.condition("g"); got != "True Scheduled" {
		t.Errorf("the condition went back to %s", got)
	}
}

// A gang that asks for fewer than it has binds those that fit.
func TestGangsOfMoreThanTheLeast(t *testing.T) {
	g := beginGrouped(t, node("a", "2"), gangOf("g", 3), gangOf("basic", 0))
	for i := range 4 {
		g.create(member("g", fmt.Sprintf("p%d", i), "1"))
	}
	clienttest.Eventually(t, "the group told", func() bool {
		return strings.HasPrefix(g.condition("g"), "False Unschedulable minCount (3) cannot be satisfied: ")
	})
	group := gangOf("g", 2)
	if err := g.Get(context.Background(), crclient.ObjectKeyFromObject(group), group); err != nil {
		t.Fatal(err)
	}
	group = group.DeepCopy()
	group.Spec.SchedulingPolicy.Gang.MinCount = 2
	if err := g.Update(context.Background(), group); err != nil {
		t.Fatal(err)
	}
	g.later(time.Minute)
	all := []string{"p0", "p1", "p2", "p3"}
	clienttest.Eventually(t, "two placed", func() bool { return strings.Join(g.on(all...), "") == "aa" })
	g.create(member("basic", "b0", "1"))
	clienttest.Eventually(t, "the basic group told", func() bool {
		return g.condition("basic") == "False Unschedulable minCount (1) cannot be satisfied: 0 scheduled, 0 remaining"
	})
	g.create(node("b", "3"))
	g.later(time.Minute)
	clienttest.Eventually(t, "the others placed", func() bool { return g.placed(append(all, "b0")...) })
	clienttest.Eventually(t, "the basic group told", func() bool { return g.condition("basic") == "True Scheduled" })
}

// A gang of which some were bound before a restart goes first, whatever else has come.
func TestGangsGoOnAfterARestart(t *testing.T) {
	bound := member("g", "p0", "1")
	bound.Spec.NodeName = "a"
	vip := pod("vip", "1")
	vip.Spec.Priority = new(int32(1000))
	vip.Spec.PreemptionPolicy = new(corev1.PreemptNever)
	g := beginGrouped(t, node("a", "3"), gangOf("g", 3), bound, vip, member("g", "p1", "1"), member("g", "p2", "1"))
	clienttest.Eventually(t, "the rest placed", func() bool { return g.placed("p1", "p2") })
	clienttest.Eventually(t, "the other pod told", func() bool { return strings.Contains(why(get(t, g.Client, "vip")), "Insufficient cpu") })
}

// Pods of a gang may want to be together, or apart: each finds those before it where they are to go.
func TestGangsWithRulesOfTheirOwn(t *testing.T) {
	rule := func(p *corev1.Pod) corev1.PodAffinityTerm {
		p.Labels = map[string]string{"app": "x"}
		return corev1.PodAffinityTerm{TopologyKey: "kubernetes.io/hostname", LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}
	}
	named := func(name string) *corev1.Node {
		n := node(name, "8")
		n.Labels = map[string]string{"kubernetes.io/hostname": name}
		return n
	}
	g := beginGrouped(t, named("a"), named("b"), gangOf("apart", 3))
	for i := range 3 {
		p := member("apart", fmt.Sprintf("p%d", i), "1")
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{rule(p)}}}
		g.create(p)
	}
	clienttest.Eventually(t, "the group told", func() bool {
		return g.condition("apart") == "False Unschedulable minCount (3) cannot be satisfied: 2 scheduled, 0 remaining"
	})
	g.create(named("c"))
	g.later(time.Minute)
	clienttest.Eventually(t, "all placed", func() bool { return g.placed("p0", "p1", "p2") })
	if on := g.on("p0", "p1", "p2"); on[0] == on[1] || on[0] == on[2] || on[1] == on[2] {
		t.Errorf("two on one node: %v", on)
	}
}

// Where groups are not served, a pod that names one is like any other.
func TestGroupsNotServed(t *testing.T) {
	c := begin(t, node("a", "1"))
	if err := c.Create(context.Background(), member("g", "p", "1")); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the pod placed", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
}

// Devices and volumes are taken as the pods of a gang are placed, and given back with them.
func TestGangsWithClaims(t *testing.T) {
	ctx := context.Background()
	const late = storagev1.VolumeBindingWaitForFirstConsumer
	g := beginGrouped(t, labelled(node("a", "8")), gpuClass("gpu", ""), slice("a", "big", "big"), storageClass("slow", "kubernetes.io/no-provisioner", late),
		storageVolume("v0", "slow", "a"), storageVolume("v1", "slow", "a"), gangOf("devices", 3), gangOf("volumes", 3))
	grouped := func(group string, p *corev1.Pod) *corev1.Pod {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &group}
		return p
	}
	for i := range 3 {
		c, d := fmt.Sprintf("c%d", i), fmt.Sprintf("d%d", i)
		g.create(claimOf(c, exactly("gpu", 1)), grouped("devices", claiming("p"+c, c)), storageClaim(d, "slow"), grouped("volumes", using(pod("p"+d, "100m"), d)))
	}
	for _, name := range []string{"devices", "volumes"} {
		clienttest.Eventually(t, "the group told", func() bool {
			return g.condition(name) == "False Unschedulable minCount (3) cannot be satisfied: 2 scheduled, 0 remaining"
		})
	}
	claimed := func() (volumes, devices []string) {
		var list corev1.PersistentVolumeList
		if err := g.List(ctx, &list); err != nil {
			t.Fatal(err)
		}
		for _, v := range list.Items {
			if r := v.Spec.ClaimRef; r != nil && !slices.Contains(volumes, r.Name) {
				volumes = append(volumes, r.Name)
			}
		}
		for i := range 3 {
			for _, d := range devicesOf(getClaim(t, g.Client, fmt.Sprintf("c%d", i))) {
				if !slices.Contains(devices, d) {
					devices = append(devices, d)
				}
			}
		}
		return volumes, devices
	}
	if volumes, devices := claimed(); len(volumes)+len(devices) > 0 {
		t.Fatalf("gangs that wait have %v and %v", volumes, devices)
	}
	g.create(claimOf("other", exactly("gpu", 1)), claiming("other", "other"))
	clienttest.Eventually(t, "another pod placed", func() bool { return g.placed("other") })
	g.create(node("b", "8"), slice("b", "big", "big"), storageVolume("v2", "slow", "a"))
	g.later(time.Minute)
	clienttest.Eventually(t, "the gang with devices placed", func() bool { return g.placed("pc0", "pc1", "pc2") })
	clienttest.Eventually(t, "three devices and three volumes taken", func() bool {
		volumes, devices := claimed()
		return len(volumes) == 3 && len(devices) == 3
	})
}
