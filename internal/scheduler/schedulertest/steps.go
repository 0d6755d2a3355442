package schedulertest

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Step of a workload, which is over before the next one begins: Nodes, Pods, Objects, Churn, Remove, Change, Tried, Bound.
type Step interface {
	bare() bool // see Workload.Bare
}

// Object of any kind.
type Object interface {
	metav1.Object
	runtime.Object
}

// Nodes are made, and then what belongs to them.
type Nodes struct {
	Count   int
	Node    func(i int) *corev1.Node
	Objects func(i int) []Object // nil: nothing
}

// Pods are made, each with a label of its own as upstream's have, which keeps its scheduler from taking them for the same.
type Pods struct {
	Count     int
	Shape     Shape
	Namespace string                                 // empty: one of the step's own
	Objects   func(namespace string, i int) []Object // are made before all of the pods; nil: nothing

	Loose    bool // nobody waits until they are bound; a later Bound may
	Measured bool
	Steady   bool // there are so many at a time: for Steadily one that is bound is deleted and the next one made
	Batch    int  // how many share their label; 0: one
}

// Steadily is how long a steady state is measured.
const Steadily = 10 * time.Second

// Objects are made, whatever they are.
type Objects []Object

// Churn makes objects again and again, until the workload is over.
type Churn struct {
	Every   time.Duration
	Objects func(round int) []Object
	Slots   int // the objects of so many rounds are there at most: then those of a round are deleted before others are made; 0: they stay
}

// Remove deletes a namespace's pods one by one, while the workload goes on.
type Remove struct {
	Namespace string
	Label     string // name=value, which they have; empty: all
	PerSecond int
}

// Change patches objects one by one.
type Change struct {
	Count, PerSecond int
	Patch            func(i int) Patch
}

// Patch is a JSON patch of a node, or of a pod where there is a namespace.
type Patch struct{ Namespace, Name, Subresource, Body string }

// Tried waits until all pods that have no node were considered once.
type Tried struct{}

// Bound waits until all pods are bound, loose ones too.
type Bound struct{}

func (s Nodes) bare() bool { return s.Objects == nil }
func (s Pods) bare() bool  { return s.Objects == nil && !s.Steady }
func (Churn) bare() bool   { return true }
func (Remove) bare() bool  { return false }
func (Change) bare() bool  { return false }
func (Tried) bare() bool   { return true }
func (Bound) bare() bool   { return false }
func (s Objects) bare() bool {
	for _, o := range s {
		switch o.(type) {
		case *corev1.Namespace, *schedulingv1.PriorityClass:
		default:
			return false
		}
	}
	return true
}

// In is the namespace of a step's pods, the k-th of its workload.
func (s Pods) In(k int) string {
	if s.Namespace != "" {
		return s.Namespace
	}
	return fmt.Sprintf("namespace-%d", k)
}

// Signature is the label that all pods of workloads have.
const Signature = "signature"

// Pod is the i-th pod of a step.
func (s Pods) Pod(namespace string, i int) *corev1.Pod {
	p := s.Shape.Pod(i)
	p.Namespace, p.Name = namespace, fmt.Sprintf("%s-%d", s.Shape.Name, i)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[Signature] = fmt.Sprintf("signature-label-%d", i/max(s.Batch, 1))
	return p
}
