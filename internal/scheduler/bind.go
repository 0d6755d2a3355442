package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/device"
)

// bind writes a choice, on a binder's goroutine: first which devices the pod's claims get, which may have to get ready before the rest.
func (l *loop) bind(ctx context.Context, p *cluster.Pod, object *corev1.Pod, node string, attempts int) {
	claims := slices.Clone(p.Claims)
	if len(claims) == 0 && object.Status.ExtendedResourceClaimStatus == nil {
		l.bindTo(ctx, p, object, node, attempts)
		return
	}
	how, given, err := l.reserve(ctx, object, claims)
	l.mail.post(func() {
		p.Claims = claims // those that were made are among them now
		l.devices.Kept(object.UID, claims, how)
	})
	since, waits := device.Awaits(given, l.now())
	switch {
	case err != nil:
		l.rejected(ctx, p, object, node, attempts, fmt.Errorf("running PreBind plugin %q: %w", "DynamicResources", err))
	case waits:
		l.mail.post(func() { l.await(&binding{pod: p, object: object, node: node, attempts: attempts}, since) })
	default:
		l.bindTo(ctx, p, object, node, attempts)
	}
}

// bindTo binds a pod to its node.
func (l *loop) bindTo(ctx context.Context, p *cluster.Pod, object *corev1.Pod, node string, attempts int) {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: object.Namespace, Name: object.Name, UID: object.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: object.Namespace, Name: object.Name, UID: object.UID}}
	bound, err := l.bindOutside(ctx, object, node)
	if !bound {
		if err = l.cfg.Client.SubResource("binding").Create(ctx, target, binding); err != nil {
			err = fmt.Errorf("running Bind plugin %q: %w", "DefaultBinder", err)
		}
	}
	if err != nil {
		l.rejected(ctx, p, object, node, attempts, err)
		return
	}
	l.tell(object, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %v/%v to %v", object.Namespace, object.Name, node)
}

// bindOutside has the extender bind a pod that binds such ones; false: there is none, or it may be done without and does not answer.
func (l *loop) bindOutside(ctx context.Context, p *corev1.Pod, node string) (bound bool, err error) {
	for _, e := range l.extenders {
		if e.BindVerb == "" || !e.Wants(p) {
			continue
		}
		err := e.Bind(ctx, p, node)
		if err != nil && e.Ignorable {
			l.cfg.Log.Warn("an extender does not bind and is ignored", "pod", p.Namespace+"/"+p.Name, "error", err)
			continue
		}
		return true, err
	}
	return false, nil
}

// rejected gives up what could not be written, and tries the pod again unless it is gone.
func (l *loop) rejected(ctx context.Context, p *cluster.Pod, object *corev1.Pod, node string, attempts int, err error) {
	switch {
	case ctx.Err() != nil:
	case apierrors.IsNotFound(err):
		l.mail.post(func() { l.unassume(p, attempts, false) })
	default:
		level := slog.LevelWarn
		if apierrors.IsConflict(err) { // deleted or bound by somebody else meanwhile, as its next event will tell
			level = slog.LevelDebug
		}
		l.cfg.Log.Log(ctx, level, "bind pod", "pod", object.Namespace+"/"+object.Name, "node", node, "error", err)
		l.mail.post(func() { l.unbound(p, object, attempts, err.Error()) })
	}
}

// unbound sends a pod back to the queue that was to be bound and cannot be, and tells the world why.
func (l *loop) unbound(p *cluster.Pod, object *corev1.Pod, attempts int, why string) {
	if !l.assumed[p.UID] {
		return // seen placed, or gone, meanwhile
	}
	p.Expected = false // which the report takes back
	l.unassume(p, attempts, true)
	if e := l.queue.Get(p.UID); e != nil {
		e.Verdict = why
	}
	l.report(object, corev1.PodReasonSchedulerError, why, "", func(context.Context) error {
		l.tell(object, corev1.EventTypeWarning, "FailedScheduling", "%s", why)
		return nil
	})
}

// report writes the condition PodScheduled=False and the nominated node unless the pod has them already, then calls after. What could not be
// written is found out and written anew soon.
func (l *loop) report(p *corev1.Pod, reason, message, nominated string, after func(ctx context.Context) error) {
	told := p.Status.NominatedNodeName == nominated && !l.turns.busy(p.UID)
	if told {
		told = false
		for i := range p.Status.Conditions {
			c := &p.Status.Conditions[i]
			told = told || c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == reason && c.Message == message
		}
	}
	now := l.now()
	if told && after == nil {
		return
	}
	l.write(p.UID, func(ctx context.Context) {
		var err error
		if !told {
			err = l.writeStatus(ctx, p, "write why a pod is not scheduled", func(p *corev1.Pod) {
				if p.Spec.NodeName != "" {
					return // bound after all: by somebody else, or the answer to our binding was lost
				}
				p.Status.NominatedNodeName = nominated
				setCondition(&p.Status, corev1.PodCondition{
					Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: p.Generation,
				}, now)
			})
		}
		if after != nil {
			err = errors.Join(err, after(ctx))
		}
		if err != nil {
			l.mail.post(func() { l.queue.Again(p.UID, l.now()) })
		}
	})
}

// writeNomination writes only where a pod is expected to go.
func (l *loop) writeNomination(ctx context.Context, p *corev1.Pod, node string) {
	_ = l.writeStatus(ctx, p, "write a pod's nominated node", func(p *corev1.Pod) { p.Status.NominatedNodeName = node })
}

// evict deletes a pod that gives way, with its own grace, and says why on it and in an event. One that is gone already is no error.
func (l *loop) evict(ctx context.Context, victim, preemptor *corev1.Pod, node string) error {
	if err := l.writeStatus(ctx, victim, "say on a pod that it is preempted", func(p *corev1.Pod) {
		setCondition(&p.Status, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message: preemptor.Spec.SchedulerName + ": preempting to accommodate a higher priority pod", ObservedGeneration: victim.Generation,
		}, l.now())
	}); err != nil {
		return err
	}
	err := l.cfg.Client.Delete(ctx, victim.DeepCopy(), crclient.Preconditions{UID: &victim.UID})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		if ctx.Err() == nil {
			l.cfg.Log.Warn("delete a pod that gives way", "pod", victim.Namespace+"/"+victim.Name, "error", err)
		}
		return err
	}
	l.events[preemptor.Spec.SchedulerName].Eventf(victim, corev1.EventTypeNormal, "Preempted", "Preempted by pod %v on node %v", preemptor.UID, node)
	return nil
}

// writeStatus writes a change of a pod's status: to the pod as it is known, and if somebody else has written it meanwhile, as it is now. A pod that is gone
// needs none. An update costs a third of a patch, which has the object encoded, merged and decoded.
func (l *loop) writeStatus(ctx context.Context, p *corev1.Pod, what string, change func(p *corev1.Pod)) error {
	next := p.DeepCopy()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		change(next)
		err := l.cfg.Client.SubResource("status").Update(ctx, next)
		if apierrors.IsConflict(err) {
			if next = (&corev1.Pod{}); l.cfg.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(p), next) != nil || next.UID != p.UID {
				return nil // another of the same name, if any
			}
			next = next.DeepCopy()
		}
		return err
	})
	if err = crclient.IgnoreNotFound(err); err != nil && ctx.Err() == nil {
		l.cfg.Log.Warn(what, "pod", p.Namespace+"/"+p.Name, "error", err)
	}
	return err
}

func setCondition(status *corev1.PodStatus, c corev1.PodCondition, now time.Time) {
	c.LastTransitionTime = metav1.NewTime(now)
	for i := range status.Conditions {
		if old := &status.Conditions[i]; old.Type == c.Type {
			if old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			*old = c
			return
		}
	}
	status.Conditions = append(status.Conditions, c)
}
