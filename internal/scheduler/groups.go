package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/device"
	"skiff.dev/skiff/internal/scheduler/filter"
	"skiff.dev/skiff/internal/scheduler/gang"
	"skiff.dev/skiff/internal/scheduler/queue"
)

// notReady is why a pod is held back that waits for its group (KEP-5501); k8s.io/api has no name for it yet.
const notReady = "NotReadyForScheduling"

// groupScheduled is the reason of a group's condition when it is true.
const groupScheduled = "Scheduled"

// groupOf is the group that a pod is in; nil for none, and where groups are not served.
func (l *loop) groupOf(pod types.UID) *gang.Group {
	if l.groups == nil {
		return nil
	}
	return l.groups.Of(pod)
}

func groupKey(p *corev1.Pod) (key types.NamespacedName, in bool) {
	name := api.PodGroupName(p)
	return types.NamespacedName{Namespace: p.Namespace, Name: name}, name != ""
}

// enrol puts a pod that has come into the queue into its group.
func (l *loop) enrol(p *corev1.Pod) {
	if l.groups == nil {
		return
	}
	key, in := groupKey(p)
	if g := l.groups.Of(p.UID); !in || g != nil && g.Waits(p.UID) {
		return
	}
	l.regroup(l.groups.Wait(p.UID, key), p.UID)
}

// seat notes that a pod of a group has a node.
func (l *loop) seat(p *corev1.Pod) {
	if l.groups == nil {
		return
	}
	key, in := groupKey(p)
	if g := l.groups.Of(p.UID); !in || g != nil && !g.Waits(p.UID) {
		return
	}
	l.regroup(l.groups.Place(p.UID, key))
}

// leave takes a pod out of its group.
func (l *loop) leave(pod types.UID) {
	if l.groups == nil {
		return
	}
	if g := l.groups.Remove(pod); g != nil {
		l.regroup(g)
	}
}

// regroup holds a group's waiting pods back or admits them, and gives them their place in the queue: all if what they wait for has changed, or else those that came.
func (l *loop) regroup(g *gang.Group, came ...types.UID) {
	lacks, begun := g.Lacks(), g.Started()
	anew := lacks != g.Held
	if anew || begun != g.Begun {
		came = g.Waiting()
	}
	g.Held, g.Begun = lacks, begun
	var unit *queue.Unit
	if g.Gang() {
		unit = &queue.Unit{First: begun, Priority: g.Object.Spec.Priority}
	}
	for _, uid := range came {
		l.queue.Join(uid, unit)
		if lacks == "" {
			l.queue.Admit(uid)
		} else {
			l.queue.Hold(uid, anew, l.now())
		}
	}
}

func (l *loop) podGroupChanged(old, current *schedulingv1beta1.PodGroup) {
	one := current
	if one == nil {
		one = old
	}
	g := l.groups.Set(types.NamespacedName{Namespace: one.Namespace, Name: one.Name}, current)
	if old != nil && current != nil && old.UID == current.UID && equality.Semantic.DeepEqual(old.Spec, current.Spec) {
		return // a status, which we write
	}
	g.Renew()
	waiting := g.Waiting()
	l.regroup(g, waiting...)
	for _, uid := range waiting {
		l.queue.Stir(uid, l.now())
	}
}

// tellHeld says on pods that have been held back for long what they wait for.
func (l *loop) tellHeld() {
	for e := l.queue.Overdue(l.now()); e != nil; e = l.queue.Overdue(l.now()) {
		p, why := e.Pod.Pod, l.groups.Of(e.Pod.UID).Lacks()
		if e.Verdict == why {
			continue
		}
		e.Verdict = why
		l.report(p, notReady, why, p.Status.NominatedNodeName, func(context.Context) error {
			l.tell(p, corev1.EventTypeWarning, notReady, "%s", why)
			return nil
		})
	}
}

// place is what a pod of a gang is to get, if enough others get one too.
type place struct {
	entry   *queue.Entry
	node    int      // -1: none
	volumes []string // promised
	why     string   // it gets none; "": it was not looked at
	helps   cluster.Change
	soon    bool // its claims are being made, which is so of every such pod for a moment
}

// together tries all pods of a gang that have no node, one after the other, each as if those before it were bound. If with those that have one already enough
// get a node, they are bound and the others wait for a change; if not, all is as it was before.
func (l *loop) together(g *gang.Group, first *queue.Entry) {
	now := l.now()
	if now.Before(g.Due) {
		l.queue.Postpone(first, g.Due)
		return
	}
	places := l.muster(g, first)
	scheduled, remaining := g.Placed(), len(places)
	for i := range places {
		if scheduled+remaining < g.Least() {
			break
		}
		remaining--
		if l.try(&places[i]) {
			scheduled++
		}
	}
	short := ""
	if scheduled < g.Least() {
		short = g.Short(scheduled, remaining)
	}
	l.settleGang(g, places, short)
}

// muster takes a gang's waiting pods out of the queue, in the order in which they are tried.
func (l *loop) muster(g *gang.Group, first *queue.Entry) []place {
	places := []place{{entry: first, node: -1}}
	for _, uid := range g.Waiting() {
		if e := l.queue.Take(uid, l.now()); e != nil {
			places = append(places, place{entry: e, node: -1})
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		p, q := a.entry, b.entry
		return cmp.Or(cmp.Compare(q.Pod.Priority, p.Pod.Priority), p.Since.Compare(q.Since), cmp.Compare(p.Pod.Name, q.Pod.Name))
	})
	return places
}

// try finds a node for one pod of a gang and takes it for placed there.
func (l *loop) try(s *place) bool {
	p := s.entry.Pod
	held := l.release(p)
	p.Volumes, p.Claims, l.need = nil, nil, nil
	if nodes := l.nodes.Count(); nodes > 0 {
		if why, helps := l.needs(p); why != "" {
			l.dropLeftOver(p)
			s.why, s.helps, s.soon = fmt.Sprintf("0/%d nodes are available: %s.", nodes, why), helps, helps == 0 && s.entry.Attempts <= 1
			return false
		}
	}
	if len(l.wanted(p.Pod)) > 0 {
		s.why = "pods of a gang cannot be placed where an extender has a say"
		return false
	}
	c := l.classes.Of(p)
	node, ok := held, held >= 0 && c.Fits(held)
	var claims []device.Claimed
	var against map[string]int
	switch {
	case l.need != nil:
		list, scores, _ := l.candidates(p, c, held, nil)
		best, reasons, err := l.pick(p, list, scores, held)
		if err != nil {
			s.why, s.helps = err.Error(), cluster.Any
			return false
		}
		if ok = best != nil; ok {
			node, claims = best.node, best.claims
		}
		against = reasons
	case !ok:
		node, ok = c.Best()
	}
	if !ok {
		v := c.Verdict().Clone()
		for reason, n := range against {
			v.Reasons[reason] += n
		}
		s.why, s.helps = verdict(v.Nodes, v.Reasons), v.Helps|l.backed(p, v)
		if l.need != nil {
			s.helps |= cluster.Devices
		}
		return false
	}
	p.Claims = claims
	return l.hold(s, node)
}

// hold takes a pod for placed, with all that it gets there, so that the next one finds it so.
func (l *loop) hold(s *place, node int) bool {
	p := s.entry.Pod
	if p.Volumes != nil && len(p.Volumes.Unbound) > 0 {
		list, refusal := filter.Bind(p.Volumes, l.nodes.Node[node])
		if refusal != nil {
			s.why, s.helps = refusal.Reasons[0], cluster.Stored
			return false
		}
		for _, one := range list {
			if one.Volume != nil {
				l.volumes.Promise(one.Volume.Name, one.Claim.Namespace+"/"+one.Claim.Name)
				s.volumes = append(s.volumes, one.Volume.Name)
			}
		}
	}
	l.take(p, node)
	s.node = node
	return true
}

// undo is hold's opposite.
func (l *loop) undo(s *place) {
	p := s.entry.Pod
	l.nodes.Displace(p.UID)
	l.unwritten(p)
	p.Claims = nil
	for _, name := range s.volumes {
		l.volumes.Forget(name)
	}
	s.node, s.volumes = -1, nil
}

// settleGang carries out what came of a try; short says why too few pods got a node, if so.
func (l *loop) settleGang(g *gang.Group, places []place, short string) {
	var given int
	var soon bool
	var helps cluster.Change
	for i := len(places) - 1; i >= 0; i-- {
		s := &places[i]
		helps |= s.helps
		soon = soon || s.soon
		switch {
		case s.node < 0:
		case short != "":
			l.undo(s)
		default:
			given++
		}
	}
	switch {
	case given > 0:
		g.Tries = 0
	case !soon:
		g.Tries++
		g.Due = l.now().Add(l.queue.Pause(g.Tries - 1)) // the first retry is free
	}
	for i := range places {
		s := &places[i]
		if s.node >= 0 {
			l.groups.Place(s.entry.Pod.UID, g.NamespacedName)
			l.commit(s.entry, s.node)
			continue
		}
		s.entry.Class = nil
		why := s.why
		if why == "" {
			why = short
		}
		if soon {
			l.queue.Refuse(s.entry, helps, l.now())
		} else {
			l.refuse(s.entry, why, helps, "", nil)
		}
	}
	l.regroup(g)
	switch {
	case given > 0:
		l.tellGroup(g, metav1.ConditionTrue, groupScheduled, "")
	case short != "" && !soon:
		l.tellGroup(g, metav1.ConditionFalse, schedulingv1beta1.PodGroupReasonUnschedulable, short)
	}
}

// tellGroup writes a group's condition unless it is so already. Once true it stays.
func (l *loop) tellGroup(g *gang.Group, status metav1.ConditionStatus, reason, message string) {
	object := g.Object
	if object == nil || g.Told == reason+": "+message || g.Told == groupScheduled+": " {
		return
	}
	g.Told = reason + ": " + message
	condition := metav1.Condition{Type: schedulingv1beta1.PodGroupInitiallyScheduled, Status: status, Reason: reason, Message: message, ObservedGeneration: object.Generation}
	l.write(object.UID, func(ctx context.Context) {
		if err := l.writeGroup(ctx, object, condition); err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("write whether a pod group is scheduled", "podgroup", object.Namespace+"/"+object.Name, "error", err)
			l.mail.post(func() { g.Told = "" })
		}
	})
}

func (l *loop) writeGroup(ctx context.Context, object *schedulingv1beta1.PodGroup, condition metav1.Condition) error {
	next := object.DeepCopy()
	return crclient.IgnoreNotFound(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if meta.IsStatusConditionTrue(next.Status.Conditions, condition.Type) || !meta.SetStatusCondition(&next.Status.Conditions, condition) {
			return nil
		}
		err := l.cfg.Client.SubResource("status").Update(ctx, next)
		if apierrors.IsConflict(err) {
			if next = (&schedulingv1beta1.PodGroup{}); l.cfg.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(object), next) != nil || next.UID != object.UID {
				return nil // another of the same name, if any
			}
			next = next.DeepCopy()
		}
		return err
	}))
}

// alone says of a basic group, whose pods are tried by themselves, how that went.
func (l *loop) alone(pod types.UID, given bool) {
	g := l.groupOf(pod)
	switch {
	case g == nil || g.Gang():
	case given:
		l.tellGroup(g, metav1.ConditionTrue, groupScheduled, "")
	case g.Placed() == 0:
		l.tellGroup(g, metav1.ConditionFalse, schedulingv1beta1.PodGroupReasonUnschedulable, g.Short(0, 0))
	}
}
