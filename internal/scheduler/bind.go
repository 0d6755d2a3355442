package scheduler

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// bind writes a choice, on a binder's goroutine.
func (l *loop) bind(ctx context.Context, p *cluster.Pod, node string, attempts int) {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID}}
	err := l.cfg.Client.SubResource("binding").Create(ctx, target, binding)
	switch {
	case err == nil:
		l.events.Eventf(p.Pod, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %v/%v to %v", p.Namespace, p.Name, node)
	case ctx.Err() != nil:
	case apierrors.IsNotFound(err):
		l.mail.post(func() { l.unassume(p, attempts, false) })
	default:
		level := slog.LevelWarn
		if apierrors.IsConflict(err) { // deleted or bound by somebody else meanwhile, as its next event will tell
			level = slog.LevelDebug
		}
		l.cfg.Log.Log(ctx, level, "bind pod", "pod", p.Namespace+"/"+p.Name, "node", node, "error", err)
		l.events.Eventf(p.Pod, corev1.EventTypeWarning, "FailedScheduling", "binding rejected: %v", err)
		l.mail.post(func() { l.unassume(p, attempts, true) })
	}
}

// report writes the condition PodScheduled=False unless the pod has it already, then calls after.
func (l *loop) report(p *corev1.Pod, reason, message string, after func()) {
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == reason && c.Message == message {
			return
		}
	}
	l.writes <- func(ctx context.Context) {
		changed := p.DeepCopy()
		setScheduled(&changed.Status, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: p.Generation,
		}, l.now())
		err := l.cfg.Client.SubResource("status").Patch(ctx, changed, crclient.StrategicMergeFrom(p))
		if crclient.IgnoreNotFound(err) != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("write why a pod is not scheduled", "pod", p.Namespace+"/"+p.Name, "error", err)
		}
		if after != nil {
			after()
		}
	}
}

func setScheduled(status *corev1.PodStatus, c corev1.PodCondition, now time.Time) {
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
