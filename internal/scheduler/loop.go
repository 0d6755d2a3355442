package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/device"
	"skiff.dev/skiff/internal/scheduler/extender"
	"skiff.dev/skiff/internal/scheduler/gang"
	"skiff.dev/skiff/internal/scheduler/preempt"
	"skiff.dev/skiff/internal/scheduler/queue"
	"skiff.dev/skiff/internal/scheduler/volume"
)

// lull is how long changes that the scheduler itself made wait before they wake others, while it has more to do.
const lull = 100 * time.Millisecond

// evictors is how many pods that give way for one are written at once, as upstream.
const evictors = 16

// loop is everything that belongs to the one goroutine.
type loop struct {
	*Scheduler
	mail      mailbox
	nodes     *cluster.Nodes
	classes   *class.Table
	queue     *queue.Queue
	groups    *gang.Book // nil where they are not served
	siblings  *siblings
	budgets   budgets
	volumes   *volume.Book
	devices   *device.Book
	need      *device.Need           // of the pod in hand; nil for most
	binding   map[types.UID]*binding // placed here, and waiting for their volumes
	awaiting  map[types.UID]*binding // likewise, for devices to get ready
	finder    preempt.Finder
	assumed   map[types.UID]bool         // placed here, and not yet seen placed
	nominated map[types.UID]*cluster.Pod // placed here to hold the place while others leave it; still in the queue
	evicting  map[types.UID]bool         // nominated, and those who leave the place are still being told
	trial     class.Trial
	writes    chan func(ctx context.Context)
	turns     turns
	extenders []*extender.Extender
	inquiries inquiries

	pending cluster.Change // not yet told to the queue
	freed   int32          // the highest priority of a pod that left since
	woke    time.Time
}

func newLoop(s *Scheduler) (*loop, error) {
	extenders, err := extender.New(s.cfg.Settings.Extenders)
	if err != nil {
		return nil, err
	}
	l := &loop{
		Scheduler: s, extenders: extenders, mail: mailbox{signal: make(chan struct{}, 1)}, nodes: cluster.New(), queue: queue.New(s.cfg.Settings.InitialBackoff, s.cfg.Settings.MaxBackoff), siblings: newSiblings(s.cfg.Client), budgets: budgets{},
		assumed: map[types.UID]bool{}, nominated: map[types.UID]*cluster.Pod{}, evicting: map[types.UID]bool{},
		writes: make(chan func(context.Context), 1024), turns: turns{waiting: map[types.UID][]func(context.Context){}},
	}
	l.volumes, l.binding, l.awaiting = volume.NewBook(s.cfg.Client, l.nodes), map[types.UID]*binding{}, map[types.UID]*binding{}
	l.devices = device.NewBook(s.cfg.Client)
	if s.cfg.Groups {
		l.groups = gang.NewBook()
	}
	l.classes = class.NewTable(l.nodes, l.siblings.of)
	l.finder = preempt.Finder{
		Nodes:   l.nodes,
		Waiting: func(p *cluster.Pod) bool { return l.nominated[p.UID] != nil },
		Budgets: func(namespace string) []preempt.Budget { return l.budgets[namespace] },
	}
	return l, nil
}

// run works through the mail and the queue, and sleeps until there is something in either.
func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		mail := l.mail.take()
		for _, do := range mail {
			do()
		}
		now := l.now()
		if l.pending&^cluster.Joined != 0 || now.Sub(l.woke) >= lull {
			l.wake(now)
		}
		if l.groups != nil {
			l.tellHeld()
		}
		if e := l.queue.Pop(now); e != nil {
			l.schedule(e)
			continue // mail first: what one pod's try took, others may have freed
		}
		if l.wake(now) {
			continue
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

// wake gives those pods another try that what has changed helps: their class is brought up to date, which costs what changed, and has a
// node, or they could preempt where they could not before. It says whether anything had changed.
func (l *loop) wake(now time.Time) bool {
	what, freed := l.pending, l.freed
	l.pending, l.freed, l.woke = 0, lowestPriority, now
	l.inquiries.missed |= what
	if what == 0 || !l.queue.Wants(what) {
		return what != 0
	}
	type outlook struct {
		feasible bool
		helps    cluster.Change
		others   uint64
	}
	known := map[*class.Class]outlook{}
	l.queue.Wake(what, now, func(e *queue.Entry) (bool, cluster.Change) {
		c := e.Class
		switch {
		case l.evicting[e.Pod.UID]:
			return false, 0
		case c == nil || c.Dead || what&(cluster.Spaces|cluster.Mapped) != 0:
			return true, 0
		}
		o, there := known[c]
		if !there {
			c.Repair()
			if o.feasible = c.Feasible(); !o.feasible {
				o.helps, o.others = c.Verdict().Helps, c.Others() // a node that was cordoned may still have a taint
			}
			known[c] = o
		}
		if o.feasible || l.nominated[e.Pod.UID] != nil && l.placeFree(e) {
			return true, 0
		}
		return l.mayPreempt(e.Pod) && (what&^(cluster.Freed|cluster.Joined) != 0 || freed >= e.Pod.Priority || o.others != e.Others && l.nominated[e.Pod.UID] == nil), o.helps
	})
	return true
}

// mayPreempt says that there are less important pods than this. That one of them leaves makes no room that preemption could not have made, unless rules about
// other pods count it: they may have kept nodes from being of use whoever leaves them, and the pods that come and go elsewhere may alter that.
func (l *loop) mayPreempt(p *cluster.Pod) bool {
	return p.Profile.Runs("DefaultPreemption") && (p.Spec.PreemptionPolicy == nil || *p.Spec.PreemptionPolicy != corev1.PreemptNever) && l.nodes.Below(p.Priority)
}

const lowestPriority = -1 << 31

func (l *loop) nodeChanged(old, current *corev1.Node) {
	if current == nil {
		l.nodes.Remove(old.Name)
		l.pending |= cluster.Freed // of spreading, the domains are fewer
		return
	}
	l.pending |= l.nodes.Set(current)
}

func (l *loop) namespaceChanged(old, current *corev1.Namespace) {
	name, labels := "", map[string]string(nil)
	if current != nil {
		name, labels = current.Name, current.Labels
	} else {
		name = old.Name
	}
	if l.nodes.SetNamespace(name, labels) {
		l.pending |= cluster.Spaces
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
		l.placed(old, current)
	case !l.ours(current) || current.DeletionTimestamp != nil:
		l.forget(current.UID)
	case l.assumed[current.UID]:
		l.queue.Renew(l.read(current)) // in case it is not bound: the next try is about the pod as it is then
	case len(current.Spec.SchedulingGates) > 0:
		l.queue.Remove(current.UID)
		l.leave(current.UID)
		l.report(current, corev1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates", "", nil)
	default:
		p := l.read(current)
		again := old != nil && !sameWishes(old, current)
		if again {
			l.inquiries.renewed(p.UID)
		}
		l.queue.Add(p, again, l.now())
		l.enrol(current)
		if node := current.Status.NominatedNodeName; old == nil && node != "" && l.nominated[current.UID] == nil {
			if _, known := l.nodes.Index(node); known { // what an earlier run of the scheduler made room for
				l.nominate(p, node)
			}
		}
	}
}

// read is what there is to know of a pod that is ours.
func (l *loop) read(object *corev1.Pod) *cluster.Pod {
	p := cluster.PodOf(object)
	if rules := l.cfg.Settings.Profiles[object.Spec.SchedulerName]; rules != nil {
		p.Use(rules)
	}
	return p
}

// ours says that a pod asks for a profile of this scheduler.
func (l *loop) ours(p *corev1.Pod) bool {
	_, has := l.cfg.Settings.Profiles[p.Spec.SchedulerName]
	return has
}

// longestNote is how long an event's text may be; a pod's condition has all of it.
const longestNote = 1024

// tell records an event about one of our pods, in the name of its profile.
func (l *loop) tell(p *corev1.Pod, kind, reason, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(text) > longestNote {
		const more = " ..."
		text = text[:longestNote-len(more)] + more
	}
	if events := l.events[p.Spec.SchedulerName]; events != nil {
		events.Event(p, kind, reason, text)
	}
}

// placed takes in a pod that has a node.
func (l *loop) placed(old, current *corev1.Pod) {
	uid := current.UID
	delete(l.assumed, uid)
	if l.nominated[uid] != nil {
		delete(l.nominated, uid)
		l.finder.Forget() // it no longer only holds its place
	}
	l.dropBinding(uid)
	l.queue.Remove(uid)
	l.seat(current)
	if at, there := l.nodes.Where(uid); there && l.nodes.Name(at) == current.Spec.NodeName {
		p := l.nodes.Placed(uid)
		made := p.Volumes != nil && len(p.Volumes.Unbound) > 0 // when it was placed they were not there yet
		if sameDemand(p.Pod, current) && !made {
			if !p.Status.StartTime.Equal(current.Status.StartTime) {
				l.finder.Forget() // the younger of equals give way
			}
			p.Pod = current
			return
		}
	}
	p := cluster.PodOf(current)
	p.Volumes = l.volumes.Placed(current)
	l.nodes.Place(p, current.Spec.NodeName)
	l.pending |= cluster.Joined
	if old != nil && old.Spec.NodeName != "" { // a resize, new labels, or an end that begins
		l.pending |= cluster.Freed
		l.freed = max(l.freed, p.Priority)
	}
}

// sameDemand says that a placed pod takes what it took, and is to others what it was. A resize in place shows in the spec, then in the status.
func sameDemand(old, current *corev1.Pod) bool {
	return (old.DeletionTimestamp == nil) == (current.DeletionTimestamp == nil) && maps.Equal(old.Labels, current.Labels) &&
		(old.Generation == current.Generation || equality.Semantic.DeepEqual(old.Spec.Containers, current.Spec.Containers) &&
			equality.Semantic.DeepEqual(old.Spec.Resources, current.Spec.Resources)) &&
		(len(old.Status.ContainerStatuses) == 0 && !resized(current) ||
			slices.EqualFunc(old.Status.ContainerStatuses, current.Status.ContainerStatuses, func(a, b corev1.ContainerStatus) bool {
				return equality.Semantic.DeepEqual(a.Resources, b.Resources) && equality.Semantic.DeepEqual(a.AllocatedResources, b.AllocatedResources)
			}))
}

// resized says that a pod's status tells of other resources than its spec.
func resized(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress
	})
}

// sameWishes says that nothing changed by which a waiting pod might now be scheduled; its status is written by us.
func sameWishes(old, current *corev1.Pod) bool {
	return old.Generation == current.Generation && len(old.Spec.SchedulingGates) == len(current.Spec.SchedulingGates) &&
		len(old.Spec.Tolerations) == len(current.Spec.Tolerations) && maps.Equal(old.Labels, current.Labels) &&
		resourceclaim.PodStatusEqual(old.Status.ResourceClaimStatuses, current.Status.ResourceClaimStatuses)
}

// forget drops a pod from everywhere; what it held is free for others.
func (l *loop) forget(uid types.UID) {
	delete(l.assumed, uid)
	delete(l.nominated, uid)
	delete(l.evicting, uid)
	l.dropBinding(uid)
	l.queue.Remove(uid)
	l.leave(uid)
	l.devices.Forget(uid)
	l.free(uid)
}

// free takes a pod from its node.
func (l *loop) free(uid types.UID) {
	if p := l.nodes.Placed(uid); p != nil {
		l.nodes.Displace(uid)
		l.pending |= cluster.Freed
		l.freed = max(l.freed, p.Priority)
	}
}

// nominate lets a waiting pod hold a place as if it were there. More important pods are not bound by that, see preempt.Choice.
func (l *loop) nominate(p *cluster.Pod, node string) {
	l.nodes.Place(p, node)
	l.nominated[p.UID] = p
}

// unassume takes back an assumption that could not be bound.
func (l *loop) unassume(p *cluster.Pod, attempts int, retry bool) {
	if !l.assumed[p.UID] {
		return // seen placed, or gone, meanwhile
	}
	delete(l.assumed, p.UID)
	l.free(p.UID)
	object := p.Pod
	if p.Expected && retry {
		p.Expected = false
		l.write(p.UID, func(ctx context.Context) { l.writeNomination(ctx, object, "") })
	}
	if list := p.Claims; len(list) > 0 {
		l.write(p.UID, func(ctx context.Context) { l.unreserve(ctx, object, list) })
	}
	if retry {
		l.queue.Fail(p, attempts, l.now())
		l.enrol(object)
	} else {
		l.queue.Remove(p.UID)
		l.leave(p.UID)
	}
}
