// Package podstate answers the questions several controllers ask about a pod, as upstream answers them. Pure functions of one object.
package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Terminal pods will never run again.
func Terminal(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Active pods count towards a replica count: neither terminal nor being deleted.
func Active(p *corev1.Pod) bool { return !Terminal(p) && p.DeletionTimestamp == nil }

// Condition finds a condition, nil if there is none.
func Condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Ready says whether the pod may serve.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Available says whether the pod has been ready for minReady, and if it is merely too early, in how long it will be.
func Available(p *corev1.Pod, minReady time.Duration, now time.Time) (available bool, after time.Duration) {
	c := Condition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false, 0
	}
	if minReady == 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, 0
	}
	if left := c.LastTransitionTime.Add(minReady).Sub(now); left > 0 {
		return false, left
	}
	return true, 0
}

// Set replaces the condition of c's type and says whether that changed anything. The transition time moves only with the status.
func Set(status *corev1.PodStatus, c corev1.PodCondition) bool {
	for i := range status.Conditions {
		old := &status.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		same := old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message && old.ObservedGeneration == c.ObservedGeneration
		*old = c
		return !same
	}
	status.Conditions = append(status.Conditions, c)
	return true
}
