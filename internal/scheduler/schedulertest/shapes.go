// Package schedulertest has the clusters and pods by which the scheduler is measured, alone and behind an API server.
package schedulertest

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/preempt"
	"skiff.dev/skiff/internal/scheduler/queue"
)

// zones is over how many zones nodes are spread.
const zones = 10

// groups is how many deployments the pods of a shape with groups belong to.
const groups = 100

// Shape is a kind of pod.
type Shape struct {
	Name  string
	Alone bool // its pods keep others out: they are to be gone before those of another shape
	shape func(p *corev1.Pod, i int)
}

// Shapes that are measured.
var Shapes = []Shape{
	{"basic", false, func(*corev1.Pod, int) {}},
	{"zone spread", false, func(p *corev1.Pod, _ int) {
		p.Labels = map[string]string{"app": "spread"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone,
			WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}
	}},
	{"zone affinity", false, func(p *corev1.Pod, _ int) {
		p.Labels = map[string]string{"app": "together"}
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term(p, corev1.LabelTopologyZone)}}
	}},
	{"hostname anti-affinity", true, func(p *corev1.Pod, i int) {
		p.Labels = map[string]string{"app": fmt.Sprintf("apart-%d", i%groups)}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term(p, corev1.LabelHostname)}}
	}},
	{"preferred spread", false, func(p *corev1.Pod, _ int) {
		p.Labels = map[string]string{"app": "spread"}
		for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: key,
				WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}})
		}
	}},
}

func term(p *corev1.Pod, key string) []corev1.PodAffinityTerm {
	return []corev1.PodAffinityTerm{{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}
}

// Node is the i-th hollow node: large enough for a hundred pods, ready, and nothing runs there.
func Node(i int) *corev1.Node {
	name := fmt.Sprintf("hollow-%05d", i)
	list := corev1.ResourceList{"cpu": resource.MustParse("32"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("110")}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%zones)}},
		Status: corev1.NodeStatus{Capacity: list, Allocatable: list,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Hollow"}}},
	}
}

// Pod is the i-th pod of a shape.
func (s Shape) Pod(i int) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("pod-%06d", i)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "pause", Image: "registry.k8s.io/pause:3.10", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("500Mi")}}}}},
	}
	s.shape(p, i)
	return p
}

// Alone is the algorithm without API server and informers: queue, classes and picture of the cluster.
type Alone struct {
	Nodes   *cluster.Nodes
	Classes *class.Table
	queue   *queue.Queue
	finder  preempt.Finder
	pods    int
}

// NewAlone returns a cluster of so many empty nodes.
func NewAlone(nodes int) *Alone {
	n := cluster.New()
	for i := range nodes {
		n.Set(Node(i))
	}
	a := &Alone{Nodes: n, Classes: class.NewTable(n, nil), queue: queue.New(time.Second, 10*time.Second)}
	a.finder = preempt.Finder{Nodes: n, Waiting: func(*cluster.Pod) bool { return false }, Budgets: func(string) []preempt.Budget { return nil }}
	return a
}

// Schedule makes so many pods of a shape, takes the time it takes to place them all, and says how many found a place.
func (a *Alone) Schedule(s Shape, pods int) (took time.Duration, placed int) {
	list := make([]*corev1.Pod, pods)
	for k := range list {
		list[k] = s.Pod(a.pods)
		a.pods++
	}
	return a.schedule(list)
}

func (a *Alone) schedule(list []*corev1.Pod) (took time.Duration, placed int) {
	for _, p := range list {
		p.UID, p.Spec.Priority = types.UID(p.Namespace+"/"+p.Name), priorityOf(p)
	}
	began := time.Now()
	for _, p := range list {
		if len(p.Spec.SchedulingGates) == 0 {
			a.queue.Add(cluster.PodOf(p), false, began)
		}
	}
	for e := a.queue.Pop(began); e != nil; e = a.queue.Pop(began) {
		if a.place(e.Pod) {
			placed++
			a.queue.Remove(e.Pod.UID)
			continue
		}
		a.queue.Refuse(e, a.Classes.Of(e.Pod).Verdict().Helps, began)
	}
	return time.Since(began), placed
}

// place puts a pod on the best node, also where others have to leave it.
func (a *Alone) place(p *cluster.Pod) bool {
	c := a.Classes.Of(p)
	if node, ok := c.Best(); ok {
		a.Nodes.Place(p, a.Nodes.Name(node))
		return true
	}
	if !a.Nodes.Below(p.Priority) {
		return false
	}
	choice, _ := a.finder.Find(p, c)
	if choice == nil {
		return false
	}
	for _, v := range choice.Victims {
		a.Nodes.Displace(v.UID)
	}
	a.Nodes.Place(p, a.Nodes.Name(choice.Node))
	return true
}
