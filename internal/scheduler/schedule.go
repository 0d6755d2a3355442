package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/preempt"
	"skiff.dev/skiff/internal/scheduler/queue"
)

// schedule tries one pod.
func (l *loop) schedule(e *queue.Entry) {
	p := e.Pod
	if g := l.groupOf(p.UID); g != nil && g.Gang() {
		l.together(g, e)
		return
	}
	held := l.release(p)
	if !l.demand(e) {
		return
	}
	c := l.classes.Of(p)
	if len(l.extenders) > 0 {
		if list := l.wanted(p.Pod); len(list) > 0 {
			l.consult(e, c, held, list)
			return
		}
	}
	if l.need != nil {
		l.second(e, c, held, nil)
		return
	}
	node, ok := held, held >= 0 && c.Fits(held)
	if !ok {
		node, ok = c.Best()
	}
	if !ok {
		l.unschedulable(e, c, c.Verdict(), held)
		return
	}
	l.give(e, node)
}

// give has a pod bound to a node, which is taken for done until somebody says otherwise.
func (l *loop) give(e *queue.Entry, node int) {
	l.take(e.Pod, node)
	l.seat(e.Pod.Pod)
	l.alone(e.Pod.UID, true)
	l.commit(e, node)
}

// take takes a pod for placed, and what its claims get there for taken.
func (l *loop) take(p *cluster.Pod, node int) {
	l.nodes.Place(p, l.nodes.Node[node].Name)
	if len(p.Claims) > 0 {
		l.devices.Promise(p.UID, p.Claims)
	}
}

// commit has a pod bound to the node that was taken for it.
func (l *loop) commit(e *queue.Entry, node int) {
	p, name := e.Pod, l.nodes.Node[node].Name
	l.pending |= cluster.Joined
	l.assumed[p.UID] = true
	attempts, object := e.Attempts, p.Pod
	if p.Volumes != nil && len(p.Volumes.Unbound) > 0 {
		l.settle(p, object, name, attempts)
		return
	}
	l.write(p.UID, func(ctx context.Context) { l.bind(ctx, p, object, name, attempts) })
}

// release gives up the place a pod holds, which must not be in its own way, and says which node that is; -1 if none.
func (l *loop) release(p *cluster.Pod) int {
	if l.nominated[p.UID] == nil {
		return -1
	}
	node, _ := l.nodes.Where(p.UID)
	delete(l.nominated, p.UID)
	l.nodes.Displace(p.UID)
	if node < l.nodes.Len() && l.nodes.Node[node] != nil {
		return node
	}
	return -1
}

// unschedulable says why no node will do, and makes room if less important pods can give way.
func (l *loop) unschedulable(e *queue.Entry, c *class.Class, v *class.Verdict, held int) {
	why, keep, may := l.eligible(e.Pod, c, v, held)
	if !may {
		l.conclude(e, c, v, held, nil, why, keep)
		return
	}
	l.finder.Refuses = l.refuser()
	if list := l.preempters(e.Pod.Pod); len(list) > 0 {
		if choices, _ := l.finder.All(e.Pod, c); len(choices) > 0 {
			l.askVictims(e, v, held, list, choices)
			return
		}
	}
	choice, reasons := l.finder.Find(e.Pod, c)
	if choice == nil {
		why = verdict(v.Nodes, reasons)
	}
	l.conclude(e, c, v, held, choice, why, false)
}

// conclude puts a pod back, with the place that others leave for it.
func (l *loop) conclude(e *queue.Entry, c *class.Class, v *class.Verdict, held int, choice *preempt.Choice, why string, keep bool) {
	p := e.Pod
	e.Class, e.Others = c, c.Others()
	if c.Bound() || p.Volumes != nil || l.need != nil || len(l.extenders) > 0 { // of a class for now: its volumes may mean something else at the next look
		e.Class = nil
	}
	if choice != nil && len(choice.Victims) == 0 { // upstream does not take who only waits for a place for there, if less important
		l.sendBack(choice.Waiting)
		l.nominate(p, l.nodes.Name(choice.Node))
		l.queue.Retry(e)
		return
	}
	sentence := verdict(v.Nodes, v.Reasons)
	if choice != nil {
		why = fmt.Sprintf("found a potential placement for pod on node %s, preempting %d victims", l.nodes.Name(choice.Node), len(choice.Victims))
	}
	if why != "" {
		sentence += " preemption: " + why
	}
	nominated := ""
	switch {
	case choice != nil:
		nominated = l.nodes.Name(choice.Node)
	case keep && held >= 0:
		nominated = l.nodes.Name(held)
	}
	if nominated != "" {
		l.nominate(p, nominated)
	}
	helps := v.Helps | l.backed(p, v)
	if l.mayPreempt(p) {
		helps |= cluster.Freed
	}
	l.refuse(e, sentence, helps, nominated, l.evictions(e, choice))
}

// sendBack takes from pods the places that they hold while others leave these.
func (l *loop) sendBack(waiting []*cluster.Pod) {
	for _, w := range waiting {
		delete(l.nominated, w.UID)
		l.nodes.Displace(w.UID)
		object := w.Pod
		l.write(w.UID, func(ctx context.Context) { l.writeNomination(ctx, object, "") })
	}
}

// backed is what may help a pod that lacks extended resources: a device class that stands for one.
func (l *loop) backed(p *cluster.Pod, v *class.Verdict) (helps cluster.Change) {
	for name := range p.Extended {
		if v.Reasons["Insufficient "+string(name)] > 0 {
			helps = cluster.Mapped
		}
	}
	return helps
}

// eligible says whether others may give way for a pod, and if not, why. keep says that the place the pod holds already is still worth waiting for.
func (l *loop) eligible(p *cluster.Pod, c *class.Class, v *class.Verdict, held int) (why string, keep, may bool) {
	if v.Nodes == 0 || !p.Profile.Runs("DefaultPreemption") {
		return "", false, false
	}
	final := false
	if held >= 0 {
		r, _ := c.Why(held)
		final = r != nil && r.Final
	}
	if l.evicting[p.UID] {
		return preempt.Terminating, true, false
	}
	if why := preempt.Eligible(p, l.nodes, held, final); why != "" {
		return why, true, false
	}
	if !l.nodes.Below(p.Priority) {
		return verdict(v.Nodes, preempt.Nobody(v)), false, false
	}
	return "", false, true
}

// evictions carries a choice out: others that only hold the place are sent back to the queue at once; what writes the rest is returned. Until it has
// been done nothing but the end of that wakes the pod.
func (l *loop) evictions(e *queue.Entry, choice *preempt.Choice) func(ctx context.Context) error {
	if choice == nil {
		return nil
	}
	l.sendBack(choice.Waiting)
	node, object := l.nodes.Name(choice.Node), e.Pod.Pod
	l.evicting[object.UID] = true
	victims := slices.DeleteFunc(slices.Clone(choice.Victims), func(v *cluster.Pod) bool { return l.called(v.UID, object, node) })
	var going []*corev1.Pod // as they are now: what is known of a pod is the loop's to read
	for _, v := range victims {
		if v.DeletionTimestamp == nil {
			going = append(going, v.Pod)
		}
	}
	return func(ctx context.Context) error {
		defer l.mail.post(func() { l.evicted(object.UID, victims) })
		var group errgroup.Group
		group.SetLimit(evictors)
		for _, v := range going {
			group.Go(func() error { return l.evict(ctx, v, object, node) })
		}
		return group.Wait()
	}
}

// called has a pod give way that has its node and still waits for its volumes or devices: nobody runs it yet, so it goes back to the queue and need not be
// deleted. It says that the pod was one of those.
func (l *loop) called(uid types.UID, preemptor *corev1.Pod, node string) bool {
	why := errors.New("preempted by DefaultPreemption")
	b := cmp.Or(l.binding[uid], l.awaiting[uid])
	switch {
	case b == nil:
		return false
	case l.binding[uid] == b:
		l.giveUp(b, why)
	default:
		l.notReady(b, why)
	}
	l.events[preemptor.Spec.SchedulerName].Eventf(b.object, corev1.EventTypeNormal, "Preempted", "Preempted by pod %v on node %v (in kube-scheduler memory).", preemptor.UID, node)
	return true
}

// evicted gives a pod another try whose victims have all been told to go, if that was enough. Where only a try can tell, as with volumes, claims and
// extenders, it waits until the victims are seen gone: a try before that would have others give way once more.
func (l *loop) evicted(uid types.UID, victims []*cluster.Pod) {
	delete(l.evicting, uid)
	e := l.queue.Get(uid)
	if e == nil {
		return
	}
	if _, _, waits := l.queue.Waits(e); !waits {
		return
	}
	there := slices.ContainsFunc(victims, func(v *cluster.Pod) bool { return l.nodes.Placed(v.UID) != nil })
	if e.Class == nil && !there || e.Class != nil && l.placeFree(e) {
		l.queue.Retry(e)
	}
}

// placeFree says that the place which a waiting pod of a known class holds is free but for the pod itself, or is none any more.
func (l *loop) placeFree(e *queue.Entry) bool {
	node, there := l.nodes.Where(e.Pod.UID)
	if !there || l.nodes.Node[node] == nil || e.Class.Dead {
		return true
	}
	e.Class.Repair()
	e.Class.On(node, &l.trial)
	l.trial.Without(l.nodes.Placed(e.Pod.UID))
	return l.trial.Refusal() == nil
}

// retelling is when a pod's event is told anew though nothing has changed, as upstream renews it: events do not stay for ever, and a pod may wait for longer.
const retelling = 30 * time.Minute

// refuse puts a pod back and tells the world why, if it has not been told already; after is done behind that.
func (l *loop) refuse(e *queue.Entry, why string, helps cluster.Change, nominated string, after func(ctx context.Context) error) {
	p := e.Pod.Pod
	l.queue.Refuse(e, helps, l.now())
	if l.inquiries.missedBy(e)&helps != 0 && !l.evicting[p.UID] {
		l.queue.Missed(e, l.now())
	}
	if e.Verdict == why && nominated == p.Status.NominatedNodeName && after == nil {
		if l.now().Sub(e.Told) >= retelling {
			e.Told = l.now()
			l.tell(p, corev1.EventTypeWarning, "FailedScheduling", "%s", why)
		}
		return
	}
	e.Verdict, e.Told = why, l.now()
	l.alone(p.UID, false)
	l.report(p, corev1.PodReasonUnschedulable, why, nominated, func(ctx context.Context) error {
		l.tell(p, corev1.EventTypeWarning, "FailedScheduling", "%s", why)
		if after == nil {
			return nil
		}
		return after(ctx)
	})
}
