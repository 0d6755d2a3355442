package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// hinted is a loop with one pod that fits nowhere.
type hinted struct {
	*loop
	client *clienttest.Client
}

// idle is a loop that nobody runs, whose writes come to nothing.
func idle(t *testing.T, settings *profile.Settings) *hinted {
	t.Helper()
	return writing(t, settings, func(func(context.Context)) {})
}

// writing is a loop that nobody runs; do is given its writes.
func writing(t *testing.T, settings *profile.Settings, do func(write func(ctx context.Context))) *hinted {
	t.Helper()
	c := clienttest.New(t)
	one, err := newLoop(New(Config{Client: c, Settings: settings, Log: slog.New(slog.DiscardHandler)}))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for write := range one.writes {
			do(write)
		}
	}()
	t.Cleanup(func() { close(one.writes) })
	return &hinted{one, c}
}

// happen has the loop hear of changes.
func (l *hinted) happen(changes ...func(l *hinted)) {
	for _, c := range changes {
		c(l)
	}
}

func nodeIs(n *corev1.Node) func(*hinted) {
	return func(l *hinted) {
		var old *corev1.Node
		if i, known := l.nodes.Index(n.Name); known {
			old = l.nodes.Node[i]
		}
		l.nodeChanged(old, n)
	}
}

func nodeGoes(name string) func(*hinted) {
	return func(l *hinted) { l.nodeChanged(node(name, "1"), nil) }
}

func podIs(p *corev1.Pod, node string) func(*hinted) {
	return func(l *hinted) {
		p = p.DeepCopy()
		p.UID, p.Spec.NodeName = types.UID(p.Name), node
		l.podChanged(nil, p)
	}
}

func podGoes(name string) func(*hinted) {
	return func(l *hinted) {
		p := pod(name, "1")
		p.UID = types.UID(name)
		l.podChanged(p, nil)
	}
}

func spaceIs(team string) func(*hinted) {
	return func(l *hinted) {
		l.namespaceChanged(nil, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: map[string]string{"team": team}}})
	}
}

func csiNodeIs(node string, limit int32) func(*hinted) {
	return func(l *hinted) {
		l.csiNodeChanged(nil, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: storagev1.CSINodeSpec{
			Drivers: []storagev1.CSINodeDriver{{Name: "e.com", Allocatable: &storagev1.VolumeNodeResources{Count: &limit}}}}})
	}
}

// needed is a driver whose volumes keep pods off nodes where it is not installed.
func needed() *storagev1.CSIDriver {
	return &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "e.com"}, Spec: storagev1.CSIDriverSpec{PreventPodSchedulingIfMissing: new(true)}}
}

func needingDriver(l *hinted) { l.csiDriverChanged(nil, needed()) }

// stored puts an object where the loop reads it and tells it.
func stored(o crclient.Object) func(*hinted) {
	return func(l *hinted) {
		if err := l.client.Create(context.Background(), o.DeepCopyObject().(crclient.Object)); err != nil {
			panic(err)
		}
		l.storageChanged()
	}
}

func classIs(c *resourcev1.DeviceClass) func(*hinted) {
	return func(l *hinted) {
		if err := l.client.Create(context.Background(), c.DeepCopy()); err != nil {
			panic(err)
		}
		l.classChanged(nil, c)
	}
}

func changed[T any](o T, change ...func(T)) T {
	for _, c := range change {
		c(o)
	}
	return o
}

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }

func taintedBy(key string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: key, Effect: corev1.TaintEffectNoSchedule}} }
}

func inZone(zone string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Labels = map[string]string{corev1.LabelTopologyZone: zone, corev1.LabelHostname: n.Name}
	}
}

func withApp(app string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = map[string]string{"app": app} }
}

func port80(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} }

func onTheDisk(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "d"}}}}
}

func wants(together bool, change ...func(*corev1.PodAffinityTerm)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		terms := []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelTopologyZone, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}
		for _, c := range change {
			c(&terms[0])
		}
		if p.Spec.Affinity = (&corev1.Affinity{}); together {
			p.Spec.Affinity.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}
		} else {
			p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}
		}
	}
}

func ofTeam(t *corev1.PodAffinityTerm) {
	t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}}
}

func spreadEvenly(p *corev1.Pod) {
	honor := corev1.NodeInclusionPolicyHonor
	p.Labels = map[string]string{"app": "a"}
	p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}, NodeTaintsPolicy: &honor}}
}

// Whatever keeps a pod off, a change of the kind that may help has it tried again if it does help. Where there is another node, it is cordoned, which
// no other row's hint helps against, so each row stands for its own.
func TestEveryHint(t *testing.T) {
	const later = storagev1.VolumeBindingWaitForFirstConsumer
	type does = func(*hinted)
	plain, free := pod("p", "500m"), node("n", "1")
	selective := changed(pod("p", "500m"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: "z1"} })
	enforced := settingsOf(t, "profiles:\n- pluginConfig:\n  - name: NodeAffinity\n    args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "+
		"{nodeSelectorTerms: [{matchExpressions: [{key: "+corev1.LabelTopologyZone+", operator: Exists}]}]}}}\n")
	claimed := using(pod("p", "500m"), "c")
	zoned := changed(storageVolume("v", "late", ""), func(v *corev1.PersistentVolume) { v.Labels = map[string]string{corev1.LabelTopologyZone: "z1"} })
	class := storageClass("late", "kubernetes.io/no-provisioner", later)
	nodeIn := func(zone string) does { return nodeIs(changed(node("n", "1"), inZone(zone))) }
	full := []does{nodeIs(free), podIs(pod("q", "700m"), "n")}
	apart := []does{nodeIn("z1"), nodeIs(changed(node("other", "1"), inZone("z2"), cordoned))}
	for _, row := range []struct {
		what     string
		settings *profile.Settings
		before   []does
		pod      *corev1.Pod
		then     does
	}{
		{"any: a node comes", nil, nil, plain, nodeIs(free)},
		{"NodeUnschedulable: uncordoned", nil, []does{nodeIs(changed(node("n", "1"), cordoned))}, plain, nodeIs(free)},
		{"TaintToleration: the taint goes", nil, []does{nodeIs(changed(node("n", "1"), taintedBy("t")))}, plain, nodeIs(free)},
		{"NodeAffinity: a label", nil, []does{nodeIs(free)}, selective, nodeIn("z1")},
		{"addedAffinity: a label", enforced, []does{nodeIs(free)}, plain, nodeIn("z1")},
		{"NodeDeclaredFeatures: one more", nil, []does{nodeIs(changed(node("n", "1"), declaring("Another")))}, changed(pod("p", "500m"), restartingAll),
			nodeIs(changed(node("n", "1"), declaring("Another", restartsAll)))},
		{"NodePorts: a pod leaves", nil, []does{nodeIs(free), podIs(changed(pod("q", "1m"), port80), "n")}, changed(pod("p", "500m"), port80), podGoes("q")},
		{"NodeResourcesFit: a pod leaves", nil, full, plain, podGoes("q")},
		{"NodeResourcesFit: more is allocatable", nil, full, plain, nodeIs(node("n", "2"))},
		{"NodeResourcesFit: devices stand for what is missing", nil, []does{nodeIs(free), func(l *hinted) { l.sliceChanged(nil, slice("n", "big")) }},
			changed(pod("p", "500m"), asks("example.com/gpu", "1")), classIs(changed(gpuClass("gpus", ""), called("example.com/gpu")))},
		{"VolumeRestrictions: a pod leaves", nil, []does{nodeIs(free), podIs(changed(pod("q", "1m"), onTheDisk), "n")}, changed(pod("p", "500m"), onTheDisk), podGoes("q")},
		{"NodeVolumeLimits: a pod leaves", nil, []does{nodeIs(free), csiNodeIs("n", 1), stored(storageVolume("w", "late", "")), stored(storageClaim("d", "late", boundTo("w"))),
			stored(storageVolume("v", "late", "")), stored(storageClaim("c", "late", boundTo("v"))), podIs(using(pod("q", "1m"), "d"), "n")}, claimed, podGoes("q")},
		{"NodeVolumeLimits: the limit rises", nil, []does{nodeIs(free), csiNodeIs("n", 0), stored(storageVolume("v", "late", "")), stored(storageClaim("c", "late", boundTo("v")))},
			claimed, csiNodeIs("n", 1)},
		{"NodeVolumeLimits: the driver comes", nil, []does{nodeIs(free), needingDriver, stored(storageVolume("v", "late", "")), stored(storageClaim("c", "late", boundTo("v")))},
			claimed, csiNodeIs("n", 1)},
		{"NodeVolumeLimits: the driver does without", nil, []does{nodeIs(free), needingDriver, stored(storageVolume("v", "late", "")), stored(storageClaim("c", "late", boundTo("v")))},
			claimed, func(l *hinted) { l.csiDriverChanged(needed(), nil) }},
		{"VolumeBinding: a volume comes", nil, []does{nodeIs(free), stored(class), stored(storageClaim("c", "late"))}, claimed, stored(storageVolume("v", "late", ""))},
		{"VolumeBinding: a label", nil, []does{nodeIs(free), stored(class), stored(storageClaim("c", "late")), stored(storageVolume("v", "late", "n"))}, claimed,
			nodeIs(labelled(node("n", "1")))},
		{"VolumeZone: a label", nil, []does{nodeIn("z2"), stored(zoned), stored(storageClaim("c", "late", boundTo("v")))}, claimed, nodeIn("z1")},
		{"PodTopologySpread: a label", nil, []does{nodeIs(free)}, changed(pod("p", "500m"), spreadEvenly), nodeIn("z1")},
		{"PodTopologySpread: a pod leaves", nil, append([]does{podIs(changed(pod("q", "1m"), withApp("a")), "n")}, apart...), changed(pod("p", "500m"), spreadEvenly), podGoes("q")},
		{"PodTopologySpread: a pod comes", nil, append([]does{podIs(changed(pod("q", "1m"), withApp("a")), "n")}, apart...), changed(pod("p", "500m"), spreadEvenly),
			podIs(changed(pod("r", "1m"), withApp("a")), "other")},
		{"PodTopologySpread: a taint, so that a zone does not count", nil, append([]does{podIs(changed(pod("q", "1m"), withApp("a")), "n")}, apart...),
			changed(pod("p", "500m"), spreadEvenly), nodeIs(changed(node("other", "1"), inZone("z2"), cordoned, taintedBy("t")))},
		{"PodTopologySpread: a zone's last node goes", nil, append([]does{podIs(changed(pod("q", "1m"), withApp("a")), "n")}, apart...), changed(pod("p", "500m"), spreadEvenly), nodeGoes("other")},
		{"InterPodAffinity: one it wants to be with comes", nil, apart, changed(pod("p", "500m"), wants(true)), podIs(changed(pod("q", "1m"), withApp("a")), "n")},
		{"InterPodAffinity: a label", nil, append([]does{podIs(changed(pod("q", "1m"), withApp("a")), "other")}, apart...), changed(pod("p", "500m"), wants(true)), nodeIn("z2")},
		{"InterPodAffinity: a namespace's label", nil, append([]does{spaceIs("blue"), podIs(changed(pod("q", "1m"), withApp("a")), "n")}, apart...),
			changed(pod("p", "500m"), wants(true, ofTeam)), spaceIs("red")},
		{"InterPodAffinity: one it is to be apart from leaves", nil, append([]does{podIs(changed(pod("q", "1m"), withApp("a")), "n")}, apart...), changed(pod("p", "500m"), wants(false)), podGoes("q")},
		{"InterPodAffinity: one that is to be apart from it leaves", nil, append([]does{podIs(changed(pod("q", "1m"), wants(false)), "n")}, apart...), changed(pod("p", "500m"), withApp("a")), podGoes("q")},
	} {
		t.Run(row.what, func(t *testing.T) {
			l := idle(t, row.settings)
			l.happen(row.before...)
			l.wake(l.now())
			l.happen(podIs(row.pod, ""))
			state := func() string {
				active, backoff, waiting := l.queue.Len()
				return fmt.Sprintf("%d active, %d back off, %d wait", active, backoff, waiting)
			}
			try := func() {
				if e := l.queue.Pop(l.now()); e != nil {
					l.schedule(e)
				}
			}
			if try(); state() != "0 active, 0 back off, 1 wait" {
				t.Fatalf("at first: %s", state())
			}
			l.wake(l.now())
			if state() != "0 active, 0 back off, 1 wait" {
				t.Fatalf("nothing has changed: %s", state())
			}
			l.happen(row.then)
			if l.wake(l.now()); state() != "0 active, 1 back off, 0 wait" {
				t.Fatalf("not tried again: %s", state())
			}
			if try(); !l.assumed["p"] {
				t.Errorf("not placed: %s", state())
			}
		})
	}
}

// resized is a pod of a node that asks for other CPU than before.
func resizedTo(p *corev1.Pod, node, cpu string) func(*hinted) {
	return func(l *hinted) {
		before := p.DeepCopy()
		before.UID, before.Spec.NodeName = types.UID(p.Name), node
		after := before.DeepCopy()
		after.Generation++
		after.Spec.Containers[0].Resources = pod("", cpu).Spec.Containers[0].Resources
		l.podChanged(before, after)
	}
}

// One that could make others give way where that is no use yet is tried again once a change makes it of use, and by no other change.
func TestHintsOfThoseWhoMayPreempt(t *testing.T) {
	type does = func(*hinted)
	two := func(change ...func(*corev1.Pod)) *corev1.Pod {
		return changed(priority(pod("p", "700m"), 10), change...)
	}
	high := priority(pod("high", "700m"), 100)
	inZones := []does{nodeIs(changed(node("n", "1"), inZone("z1"))), nodeIs(changed(node("m", "1"), inZone("z1"))), nodeIs(changed(node("far", "1"), inZone("z2")))}
	taken := append(inZones, podIs(pod("q", "700m"), "n"), podIs(priority(pod("r", "700m"), 100), "m"))
	shunned := append(inZones[:2:2], podIs(changed(pod("q", "1m"), withApp("a")), "n"), podIs(changed(pod("r", "1m"), withApp("a")), "m"), podIs(pod("s", "1m"), "n"))
	uneven := []does{nodeIs(changed(node("n", "1"), inZone("z1"))), nodeIs(changed(node("other", "1"), inZone("z2"), cordoned)),
		podIs(priority(changed(pod("a", "1m"), withApp("a")), 100), "n"), podIs(pod("q", "700m"), "n")}
	for _, row := range []struct {
		what   string
		before []does
		pod    *corev1.Pod
		then   does
		again  bool
	}{
		{"one it wants to be with comes where room can be made", taken, two(wants(true)), podIs(changed(priority(pod("a", "1m"), 100), withApp("a")), "n"), true},
		{"another comes", taken, two(wants(true)), podIs(changed(pod("a", "1m"), withApp("b")), "n"), false},
		{"one of two in a zone leaves that it is to be apart from", shunned, two(wants(false)), podGoes("r"), true},
		{"another leaves", shunned, two(wants(false)), podGoes("s"), false},
		{"a more important pod shrinks", []does{nodeIs(node("n", "1")), podIs(high, "n"), podIs(pod("q", "200m"), "n")}, two(), resizedTo(high, "n", "300m"), true},
		{"a more important pod leaves", []does{nodeIs(node("n", "1")), podIs(high, "n"), podIs(priority(pod("h", "200m"), 100), "n"), podIs(pod("q", "100m"), "n")}, two(), podGoes("h"), true},
		{"a less important pod leaves", []does{nodeIs(node("n", "1")), podIs(high, "n"), podIs(pod("q", "100m"), "n"), podIs(pod("r", "100m"), "n")}, two(), podGoes("q"), false},
		{"a zone's last node goes", uneven, two(spreadEvenly), nodeGoes("other"), true},
	} {
		t.Run(row.what, func(t *testing.T) {
			l := idle(t, nil)
			l.happen(row.before...)
			l.wake(l.now())
			l.happen(podIs(row.pod, ""))
			l.schedule(l.queue.Pop(l.now()))
			l.wake(l.now())
			if _, _, waiting := l.queue.Len(); waiting != 1 || len(l.evicting) > 0 {
				t.Fatalf("at first %d wait, %d make others give way", waiting, len(l.evicting))
			}
			l.happen(row.then)
			l.wake(l.now())
			if _, _, waiting := l.queue.Len(); (waiting == 0) != row.again {
				t.Errorf("tried again: %t", !row.again)
			}
		})
	}
}

// A change of the pod itself has it tried again if it may help: not what others say of it, nor what the scheduler wrote.
func TestHintsOfThePodItself(t *testing.T) {
	for _, row := range []struct {
		what   string
		change func(p *corev1.Pod)
		again  bool
	}{
		{"an annotation", func(p *corev1.Pod) { p.Annotations = map[string]string{"a": "b"} }, false},
		{"its condition", func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse}}
		}, false},
		{"a label", withApp("a"), true},
		{"a toleration", func(p *corev1.Pod) { p.Generation++; p.Spec.Tolerations = []corev1.Toleration{{Key: "t"}} }, true},
		{"a smaller request", func(p *corev1.Pod) {
			p.Generation++
			p.Spec.Containers[0].Resources = pod("", "1m").Spec.Containers[0].Resources
		}, true},
		{"a claim made for it", func(p *corev1.Pod) {
			p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "c", ResourceClaimName: new("c-1")}}
		}, true},
	} {
		l := idle(t, nil)
		l.happen(nodeIs(node("n", "1")))
		before := pod("p", "2")
		before.UID = "p"
		l.podChanged(nil, before)
		l.wake(l.now())
		l.schedule(l.queue.Pop(l.now()))
		after := before.DeepCopy()
		row.change(after)
		l.podChanged(before, after)
		l.wake(l.now())
		if _, _, waiting := l.queue.Len(); (waiting == 0) != row.again {
			t.Errorf("%s: tried again: %t", row.what, !row.again)
		}
	}
}

// A pod with gates is in no queue, and is tried at once when the last gate is gone.
func TestGates(t *testing.T) {
	l := idle(t, nil)
	l.happen(nodeIs(node("n", "1")))
	gated := func(names ...string) *corev1.Pod {
		p := pod("p", "1m")
		p.UID = "p"
		for _, name := range names {
			p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: name})
		}
		return p
	}
	l.podChanged(nil, gated("a", "b"))
	if l.podChanged(gated("a", "b"), gated("b")); l.queue.Get("p") != nil {
		t.Error("tried with a gate")
	}
	l.podChanged(gated("b"), gated())
	if e := l.queue.Pop(l.now()); e == nil {
		t.Error("not tried without")
	}
}

// Nobody knows what an extender goes by: whatever is an event upstream may alter its mind.
func TestHintsOfExtenders(t *testing.T) {
	l := idle(t, nil)
	l.happen(nodeIs(node("n", "1")))
	v := (&opinion{failed: map[string]string{"n": "not to my taste"}}).verdict(l.nodes, l.classes.Of(cluster.PodOf(pod("p", "1m"))))
	if v.Helps != cluster.Any&^cluster.Images || v.Reasons["not to my taste"] != 1 {
		t.Errorf("%v, by %v", v.Reasons, v.Helps.Words())
	}
}
