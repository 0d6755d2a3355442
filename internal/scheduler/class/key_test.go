package class

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/profile"
	"skiff.dev/skiff/internal/scheduler/volume"
)

// stage is a small cluster on which one difference between two pods shows.
type stage struct {
	nodes   *cluster.Nodes
	shelf   *shelf
	book    *volume.Book
	rules   map[string]*profile.Profile // by scheduler name
	sibling func(*corev1.Pod) labels.Selector
}

// newStage has nodes n0 and n1 with a CPU and a GPU each, in zones z0 and z1, with disks ssd and hdd.
func newStage() *stage {
	s := &stage{nodes: cluster.New(), shelf: newShelf()}
	s.shelf.zone = "z0"
	s.book = volume.NewBook(s.shelf, s.nodes)
	for i, disk := range []string{"ssd", "hdd"} {
		s.node(i, func(n *corev1.Node) { n.Labels["disk"] = disk })
	}
	return s
}

func (s *stage) node(i int, change func(*corev1.Node)) {
	name := fmt.Sprint("n", i)
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprint("z", i)}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("4Gi"), "pods": resource.MustParse("9"), gpu: resource.MustParse("1")}}}
	change(n)
	s.nodes.Set(n)
}

func (s *stage) place(node, name string, change func(*corev1.Pod)) {
	p := plainPod(name)
	change(p)
	q := cluster.PodOf(p)
	q.Volumes = s.book.Placed(p)
	s.nodes.Place(q, node)
}

func plainPod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID(name), Labels: map[string]string{}}, Spec: corev1.PodSpec{
		Priority: new(int32), Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m")}}}}}}
}

// verdict is all that the pod's class in a table says of all nodes.
func (s *stage) verdict(t *testing.T, table *Table, p *corev1.Pod) string {
	q := cluster.PodOf(p)
	if rules := s.rules[p.Spec.SchedulerName]; rules != nil {
		q.Use(rules)
	}
	volumes, why, err := s.book.Of(p)
	if why != "" || err != nil {
		t.Fatalf("%s, %v", why, err)
	}
	q.Volumes = volumes
	backing(q)
	c := table.Of(q)
	return fmt.Sprint(c.Scores(), c.Verdict().Reasons)
}

// alone is that of a table of its own. What label sets remember of tables would tell pods apart by itself.
func (s *stage) alone(t *testing.T, p *corev1.Pod) string {
	s.nodes.ForgetMemos("x")
	defer s.nodes.ForgetMemos("x")
	return s.verdict(t, NewTable(s.nodes, s.sibling), p)
}

func asking(p *corev1.Pod, name corev1.ResourceName, q string) {
	p.Spec.Containers[0].Resources.Requests[name] = resource.MustParse(q)
}

func hostPort(ip string, protocol corev1.Protocol, number int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostIP: ip, Protocol: protocol, HostPort: number}}
	}
}

func tolerating(t corev1.Toleration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{t} }
}

func tainted(s *stage) {
	s.node(1, func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "t", Value: "v", Effect: corev1.TaintEffectNoSchedule}}
	})
}

func label(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[key] = value }
}

func ofApp(keys ...string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}, MatchLabelKeys: keys}
}

func apartFrom(term corev1.PodAffinityTerm) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
	}
}

func spreadBy(maxSkew int32, keys ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: maxSkew, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}, MatchLabelKeys: keys}}
	}
}

func onDisk(name string, readOnly bool) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: name, ReadOnly: readOnly}}}}
	}
}

func claiming(names ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, name := range names {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
		}
	}
}

// claim puts a claim of a class on the shelf; a volume makes it bound to that.
func (s *stage) claim(name, class, size string, v *corev1.PersistentVolume) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID(name)}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}}}}
	if v != nil {
		v.Name = "v-" + name
		bound(c, v.Name)
		s.shelf.volumes[v.Name] = v
	}
	s.shelf.claims["x/"+name] = c
	return c
}

func attachable(handle string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
		CSI: &corev1.CSIPersistentVolumeSource{Driver: csiDriver, VolumeHandle: handle}}}}
}

func mustBeThere(driver string) *storagev1.CSIDriver {
	return &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driver}, Spec: storagev1.CSIDriverSpec{PreventPodSchedulingIfMissing: new(true)}}
}

func local(change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/v"}}}}
	change(v)
	return v
}

func reaching(disk string) *corev1.PersistentVolume {
	return local(func(v *corev1.PersistentVolume) {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{disk}}}}}}}
	})
}

func inZone(key, zone string) *corev1.PersistentVolume {
	return local(func(v *corev1.PersistentVolume) { v.Labels = map[string]string{key: zone} })
}

func toClaims(s *stage) {
	s.claim("c0", "static", "1Gi", nil)
	s.claim("c1", "static", "1Gi", nil)
}

func ownedBy(kind, name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, Controller: new(true)}}
	}
}

// byOwner has pods whose owner is called a spread, by the zone.
func byOwner(s *stage) {
	s.sibling = func(p *corev1.Pod) labels.Selector {
		if owner := metav1.GetControllerOfNoCopy(p); owner != nil && owner.Name == "a" && owner.Kind == "ReplicaSet" {
			return labels.SelectorFromSet(labels.Set{"app": "a"})
		}
		return nil
	}
	s.place("n0", "sibling", label("app", "a"))
}

// profiled has two profiles, one of which packs by a resource that it does not ask nodes for.
func profiled(t *testing.T) func(s *stage) {
	return func(s *stage) {
		s.rules = readProfiles(t, `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: spreading
- schedulerName: packing
  pluginConfig:
  - name: NodeResourcesFit
    args: {ignoredResources: [`+string(gpu)+`, e.com/other], scoringStrategy: {type: MostAllocated, resources: [{name: `+string(gpu)+`, weight: 5}, {name: e.com/other, weight: 5}]}}
`)
		s.node(1, func(n *corev1.Node) { n.Status.Allocatable[gpu] = resource.MustParse("8") })
	}
}

func packing(change func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.SchedulerName = "packing"
		change(p)
	}
}

// Pods that differ in one thing which makes a difference are told apart, whichever comes first: a class' key has it.
func TestPodsThatDifferInOneThing(t *testing.T) {
	for _, row := range []struct {
		what   string
		of     func(s *stage)
		p1, p2 func(p *corev1.Pod)
	}{
		{"CPU", nil, func(p *corev1.Pod) { asking(p, "cpu", "900m") }, func(p *corev1.Pod) { asking(p, "cpu", "1100m") }},
		{"what is asked for, with what is guessed alike", nil, func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{} }, func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("200Mi")}
		}},
		{"what is guessed", nil, func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{}) }, func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, plainPod("").Spec.Containers[0])
			asking(p, "cpu", "50m")
			p.Spec.Containers[1].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("50m")}
		}},
		{"extended resources", nil, func(p *corev1.Pod) { asking(p, gpu, "1") }, func(p *corev1.Pod) { asking(p, gpu, "2") }},
		{"the name of an extended resource", nil, func(p *corev1.Pod) { asking(p, gpu, "1") }, func(p *corev1.Pod) { asking(p, "e.com/other", "1") }},
		{"whether devices stand for an extended resource", nil, func(p *corev1.Pod) { asking(p, "e.com/other", "1") }, func(p *corev1.Pod) {
			asking(p, "e.com/other", "1")
			p.Annotations = map[string]string{backed: "e.com/other"}
		}},
		{"an ignored resource", profiled(t), packing(func(p *corev1.Pod) { asking(p, gpu, "1") }), packing(func(p *corev1.Pod) { asking(p, gpu, "4") })},
		{"the name of an ignored resource", profiled(t), packing(func(p *corev1.Pod) { asking(p, gpu, "1") }), packing(func(p *corev1.Pod) { asking(p, "e.com/other", "1") })},
		{"the profile", profiled(t), packing(func(*corev1.Pod) {}), func(p *corev1.Pod) { p.Spec.SchedulerName = "spreading" }},
		{"a port's address", func(s *stage) { s.place("n0", "q", hostPort("10.0.0.1", "TCP", 80)) }, hostPort("10.0.0.1", "TCP", 80), hostPort("10.0.0.2", "TCP", 80)},
		{"a port's protocol", func(s *stage) { s.place("n0", "q", hostPort("", "TCP", 80)) }, hostPort("", "TCP", 80), hostPort("", "UDP", 80)},
		{"a port's number", func(s *stage) { s.place("n0", "q", hostPort("", "TCP", 80)) }, hostPort("", "TCP", 80), hostPort("", "TCP", 81)},
		{"a node selector's value", nil, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "hdd"} }},
		{"a node selector's key", nil, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"dusk": "ssd"} }},
		{"a node's name", nil, func(p *corev1.Pod) { asking(p, "cpu", "100m") }, func(p *corev1.Pod) { p.Spec.NodeName = "n1" }},
		{"a toleration's key", tainted, tolerating(corev1.Toleration{Key: "t", Value: "v"}), tolerating(corev1.Toleration{Key: "u", Value: "v"})},
		{"a toleration's operator", tainted, tolerating(corev1.Toleration{Key: "t"}), tolerating(corev1.Toleration{Key: "t", Operator: corev1.TolerationOpExists})},
		{"a toleration's value", tainted, tolerating(corev1.Toleration{Key: "t", Value: "v"}), tolerating(corev1.Toleration{Key: "t", Value: "w"})},
		{"a toleration's effect", tainted, tolerating(corev1.Toleration{Key: "t", Value: "v"}), tolerating(corev1.Toleration{Key: "t", Value: "v", Effect: corev1.TaintEffectNoExecute})},
		{"affinity", nil, affineTo("ssd"), affineTo("hdd")},
		{"a feature of nodes", nil, func(*corev1.Pod) {}, restartingAll},
		{"which feature of nodes", func(s *stage) { s.node(0, func(n *corev1.Node) { n.Status.DeclaredFeatures = []string{restartsAll} }) }, restartingAll, binding},
		{"a constraint", func(s *stage) { s.place("n0", "q", label("app", "a")) }, both(label("app", "a"), spreadBy(1)), both(label("app", "a"), spreadBy(2))},
		{"an owner's name", byOwner, ownedBy("ReplicaSet", "a"), ownedBy("ReplicaSet", "b")},
		{"an owner's kind", byOwner, ownedBy("ReplicaSet", "a"), ownedBy("StatefulSet", "a")},
		{"a container's image", holdingImage, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "a:1" }, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "b:1" }},
		{"an init container's image", holdingImage, func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Image: "a:1"}} }, func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Image: "b:1"}} }},
		{"an image that is a volume", holdingImage, imageVolume("a:1"), imageVolume("b:1")},

		{"whether it counts itself", func(s *stage) { s.place("n0", "q", label("app", "a")) }, both(label("app", "a"), spreadBy(1)), both(label("app", "b"), spreadBy(1))},
		{"whom a constraint counts", func(s *stage) { s.place("n0", "q", both(label("app", "a"), label("rev", "1"))) },
			both(label("app", "a"), both(label("rev", "1"), spreadBy(1, "rev"))), both(label("app", "a"), both(label("rev", "2"), spreadBy(1, "rev")))},
		{"whom a rule is about", func(s *stage) { s.place("n0", "q", both(label("app", "a"), label("rev", "1"))) },
			both(label("rev", "1"), apartFrom(ofApp("rev"))), both(label("rev", "2"), apartFrom(ofApp("rev")))},
		{"whether it is one of those it wants to be with", nil, both(label("app", "a"), togetherWith(ofApp())), both(label("app", "b"), togetherWith(ofApp()))},
		{"which of those that are there do not want it", func(s *stage) {
			s.place("n0", "q", apartFrom(ofApp()))
			s.place("n1", "r", apartFrom(corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "b"}}}))
		}, label("app", "a"), label("app", "b")},
		{"who does not want it", func(s *stage) { s.place("n0", "q", apartFrom(ofApp())) }, label("app", "a"), label("app", "b")},

		{"a disk's name", func(s *stage) { s.place("n0", "q", onDisk("d", false)) }, onDisk("d", false), onDisk("e", false)},
		{"a disk that is only read", func(s *stage) { s.place("n0", "q", onDisk("d", true)) }, onDisk("d", false), onDisk("d", true)},
		{"which nodes a volume reaches", func(s *stage) {
			s.claim("c0", "static", "1Gi", reaching("ssd"))
			s.claim("c1", "static", "1Gi", reaching("hdd"))
		}, claiming("c0"), claiming("c1")},
		{"a volume's zone", func(s *stage) {
			s.claim("c0", "static", "1Gi", inZone(corev1.LabelTopologyZone, "z0"))
			s.claim("c1", "static", "1Gi", inZone(corev1.LabelTopologyZone, "z1"))
		}, claiming("c0"), claiming("c1")},
		{"a volume that is attached already", func(s *stage) {
			s.claim("c0", "static", "1Gi", attachable("h0"))
			s.claim("c1", "static", "1Gi", attachable("h1"))
			for i, claim := range []string{"c0", "c1"} {
				node := fmt.Sprint("n", i)
				s.place(node, "q"+claim, claiming(claim))
				s.nodes.SetAttachLimits(node, map[string]int{csiDriver: 1})
			}
		}, claiming("c0"), claiming("c1")},
		{"the driver of a volume that is attached already", func(s *stage) {
			for i, driver := range []string{csiDriver, "other.com"} {
				claim, v := fmt.Sprint("c", i), attachable("h")
				v.Spec.CSI.Driver = driver
				s.claim(claim, "static", "1Gi", v)
				s.place("n0", "q"+claim, claiming(claim))
			}
			s.nodes.SetAttachLimits("n1", map[string]int{csiDriver: 0})
		}, claiming("c0"), claiming("c1")},
		{"how many volumes are to be attached", func(s *stage) {
			s.claim("c0", "static", "1Gi", attachable("h0"))
			s.claim("c1", "static", "1Gi", local(func(v *corev1.PersistentVolume) {}))
			s.nodes.SetAttachLimits("n0", map[string]int{csiDriver: 0})
		}, claiming("c0"), claiming("c1")},
		{"a claim's size, where there is little room", func(s *stage) {
			s.claim("c0", "measured", "1Gi", nil)
			s.claim("c1", "measured", "8Gi", nil)
			s.shelf.rooms = []*storagev1.CSIStorageCapacity{{StorageClassName: "measured", Capacity: new(resource.MustParse("4Gi")), NodeTopology: &metav1.LabelSelector{}}}
		}, claiming("c0"), claiming("c1")},
		{"a claim's size, where volumes are there", func(s *stage) {
			s.claim("c0", "static", "1Gi", nil)
			s.claim("c1", "static", "8Gi", nil)
			s.shelf.volumes["v"] = &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{StorageClassName: "static",
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("4Gi")}},
				Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
		}, claiming("c0"), claiming("c1")},
		{"a claim's class", func(s *stage) {
			s.claim("c0", "made", "1Gi", nil)
			s.claim("c1", "zonal", "1Gi", nil)
			s.shelf.zone = ""
		}, claiming("c0"), claiming("c1")},
		{"the node that a claim's volume is made on", func(s *stage) {
			s.claim("c0", "made", "1Gi", nil).Annotations = map[string]string{storage.AnnSelectedNode: "n0"}
			s.claim("c1", "made", "1Gi", nil).Annotations = map[string]string{storage.AnnSelectedNode: "n1"}
		}, claiming("c0"), claiming("c1")},
		{"a claim that is promised a volume", func(s *stage) {
			toClaims(s)
			s.shelf.volumes["v"] = &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{StorageClassName: "static",
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
				Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
			s.shelf.volumes["w"] = s.shelf.volumes["v"].DeepCopy()
			s.shelf.volumes["w"].Name = "w"
			s.shelf.volumes["w"].Spec.NodeAffinity = reaching("ssd").Spec.NodeAffinity
			s.book.Promise("v", "x/c0")
		}, claiming("c0"), claiming("c1")},
		{"who holds a claim that only one pod may use", func(s *stage) {
			for i, name := range []string{"c0", "c1"} {
				s.claim(name, "static", "1Gi", local(func(*corev1.PersistentVolume) {})).Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
				if i == 0 {
					s.place("n0", "q", claiming(name))
				}
			}
		}, claiming("c0"), claiming("c1")},
	} {
		s := newStage()
		if row.of != nil {
			row.of(s)
		}
		one, other := plainPod("one"), plainPod("other")
		row.p1(one)
		row.p2(other)
		alone := map[*corev1.Pod]string{one: s.alone(t, one), other: s.alone(t, other)}
		if alone[one] == alone[other] {
			t.Errorf("%s makes no difference here: %s", row.what, alone[one])
		}
		shared := NewTable(s.nodes, s.sibling)
		for _, p := range []*corev1.Pod{one, other, one} {
			if got := s.verdict(t, shared, p); got != alone[p] {
				t.Errorf("%s: pod %s is taken for another: %s, by itself %s", row.what, p.Name, got, alone[p])
			}
		}
	}
}

// What a claim may be bound to changes with its class, its driver and with the volumes there are, and pods' classes follow.
func TestWhatAClaimMayHaveChanges(t *testing.T) {
	for _, row := range []struct {
		what   string
		class  string
		change func(s *stage)
	}{
		{"another zone", "zonal", func(s *stage) { s.shelf.zone = "z1" }},
		{"a driver that has to be there", "made", func(s *stage) { s.book.DriverChanged(nil, mustBeThere(csiDriver)) }},
		{"another volume", "static", func(s *stage) {
			s.shelf.volumes["v"].Spec.NodeAffinity = reaching("hdd").Spec.NodeAffinity
			s.book.Changed()
		}},
	} {
		s := newStage()
		s.claim("c0", row.class, "1Gi", nil)
		s.shelf.volumes["v"] = &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{StorageClassName: "static",
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
		p := plainPod("p")
		claiming("c0")(p)
		table := NewTable(s.nodes, nil)
		before := s.verdict(t, table, p)
		row.change(s)
		if got, want := s.verdict(t, table, p), s.alone(t, p); got != want || got == before {
			t.Errorf("%s: %s after %s, by itself %s", row.what, got, before, want)
		}
	}
}

func imageVolume(image string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "i", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: image}}}}
	}
}

// restartingAll and binding need a feature that not every node declares.
func restartingAll(p *corev1.Pod) {
	p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers}}
}

func binding(p *corev1.Pod) {
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", BindMountOptions: []string{"noexec"}}}
}

const (
	restartsAll = "RestartAllContainersOnContainerExits"
	bindsMounts = "VolumeBindMountOptions"
)

func both(a, b func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) { a(p); b(p) }
}

func togetherWith(term corev1.PodAffinityTerm) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
	}
}

func affineTo(disk string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{disk}}}}}}}}
	}
}

func holdingImage(s *stage) {
	s.node(0, func(n *corev1.Node) {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"a:1"}, SizeBytes: 900 << 20}}
	})
}
