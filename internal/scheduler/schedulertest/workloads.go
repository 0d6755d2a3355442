package schedulertest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"skiff.dev/skiff/internal/api"
)

// Workload is one of kube-scheduler's own benchmarks (scheduler_perf), by its name there, at the largest of its sizes that upstream runs
// regularly.
type Workload struct {
	Name    string
	Nodes   int
	Zones   []string // nodes are in, in turn; nil: none
	Before  []Batch  // pods there are when the measured ones come
	Measure Batch

	// What there is besides, made before what uses it; nil: nothing. A workload with such objects is not one for the algorithm alone.
	Once            []Object
	PerNode, PerPod func(i int) []Object

	Controllers []string // that it needs
	Served      []string // optional group-versions that it needs

	Churn bool // nodes, pods that fit nowhere and services come and go meanwhile

	// Floor is what upstream's CI asks for, in pods a second on 6 cores; 0: nothing.
	Floor int
}

// Batch is so many pods of a shape. Those that wait are not expected to be bound.
type Batch struct {
	Shape Shape
	Pods  int
	Waits bool
}

var (
	zone1    = []string{"zone1"}
	moons    = []string{"moon-1", "moon-2", "moon-3"}
	perfBase = shaped("basic", func(*corev1.Pod, int) {})
)

// Object of any kind.
type Object interface {
	metav1.Object
	runtime.Object
}

// Workloads are upstream's, with its numbers of nodes and pods divided by share; 1 leaves them as they are.
func Workloads(share int) []Workload {
	n := func(full int) int { return full / share }
	return []Workload{
		{Name: "SchedulingBasic", Nodes: n(5000), Before: []Batch{{perfBase, n(1000), false}}, Measure: Batch{perfBase, n(10000), false}, Floor: 680},
		{Name: "SchedulingPodAntiAffinity", Nodes: n(5000), Before: []Batch{{antiAffinity, n(1000), false}}, Measure: Batch{antiAffinity, n(2000), false}, Floor: 180},
		{Name: "SchedulingPodAffinity", Nodes: n(5000), Zones: zone1, Before: []Batch{{affinity, n(5000), false}}, Measure: Batch{affinity, n(5000), false}, Floor: 70},
		{Name: "SchedulingPreferredPodAffinity", Nodes: n(5000), Before: []Batch{{likes, n(5000), false}}, Measure: Batch{likes, n(5000), false}},
		{Name: "SchedulingPreferredPodAntiAffinity", Nodes: n(5000), Before: []Batch{{dislikes, n(5000), false}}, Measure: Batch{dislikes, n(5000), false}},
		{Name: "SchedulingNodeAffinity", Nodes: n(5000), Zones: zone1, Before: []Batch{{perfBase, n(5000), false}}, Measure: Batch{nodeAffinity, n(10000), false}},
		{Name: "TopologySpreading", Nodes: n(5000), Zones: moons, Before: []Batch{{perfBase, n(5000), false}},
			Measure: Batch{spreading(corev1.DoNotSchedule, 5), n(5000), false}, Floor: 460},
		{Name: "PreferredTopologySpreading", Nodes: n(5000), Zones: moons, Before: []Batch{{perfBase, n(5000), false}},
			Measure: Batch{spreading(corev1.ScheduleAnyway, 5), n(5000), false}},
		{Name: "MixedSchedulingBasePod", Nodes: n(5000), Zones: zone1, Before: []Batch{{perfBase, n(2000), false}, {affinity, n(2000), false},
			{antiAffinity, n(2000), false}, {likes, n(2000), false}, {dislikes, n(2000), false}}, Measure: Batch{perfBase, n(1000), false}},
		{Name: "Preemption", Nodes: n(5000), Before: []Batch{{lowPriority, n(20000), false}}, Measure: Batch{highPriority, n(5000), false}, Floor: 570},
		{Name: "Unschedulable", Nodes: n(5000), Before: []Batch{{tooLarge, n(200), true}}, Measure: Batch{perfBase, n(10000), false}, Floor: 590},
		{Name: "SchedulingWhileGated", Nodes: 1, Before: []Batch{{gated, n(10000), true}}, Measure: Batch{tiny, 100, false}},
		{Name: "SchedulingDaemonset", Nodes: n(15000), Measure: Batch{daemon(n(15000)), n(30000), false}, Floor: 1100},
		{Name: "SchedulingWithMixedChurn", Nodes: n(5000), Measure: Batch{perfBase, n(10000), false}, Churn: true},
		{Name: "SchedulingCSIPVs", Nodes: n(5000), Before: []Batch{{withVolume, n(5000), false}}, Measure: Batch{withVolume, n(5000), false}, Floor: 100,
			PerNode: attachLimits, PerPod: boundVolume},
		{Name: "SchedulingWithResourceClaimTemplate", Nodes: n(500), Before: []Batch{{withDevice, n(2500), false}}, Measure: Batch{withDevice, n(2500), false}, Floor: 56,
			Once: deviceTemplate(), PerNode: devices, Controllers: []string{"resourceclaim-controller"}},
		{Name: "GangScheduling", Nodes: n(5000), Measure: Batch{inGang(3), 3 * n(3000), false}, Once: podGroups(n(3000), 3), Served: []string{api.PodGroupAPI}},
		{Name: "GangScheduling_1000PerGroup", Nodes: n(5000), Measure: Batch{inGang(n(1000)), 9 * n(1000), false}, Once: podGroups(9, n(1000)), Served: []string{api.PodGroupAPI}},
	}
}

func shaped(name string, shape func(p *corev1.Pod, i int)) Shape { return Shape{name, false, shape} }

var (
	affinity = shaped("affinity", func(p *corev1.Pod, _ int) {
		p.Labels = map[string]string{"color": "blue"}
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term(p, corev1.LabelTopologyZone)}}
	})
	antiAffinity = shaped("anti-affinity", func(p *corev1.Pod, _ int) {
		p.Labels = map[string]string{"color": "green"}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term(p, corev1.LabelHostname)}}
	})
	likes = shaped("preferred affinity", func(p *corev1.Pod, _ int) {
		p.Labels = map[string]string{"color": "red"}
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted(p)}}
	})
	dislikes = shaped("preferred anti-affinity", func(p *corev1.Pod, _ int) {
		p.Labels = map[string]string{"color": "yellow"}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted(p)}}
	})
	nodeAffinity = shaped("node affinity", func(p *corev1.Pod, _ int) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"zone1", "zone2"}}}}}}}}
	})
	lowPriority = shaped("low priority", func(p *corev1.Pod, _ int) {
		p.Spec.TerminationGracePeriodSeconds = new(int64)
		request(p, "7")
	})
	highPriority = shaped("high priority", func(p *corev1.Pod, _ int) {
		p.Spec.PriorityClassName = UrgentClass
		request(p, "23")
	})
	tooLarge = shaped("too large", func(p *corev1.Pod, _ int) { request(p, "64") })
	tiny     = shaped("tiny", func(p *corev1.Pod, _ int) { request(p, "1m") })
	gated    = shaped("gated", func(p *corev1.Pod, _ int) {
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "test.k8s.io/hold"}}
	})
)

// UrgentClass is the priority class of pods that preempt; Urgent its priority.
const (
	UrgentClass = "urgent"
	Urgent      = int32(10)
)

func request(p *corev1.Pod, cpu string) {
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse(cpu)
}

func weighted(p *corev1.Pod) []corev1.WeightedPodAffinityTerm {
	return []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: term(p, corev1.LabelHostname)[0]}}
}

func spreading(when corev1.UnsatisfiableConstraintAction, skew int32) Shape {
	return shaped("spread", func(p *corev1.Pod, _ int) {
		p.Labels = map[string]string{"color": "blue"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: skew, TopologyKey: corev1.LabelTopologyZone,
			WhenUnsatisfiable: when, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}
	})
}

// daemon makes pods each of which is bound to one of so many nodes by name, as a DaemonSet's are.
func daemon(nodes int) Shape {
	return shaped("daemon", func(p *corev1.Pod, i int) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{Node(i % nodes).Name}}}}}}}}
	})
}

// Bare says that there are nodes and pods only, so that the algorithm alone can be measured by the workload.
func (w *Workload) Bare() bool { return w.PerNode == nil && len(w.Served) == 0 }

// Pods are all that a workload has.
func (w *Workload) Pods() int {
	n := w.Measure.Pods
	for _, b := range w.Before {
		n += b.Pods
	}
	return n
}

// Node is the i-th node of a workload.
func (w *Workload) Node(i int) *corev1.Node {
	n := Node(i)
	delete(n.Labels, corev1.LabelTopologyZone)
	if len(w.Zones) > 0 {
		n.Labels[corev1.LabelTopologyZone] = w.Zones[i%len(w.Zones)]
	}
	if w.Nodes == 1 { // which is to take all there is
		n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse(fmt.Sprint(w.Measure.Pods + 10))
	}
	return n
}

// TooLarge is a pod that fits nowhere.
func TooLarge(i int) *corev1.Pod {
	p := tooLarge.Pod(i)
	p.Name = fmt.Sprintf("too-large-%d", i)
	return p
}
