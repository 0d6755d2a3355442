package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
)

// resized says that the Deployment was scaled since its ReplicaSets were last sized.
func (r *rollout) resized() bool {
	for _, s := range r.all() {
		desired, known := number(s.annotations, desiredAnnotation)
		if s.replicas > 0 && known && desired != r.wanted() {
			return true
		}
	}
	return false
}

// scale spreads a new size over the ReplicaSets without rolling anything out: to the only one there is, or in the middle of a rollout to
// each in proportion, so that the risk of the new template is spread as it was before.
func (r *rollout) scale() {
	if s, only := r.only(); only {
		if s != nil {
			r.resize(s, r.wanted())
		}
		return
	}
	active := r.active()
	if r.saturated() {
		for _, s := range active {
			if s != r.current {
				r.resize(s, 0)
			}
		}
		return
	}
	if r.d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		r.proportion(active)
	}
}

func (r *rollout) active() []*set {
	var active []*set
	for _, s := range r.old {
		if s.replicas > 0 {
			active = append(active, s)
		}
	}
	if r.current != nil && r.current.replicas > 0 {
		active = append(active, r.current)
	}
	return active
}

// only returns the one ReplicaSet that has pods, or the newest if none has; false if several have.
func (r *rollout) only() (*set, bool) {
	active := r.active()
	switch {
	case len(active) > 1:
		return nil, false
	case len(active) == 1:
		return active[0], true
	case r.current != nil:
		return r.current, true
	case len(r.old) > 0:
		return r.old[len(r.old)-1], true
	}
	return nil, true
}

// saturated says that the new ReplicaSet already has every wanted pod, available.
func (r *rollout) saturated() bool {
	if r.current == nil {
		return false
	}
	desired, known := number(r.current.annotations, desiredAnnotation)
	return known && desired == r.wanted() && r.current.replicas == r.wanted() && r.current.Status.AvailableReplicas == r.wanted()
}

// proportion gives each ReplicaSet its share; the largest takes what rounding leaves over.
func (r *rollout) proportion(active []*set) {
	allowed := int32(0)
	if r.wanted() > 0 {
		allowed = r.wanted() + maxSurge(r.d)
	}
	add := allowed - planned(active)
	slices.SortStableFunc(active, func(a, b *set) int {
		newest := b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
		if add < 0 {
			newest = -newest
		}
		return cmp.Or(cmp.Compare(b.replicas, a.replicas), newest, cmp.Compare(a.Name, b.Name))
	})
	sizes, added := make([]int32, len(active)), int32(0)
	for i, s := range active {
		share := int32(0)
		if add != 0 && add != added {
			share = r.share(s)
			if add > 0 {
				share = min(share, add-added)
			} else {
				share = max(share, add-added)
			}
		}
		sizes[i] = s.replicas + share
		added += share
	}
	for i, s := range active {
		if i == 0 {
			sizes[0] = max(0, sizes[0]+add-added)
		}
		r.resize(s, sizes[i])
	}
}

// share is by how much a ReplicaSet should grow (or shrink, below zero) to keep its part of the whole.
func (r *rollout) share(s *set) int32 {
	if r.wanted() == 0 {
		return -s.replicas
	}
	before, known := number(s.annotations, maxAnnotation)
	if !known || before == 0 {
		before = r.d.Status.Replicas
	}
	if before == 0 {
		return 0
	}
	size := float64(s.replicas) * float64(r.wanted()+maxSurge(r.d)) / float64(before)
	return int32(math.Round(size)) - s.replicas
}

func number(annotations map[string]string, key string) (int32, bool) {
	n, err := strconv.ParseInt(annotations[key], 10, 32)
	return int32(n), err == nil
}
