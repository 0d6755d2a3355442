package schedulertest

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// churnPods is after how many pods, where there is no API server and no time passes, there is a round of churn.
const churnPods = 100

// Run takes a workload through the algorithm alone, the time of its measured pods, and says how many found a place.
func (w *Workload) Run() (took time.Duration, placed int) {
	a := NewAlone(0)
	var churn *Churn
	for k, step := range w.Steps {
		switch s := step.(type) {
		case Nodes:
			for i := range s.Count {
				a.Nodes.Set(s.Node(i))
			}
		case Objects:
			for _, o := range s {
				if ns, ok := o.(*corev1.Namespace); ok {
					a.Nodes.SetNamespace(ns.Name, ns.Labels)
				}
			}
		case Churn:
			churn = &s
		case Pods:
			t, n := a.runPods(s, s.In(k), churn)
			if s.Measured {
				took, placed = took+t, placed+n
			}
		}
	}
	return took, placed
}

func (a *Alone) runPods(s Pods, namespace string, churn *Churn) (took time.Duration, placed int) {
	list := make([]*corev1.Pod, s.Count)
	for i := range list {
		list[i] = s.Pod(namespace, i)
	}
	if churn == nil {
		return a.schedule(list)
	}
	for done := 0; done < len(list); done += churnPods {
		began := time.Now()
		objects := churn.Objects(done / churnPods)
		a.churn(objects)
		_, n := a.schedule(list[done:min(done+churnPods, len(list))])
		if churn.Slots > 0 {
			a.unchurn(objects)
		}
		took, placed = took+time.Since(began), placed+n
	}
	return took, placed
}

func (a *Alone) churn(objects []Object) {
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Node:
			a.Nodes.Set(o)
		case *corev1.Pod:
			a.schedule([]*corev1.Pod{o})
		}
	}
}

func (a *Alone) unchurn(objects []Object) {
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Node:
			a.Nodes.Remove(o.Name)
		case *corev1.Pod:
			a.queue.Remove(o.UID)
			a.Nodes.Displace(o.UID)
		}
	}
}
