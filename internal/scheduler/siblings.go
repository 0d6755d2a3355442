package scheduler

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/preempt"
)

// siblings knows which pods serve together: those of a pod's services and of the set that owns it. They are spread by default.
type siblings struct {
	reader   crclient.Reader
	services map[string]map[string]labels.Set // selectors by namespace and name
}

func newSiblings(reader crclient.Reader) *siblings {
	return &siblings{reader: reader, services: map[string]map[string]labels.Set{}}
}

// set takes a service in and says whether its selector changed.
func (s *siblings) set(old, current *corev1.Service) bool {
	if current == nil || len(current.Spec.Selector) == 0 {
		gone := old
		if gone == nil {
			gone = current
		}
		_, had := s.services[gone.Namespace][gone.Name]
		delete(s.services[gone.Namespace], gone.Name)
		return had
	}
	in := s.services[current.Namespace]
	if in == nil {
		in = map[string]labels.Set{}
		s.services[current.Namespace] = in
	}
	if known, had := in[current.Name]; had && labels.Equals(known, current.Spec.Selector) {
		return false
	}
	in[current.Name] = current.Spec.Selector
	return true
}

// of selects a pod's siblings; nil if it has none.
func (s *siblings) of(p *corev1.Pod) labels.Selector {
	all := labels.Set{}
	for _, selector := range s.services[p.Namespace] {
		if selector.AsSelectorPreValidated().Matches(labels.Set(p.Labels)) {
			all = labels.Merge(all, selector) // they all match the pod, so they do not contradict one another
		}
	}
	selector := all.AsSelectorPreValidated()
	if r, selectable := s.owners(p).Requirements(); selectable {
		selector = selector.Add(r...)
	}
	if selector.Empty() {
		return nil
	}
	return selector
}

// owners is the selector of the set that owns a pod; one that selects everything if there is none.
func (s *siblings) owners(p *corev1.Pod) labels.Selector {
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil {
		return labels.Everything()
	}
	key := crclient.ObjectKey{Namespace: p.Namespace, Name: owner.Name}
	switch owner.APIVersion + " " + owner.Kind {
	case "apps/v1 ReplicaSet":
		var set appsv1.ReplicaSet
		if s.reader.Get(context.Background(), key, &set) == nil {
			return cluster.Selector(set.Spec.Selector)
		}
	case "apps/v1 StatefulSet":
		var set appsv1.StatefulSet
		if s.reader.Get(context.Background(), key, &set) == nil {
			return cluster.Selector(set.Spec.Selector)
		}
	case "v1 ReplicationController":
		var set corev1.ReplicationController
		if s.reader.Get(context.Background(), key, &set) == nil {
			return labels.Set(set.Spec.Selector).AsSelectorPreValidated()
		}
	}
	return labels.Everything() // gone, or no set: its services alone decide
}

func (l *loop) serviceChanged(old, current *corev1.Service) {
	if l.siblings.set(old, current) {
		if current == nil {
			current = old
		}
		l.nodes.ForgetMemos(current.Namespace)
	}
}

// budgets are the PodDisruptionBudgets by namespace.
type budgets map[string][]preempt.Budget

func (l *loop) budgetChanged(old, current *policyv1.PodDisruptionBudget) {
	one := current
	if one == nil {
		one = old
	}
	var list []preempt.Budget
	for _, b := range l.budgets[one.Namespace] {
		if b.Name != one.Name {
			list = append(list, b)
		}
	}
	if current != nil {
		list = append(list, preempt.Budget{PodDisruptionBudget: current, Selector: cluster.Selector(current.Spec.Selector)})
	}
	l.budgets[one.Namespace] = list
	l.finder.Forget()
}
