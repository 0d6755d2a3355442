package daemonset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/controller/podstate"
)

// observed is all that a decision depends on.
type observed struct {
	set        *appsv1.DaemonSet
	nodes      []*corev1.Node
	pods       []*corev1.Pod
	hash       string // of the present template
	collisions int32
	patience   func(node string) time.Duration // how long a failed pod there is still to be left alone
	mayAct     bool
	now        time.Time
}

// plan is what one pass changes.
type plan struct {
	hash              string
	create            []string // nodes
	remove            []*corev1.Pod
	failed, succeeded []*corev1.Pod // of the removed, to be told about
	status            appsv1.DaemonSetStatus
	after             time.Duration // when to look again though nothing happened
}

// place is one node with what the set has there.
type place struct {
	node string
	fit  fit
	pods []*corev1.Pod
}

// decide is one pass over a DaemonSet: nodes and pods are brought together first, and only when nothing is amiss does a rollout go on.
func decide(o observed) plan {
	p := plan{hash: o.hash}
	p.status, p.after = statusOf(o)
	if !o.mayAct {
		return p
	}
	places, stray := placesOf(o)
	p.remove = stray
	for _, at := range places {
		p.manage(o, at)
	}
	if len(p.create)+len(p.remove) == 0 && o.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		p.roll(o, places)
	}
	return p
}

// placesOf brings pods to their nodes, nodes in order of their names. Pods bound for a node that is gone are stray unless they got there: then
// the pod garbage collector takes them.
func placesOf(o observed) (places []place, stray []*corev1.Pod) {
	m := matcherOf(o.set)
	at := make(map[string]int, len(o.nodes))
	places = make([]place, 0, len(o.nodes))
	for _, n := range slices.SortedFunc(slices.Values(o.nodes), func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) }) {
		at[n.Name] = len(places)
		places = append(places, place{node: n.Name, fit: m.on(n)})
	}
	for _, pod := range o.pods {
		i, known := at[nodeOf(pod)]
		switch {
		case known:
			places[i].pods = append(places[i].pods, pod)
		case pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil:
			stray = append(stray, pod)
		}
	}
	for i := range places {
		slices.SortFunc(places[i].pods, func(a, b *corev1.Pod) int {
			return cmp.Or(compareBool(b.Spec.NodeName != "", a.Spec.NodeName != ""), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
	}
	return places, stray
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// manage creates what a node lacks and removes what it has too much of.
func (p *plan) manage(o observed, at place) {
	switch {
	case at.fit == wanted && len(at.pods) == 0:
		p.create = append(p.create, at.node)
	case at.fit == unfit:
		for _, pod := range at.pods {
			if pod.DeletionTimestamp == nil {
				p.remove = append(p.remove, pod)
			}
		}
	default:
		p.prune(o, p.bury(o, at))
	}
}

// bury removes a node's ended pods, failed ones not too often, and returns those that live.
func (p *plan) bury(o observed, at place) (living []*corev1.Pod) {
	for _, pod := range at.pods {
		switch {
		case pod.DeletionTimestamp != nil:
		case pod.Status.Phase == corev1.PodFailed:
			if wait := o.patience(at.node); wait > 0 {
				p.wake(wait)
				continue
			}
			p.failed, p.remove = append(p.failed, pod), append(p.remove, pod)
		case pod.Status.Phase == corev1.PodSucceeded:
			p.succeeded, p.remove = append(p.succeeded, pod), append(p.remove, pod)
		default:
			living = append(living, pod)
		}
	}
	return living
}

// prune leaves a node its oldest pod; while surging, its oldest pod of the present template and the oldest of a former one, until the new one
// can take over.
func (p *plan) prune(o observed, living []*corev1.Pod) {
	if len(living) <= 1 {
		return
	}
	if !surges(o.set) {
		p.remove = append(p.remove, living[1:]...)
		return
	}
	var former, present *corev1.Pod
	for _, pod := range living {
		keep := &former
		if updated(pod, o.hash) {
			keep = &present
		}
		if *keep == nil {
			*keep = pod
			continue
		}
		p.remove = append(p.remove, pod)
	}
	if former != nil && present != nil && (!podstate.Ready(former) || available(o, present)) {
		p.remove = append(p.remove, former)
	}
}

func (p *plan) wake(after time.Duration) {
	if after > 0 && (p.after == 0 || after < p.after) {
		p.after = after
	}
}

func updated(pod *corev1.Pod, hash string) bool {
	return hash != "" && pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == hash
}

func available(o observed, pod *corev1.Pod) bool {
	ok, _ := podstate.Available(pod, time.Duration(o.set.Spec.MinReadySeconds)*time.Second, o.now)
	return ok
}

// statusOf counts nodes, and says when a ready pod becomes available.
func statusOf(o observed) (s appsv1.DaemonSetStatus, after time.Duration) {
	collisions := o.collisions
	s = appsv1.DaemonSetStatus{ObservedGeneration: o.set.Generation, CollisionCount: &collisions, Conditions: o.set.Status.Conditions}
	if collisions == 0 {
		s.CollisionCount = o.set.Status.CollisionCount
	}
	places, _ := placesOf(o)
	for _, at := range places {
		if at.fit != wanted {
			if len(at.pods) > 0 {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if len(at.pods) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		pod := at.pods[0]
		if podstate.Ready(pod) {
			s.NumberReady++
			ok, left := podstate.Available(pod, time.Duration(o.set.Spec.MinReadySeconds)*time.Second, o.now)
			if ok {
				s.NumberAvailable++
			} else if left > 0 && (after == 0 || left < after) {
				after = left
			}
		}
		if updated(pod, o.hash) {
			s.UpdatedNumberScheduled++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	return s, after
}
