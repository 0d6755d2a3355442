package deployment

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// bounds are how many pods a rollout may have too many and too few. Surge rounds up, unavailability down; both zero would never move, so
// one pod may then be missing.
func bounds(d *appsv1.Deployment) (surge, unavailable int32) {
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || d.Spec.Strategy.RollingUpdate == nil {
		return 0, 0
	}
	limits, replicas := d.Spec.Strategy.RollingUpdate, count(d.Spec.Replicas)
	zero := intstr.FromInt32(0)
	s, errSurge := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(limits.MaxSurge, zero), int(replicas), true)
	u, errUnavailable := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(limits.MaxUnavailable, zero), int(replicas), false)
	if errSurge != nil || errUnavailable != nil {
		return 0, 1 // validation keeps such values out; what slips through must still move
	}
	if s == 0 && u == 0 {
		u = 1
	}
	return int32(s), int32(u)
}

func maxSurge(d *appsv1.Deployment) int32 {
	surge, _ := bounds(d)
	return surge
}

func maxUnavailable(d *appsv1.Deployment) int32 {
	if count(d.Spec.Replicas) == 0 {
		return 0
	}
	_, unavailable := bounds(d)
	return min(unavailable, count(d.Spec.Replicas))
}

// sizeOfNew is how large the new ReplicaSet may be at once.
func (r *rollout) sizeOfNew() int32 {
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return r.wanted()
	}
	total := planned(r.all())
	limit := r.wanted() + maxSurge(r.d)
	if total >= limit {
		return r.current.replicas
	}
	return r.current.replicas + min(limit-total, r.wanted()-r.current.replicas)
}

// growCurrent moves the new ReplicaSet towards the wanted size, as far as the surge allows.
func (r *rollout) growCurrent() {
	switch {
	case r.current.replicas > r.wanted():
		r.resize(r.current, r.wanted())
	case r.current.replicas < r.wanted():
		if n := r.sizeOfNew(); n != r.current.replicas {
			r.resize(r.current, n)
		}
	}
}

// shrinkOld takes pods from the old ReplicaSets: first those that don't serve anyway, then as many others as availability allows.
// New pods that are not available yet are counted as lost, so that a broken template stops the rollout instead of the service.
func (r *rollout) shrinkOld() {
	if planned(r.old) == 0 {
		return
	}
	least := r.wanted() - maxUnavailable(r.d)
	unavailable := r.current.replicas - r.current.Status.AvailableReplicas
	spare := planned(r.all()) - least - unavailable
	if spare <= 0 {
		return
	}
	for _, s := range r.old {
		idle := min(spare, s.replicas-s.Status.AvailableReplicas)
		if s.replicas > 0 && idle > 0 {
			r.resize(s, s.replicas-idle)
			spare -= idle
		}
	}
	available := -least
	for _, s := range r.all() {
		available += s.Status.AvailableReplicas
	}
	for _, s := range r.old {
		if n := min(available, s.replicas); n > 0 {
			r.resize(s, s.replicas-n)
			available -= n
		}
	}
}

func planned(sets []*set) int32 {
	n := int32(0)
	for _, s := range sets {
		n += s.replicas
	}
	return n
}
