package api

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What controllers report of workloads: numbers that are none of them negative, and some of which are parts of others.

// reported is what the statuses of kinds with replicas have in common.
type reported struct {
	replicas, ready, available int32
	parts, others              []counted[int32] // parts of replicas, beside those that are ready and available
	readyName                  string           // as the message about available replicas calls those that are ready
	observed                   int64
	collisions, before         *int32
}

func validateReported(r reported) field.ErrorList {
	p := field.NewPath("status")
	parts := append(r.parts, counted[int32]{"readyReplicas", &r.ready}, counted[int32]{"availableReplicas", &r.available})
	errs := counts(p, append(r.others, counted[int32]{"replicas", &r.replicas}, counted[int32]{"collisionCount", r.collisions})...)
	errs = append(errs, counts(p, parts...)...)
	errs = append(errs, nonNegative(r.observed, p.Child("observedGeneration"))...)
	for _, part := range parts {
		if *part.value > r.replicas {
			errs = append(errs, field.Invalid(p.Child(part.name), *part.value, "cannot be greater than status.replicas"))
		}
	}
	if r.available > r.ready {
		errs = append(errs, field.Invalid(p.Child("availableReplicas"), r.available, "cannot be greater than "+r.readyName))
	}
	return append(errs, risen(r.collisions, r.before, p.Child("collisionCount"))...)
}

// risen refuses a counter that falls.
func risen(now, before *int32, p *field.Path) field.ErrorList {
	if before == nil || value(now) >= *before {
		return nil
	}
	return field.ErrorList{field.Invalid(p, value(now), "cannot be decremented")}
}

func validateDeploymentStatus(o, old Object) field.ErrorList {
	s, was := &o.(*appsv1.Deployment).Status, &old.(*appsv1.Deployment).Status
	return validateReported(reported{
		replicas: s.Replicas, ready: s.ReadyReplicas, available: s.AvailableReplicas, parts: []counted[int32]{{"updatedReplicas", &s.UpdatedReplicas}},
		others:    []counted[int32]{{"unavailableReplicas", &s.UnavailableReplicas}, {"terminatingReplicas", s.TerminatingReplicas}},
		readyName: "readyReplicas", observed: s.ObservedGeneration, collisions: s.CollisionCount, before: was.CollisionCount,
	})
}

func validateReplicaSetStatus(o, _ Object) field.ErrorList {
	s := &o.(*appsv1.ReplicaSet).Status
	return validateReported(reported{
		replicas: s.Replicas, ready: s.ReadyReplicas, available: s.AvailableReplicas, parts: []counted[int32]{{"fullyLabeledReplicas", &s.FullyLabeledReplicas}},
		others: []counted[int32]{{"terminatingReplicas", s.TerminatingReplicas}}, readyName: "readyReplicas", observed: s.ObservedGeneration,
	})
}

func validateReplicationControllerStatus(o, _ Object) field.ErrorList {
	s := &o.(*corev1.ReplicationController).Status
	return validateReported(reported{
		replicas: s.Replicas, ready: s.ReadyReplicas, available: s.AvailableReplicas, parts: []counted[int32]{{"fullyLabeledReplicas", &s.FullyLabeledReplicas}},
		readyName: "readyReplicas", observed: s.ObservedGeneration,
	})
}

func validateStatefulSetStatus(o, old Object) field.ErrorList {
	s, was := &o.(*appsv1.StatefulSet).Status, &old.(*appsv1.StatefulSet).Status
	return validateReported(reported{
		replicas: s.Replicas, ready: s.ReadyReplicas, available: s.AvailableReplicas,
		parts:     []counted[int32]{{"currentReplicas", &s.CurrentReplicas}, {"updatedReplicas", &s.UpdatedReplicas}},
		readyName: "status.readyReplicas", observed: s.ObservedGeneration, collisions: s.CollisionCount, before: was.CollisionCount,
	})
}

func validateDaemonSetStatus(o, old Object) field.ErrorList {
	s, p := &o.(*appsv1.DaemonSet).Status, field.NewPath("status")
	errs := counts(p,
		counted[int32]{"currentNumberScheduled", &s.CurrentNumberScheduled}, counted[int32]{"numberMisscheduled", &s.NumberMisscheduled},
		counted[int32]{"desiredNumberScheduled", &s.DesiredNumberScheduled}, counted[int32]{"numberReady", &s.NumberReady},
		counted[int32]{"updatedNumberScheduled", &s.UpdatedNumberScheduled}, counted[int32]{"numberAvailable", &s.NumberAvailable},
		counted[int32]{"numberUnavailable", &s.NumberUnavailable}, counted[int32]{"collisionCount", s.CollisionCount})
	errs = append(errs, nonNegative(s.ObservedGeneration, p.Child("observedGeneration"))...)
	return append(errs, risen(s.CollisionCount, old.(*appsv1.DaemonSet).Status.CollisionCount, p.Child("collisionCount"))...)
}
