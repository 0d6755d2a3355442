package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The reasons of upstream's conditions, which kubectl rollout status reads.
const (
	reasonAvailable    = "MinimumReplicasAvailable"
	reasonUnavailable  = "MinimumReplicasUnavailable"
	reasonFound        = "FoundNewReplicaSet"
	reasonCreated      = "NewReplicaSetCreated"
	reasonUpdated      = "ReplicaSetUpdated"
	reasonComplete     = "NewReplicaSetAvailable"
	reasonTimedOut     = "ProgressDeadlineExceeded"
	reasonCreateFailed = "ReplicaSetCreateError"
	reasonPaused       = "DeploymentPaused"
	reasonResumed      = "DeploymentResumed"
)

// counts is the status by the ReplicaSets' statuses.
func (r *rollout) counts() appsv1.DeploymentStatus {
	status := appsv1.DeploymentStatus{
		ObservedGeneration: r.d.Generation, CollisionCount: r.d.Status.CollisionCount,
		Conditions: slices.Clone(r.status.Conditions), TerminatingReplicas: new(int32),
	}
	for _, s := range r.all() {
		status.Replicas += s.Status.Replicas
		status.ReadyReplicas += s.Status.ReadyReplicas
		status.AvailableReplicas += s.Status.AvailableReplicas
		if s.Status.TerminatingReplicas != nil {
			*status.TerminatingReplicas += *s.Status.TerminatingReplicas
		}
	}
	if r.current != nil {
		status.UpdatedReplicas = r.current.Status.Replicas
	}
	status.UnavailableReplicas = max(0, status.Replicas-status.AvailableReplicas)
	if status.AvailableReplicas >= r.wanted()-maxUnavailable(r.d) {
		setCondition(&status, condition(appsv1.DeploymentAvailable, corev1.ConditionTrue, reasonAvailable, "Deployment has minimum availability.", r.now))
	} else {
		setCondition(&status, condition(appsv1.DeploymentAvailable, corev1.ConditionFalse, reasonUnavailable,
			"Deployment does not have minimum availability.", r.now))
	}
	return status
}

// notePause starts or stops the progress deadline with the pause.
func (r *rollout) notePause() {
	if !hasDeadline(r.d) {
		return
	}
	c := findCondition(&r.status, appsv1.DeploymentProgressing)
	if c != nil && c.Reason == reasonTimedOut {
		return
	}
	paused := c != nil && c.Reason == reasonPaused
	switch {
	case r.d.Spec.Paused && !paused:
		setCondition(&r.status, condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused", r.now))
	case !r.d.Spec.Paused && paused:
		setCondition(&r.status, condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed", r.now))
	}
}

// judgeProgress sets the conditions Progressing and ReplicaFailure of plan.status, and when to judge again.
func (r *rollout) judgeProgress() {
	status := &r.plan.status
	if !hasDeadline(r.d) {
		dropCondition(status, appsv1.DeploymentProgressing)
	}
	current := findCondition(status, appsv1.DeploymentProgressing)
	settled := status.Replicas == status.UpdatedReplicas && current != nil && current.Reason == reasonComplete
	if hasDeadline(r.d) && !settled {
		switch {
		case complete(r.d, status):
			setCondition(status, condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonComplete, r.says("has successfully progressed."), r.now))
		case progressed(&r.d.Status, status):
			c := condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, r.says("is progressing."), r.now)
			if current != nil && current.Status == corev1.ConditionTrue {
				c.LastTransitionTime = current.LastTransitionTime
			}
			dropCondition(status, appsv1.DeploymentProgressing) // its update time counts, so it is replaced even when alike
			setCondition(status, c)
		case timedOut(r.d, status, r.now):
			setCondition(status, condition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTimedOut, r.says("has timed out progressing."), r.now))
		}
	}
	r.reportFailure()
	r.plan.after = r.deadline()
}

func (r *rollout) says(what string) string {
	if r.current != nil {
		return fmt.Sprintf("ReplicaSet %q %s", r.current.Name, what)
	}
	return fmt.Sprintf("Deployment %q %s", r.d.Name, what)
}

// reportFailure repeats a ReplicaSet's failure, the new one's first.
func (r *rollout) reportFailure() {
	for _, s := range r.all() {
		for _, c := range s.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				setCondition(&r.plan.status, appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastTransitionTime: c.LastTransitionTime, LastUpdateTime: c.LastTransitionTime,
				})
				return
			}
		}
	}
	dropCondition(&r.plan.status, appsv1.DeploymentReplicaFailure)
}

// deadline is when progress will have taken too long, zero if that does not matter now.
func (r *rollout) deadline() time.Duration {
	c := findCondition(&r.plan.status, appsv1.DeploymentProgressing)
	if !hasDeadline(r.d) || c == nil || c.Reason == reasonTimedOut || complete(r.d, &r.plan.status) {
		return 0
	}
	return max(time.Second, c.LastUpdateTime.Add(limit(r.d)).Sub(r.now)+time.Second)
}

func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

func limit(d *appsv1.Deployment) time.Duration {
	return time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second
}

// complete says that all wanted pods are of the new template and available, and nothing else is left.
func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	n := count(d.Spec.Replicas)
	return s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n && s.ObservedGeneration >= d.Generation
}

func progressed(before, after *appsv1.DeploymentStatus) bool {
	return after.UpdatedReplicas > before.UpdatedReplicas || after.Replicas-after.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		after.ReadyReplicas > before.ReadyReplicas || after.AvailableReplicas > before.AvailableReplicas
}

func timedOut(d *appsv1.Deployment, s *appsv1.DeploymentStatus, now time.Time) bool {
	c := findCondition(s, appsv1.DeploymentProgressing)
	switch {
	case c == nil || c.Reason == reasonComplete:
		return false
	case c.Reason == reasonTimedOut:
		return true
	}
	return c.LastUpdateTime.Add(limit(d)).Before(now)
}

func condition(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) appsv1.DeploymentCondition {
	at := metav1.NewTime(now)
	return appsv1.DeploymentCondition{Type: kind, Status: status, Reason: reason, Message: message, LastUpdateTime: at, LastTransitionTime: at}
}

func findCondition(s *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return &s.Conditions[i]
		}
	}
	return nil
}

// setCondition replaces a condition unless it already says the same.
func setCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	if old := findCondition(s, c.Type); old != nil {
		if old.Status == c.Status && old.Reason == c.Reason {
			return
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	dropCondition(s, c.Type)
	s.Conditions = append(s.Conditions, c)
}

func dropCondition(s *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(slices.Clone(s.Conditions), func(c appsv1.DeploymentCondition) bool { return c.Type == kind })
}
