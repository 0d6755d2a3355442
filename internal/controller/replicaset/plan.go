package replicaset

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/controller/podstate"
)

func activePods(pods []*corev1.Pod) []*corev1.Pod {
	active := make([]*corev1.Pod, 0, len(pods))
	for _, p := range pods {
		if podstate.Active(p) {
			active = append(active, p)
		}
	}
	return active
}

// statusOf counts the pods. manageErr is what went wrong with creating or deleting; after is when a ready pod becomes available.
func statusOf(rs *appsv1.ReplicaSet, pods []*corev1.Pod, manageErr error, now time.Time) (status appsv1.ReplicaSetStatus, after time.Duration) {
	status = appsv1.ReplicaSetStatus{ObservedGeneration: rs.Generation, TerminatingReplicas: new(int32)}
	template := labels.Set(rs.Spec.Template.Labels).AsSelectorPreValidated()
	minReady := time.Duration(rs.Spec.MinReadySeconds) * time.Second
	active := int32(0)
	for _, p := range pods {
		if !podstate.Active(p) {
			if !podstate.Terminal(p) {
				*status.TerminatingReplicas++
			}
			continue
		}
		active++
		if template.Matches(labels.Set(p.Labels)) {
			status.FullyLabeledReplicas++
		}
		if !podstate.Ready(p) {
			continue
		}
		status.ReadyReplicas++
		available, left := podstate.Available(p, minReady, now)
		if available {
			status.AvailableReplicas++
		} else if left > 0 && (after == 0 || left < after) {
			after = left
		}
	}
	status.Replicas = active
	status.Conditions = conditions(rs, active, manageErr, now)
	return status, after
}

// conditions keeps a ReplicaFailure as long as managing fails and nothing newer is known, and drops it once managing works.
func conditions(rs *appsv1.ReplicaSet, active int32, manageErr error, now time.Time) []appsv1.ReplicaSetCondition {
	var kept []appsv1.ReplicaSetCondition
	failed := false
	for _, c := range rs.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure {
			if manageErr == nil {
				continue
			}
			failed = true
		}
		kept = append(kept, c)
	}
	if manageErr == nil || failed {
		return kept
	}
	reason := "FailedCreate"
	if active > value(rs.Spec.Replicas) {
		reason = "FailedDelete"
	}
	return append(kept, appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
		Reason: reason, Message: manageErr.Error(),
	})
}
