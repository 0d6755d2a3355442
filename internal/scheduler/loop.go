package scheduler

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
	"skiff.dev/skiff/internal/scheduler/queue"
	"skiff.dev/skiff/internal/scheduler/score"
)

// loop is everything that belongs to the one goroutine.
type loop struct {
	*Scheduler
	nodes    *cluster.Nodes
	queue    *queue.Queue
	assumed  map[types.UID]bool // placed here, and not yet seen placed
	feasible []int
	turn     int
	writes   chan func(ctx context.Context)
	now      func() time.Time
}

func newLoop(s *Scheduler) *loop {
	return &loop{
		Scheduler: s, nodes: cluster.New(), queue: queue.New(), assumed: map[types.UID]bool{},
		writes: make(chan func(context.Context), 1024), now: time.Now,
	}
}

// run works through the mail and the queue, and sleeps until there is something in either.
func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		for _, do := range l.mail.take() {
			do()
		}
		if e := l.queue.Pop(l.now()); e != nil {
			l.schedule(e)
			continue // mail first: what one pod's try took, others may have freed
		}
		wait := time.Hour
		if at, ok := l.queue.Next(); ok {
			wait = max(0, at.Sub(l.now()))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-l.mail.signal:
		case <-timer.C:
		}
	}
}

func (l *loop) nodeChanged(old, current *corev1.Node) {
	if current == nil {
		l.nodes.Remove(old.Name)
		return
	}
	if changed := l.nodes.Set(current); changed != 0 {
		l.queue.Changed(changed, l.now())
	}
}

// podChanged keeps the pod in the one place it belongs to: the picture if it has a node, the queue if it needs one from us, or neither.
func (l *loop) podChanged(old, current *corev1.Pod) {
	if old != nil && (current == nil || old.UID != current.UID) {
		l.forget(old.UID)
	}
	if current == nil {
		return
	}
	switch {
	case current.Status.Phase == corev1.PodSucceeded || current.Status.Phase == corev1.PodFailed:
		l.forget(current.UID)
	case current.Spec.NodeName != "":
		delete(l.assumed, current.UID)
		l.queue.Remove(current.UID)
		if _, placed := l.nodes.Where(current.UID); placed && old != nil && sameDemand(old, current) {
			return // status alone
		}
		l.nodes.Place(cluster.PodOf(current), current.Spec.NodeName)
	case current.Spec.SchedulerName != l.cfg.Name || current.DeletionTimestamp != nil:
		l.forget(current.UID)
	case l.assumed[current.UID]:
	case len(current.Spec.SchedulingGates) > 0:
		l.queue.Remove(current.UID)
		l.report(current, corev1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates", nil)
	default:
		l.queue.Add(cluster.PodOf(current), old != nil && !sameWishes(old, current), l.now())
	}
}

// sameDemand says that a placed pod still takes what it took. A resize in place shows in the spec (and generation), then in the status.
func sameDemand(old, current *corev1.Pod) bool {
	return old.Spec.NodeName == current.Spec.NodeName && old.Generation == current.Generation &&
		slices.EqualFunc(old.Status.ContainerStatuses, current.Status.ContainerStatuses, func(a, b corev1.ContainerStatus) bool {
			return equality.Semantic.DeepEqual(a.Resources, b.Resources) && equality.Semantic.DeepEqual(a.AllocatedResources, b.AllocatedResources)
		})
}

// sameWishes says that nothing changed by which a waiting pod might now be scheduled; its status is written by us.
func sameWishes(old, current *corev1.Pod) bool {
	return old.Generation == current.Generation && len(old.Spec.SchedulingGates) == len(current.Spec.SchedulingGates) &&
		len(old.Spec.Tolerations) == len(current.Spec.Tolerations)
}

// forget drops a pod from everywhere; what it held is free for others.
func (l *loop) forget(uid types.UID) {
	delete(l.assumed, uid)
	l.queue.Remove(uid)
	if l.nodes.Displace(uid) {
		l.queue.Changed(cluster.Freed, l.now())
	}
}

// schedule tries one pod.
func (l *loop) schedule(e *queue.Entry) {
	p := e.Pod
	if what := unsupported(p.Pod); what != "" {
		l.refuse(e, what, 0)
		return
	}
	result := filter.Run(p, l.nodes, l.feasible)
	l.feasible = result.Feasible
	if len(result.Feasible) == 0 {
		l.refuse(e, verdict(l.nodes.Count(), result.Reasons), result.Refused)
		return
	}
	l.turn++
	node := l.nodes.Node[score.Choose(p, l.nodes, result.Feasible, l.turn)].Name
	l.nodes.Place(p, node)
	l.assumed[p.UID] = true
	attempts := e.Attempts
	l.writes <- func(ctx context.Context) { l.bind(ctx, p, node, attempts) }
}

func (l *loop) refuse(e *queue.Entry, why string, helps cluster.Change) {
	l.queue.Refuse(e, helps, l.now())
	if e.Verdict == why {
		return
	}
	e.Verdict = why
	l.report(e.Pod.Pod, corev1.PodReasonUnschedulable, why, func() {
		l.events.Event(e.Pod.Pod, corev1.EventTypeWarning, "FailedScheduling", why)
	})
}

// unassume takes back an assumption that could not be bound.
func (l *loop) unassume(p *cluster.Pod, attempts int, retry bool) {
	if !l.assumed[p.UID] {
		return // seen placed, or gone, meanwhile
	}
	delete(l.assumed, p.UID)
	l.nodes.Displace(p.UID)
	if retry {
		l.queue.Fail(p, attempts, l.now())
	} else {
		l.queue.Remove(p.UID)
	}
	l.queue.Changed(cluster.Freed, l.now())
}
