package deployment

import (
	"cmp"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
)

// observed is all that a decision depends on.
type observed struct {
	deployment *appsv1.Deployment
	sets       []*appsv1.ReplicaSet
	running    map[types.UID]int // pods that are not terminal, by ReplicaSet; for Recreate
	now        time.Time
}

// plan is what one pass changes, in this order.
type plan struct {
	create   *appsv1.ReplicaSet
	changes  []*set
	remove   []*appsv1.ReplicaSet
	revision string // the Deployment's revision annotation
	status   appsv1.DeploymentStatus
	after    time.Duration // when to look again though nothing happened
}

// set is a ReplicaSet as observed, beside what the pass wants of it.
type set struct {
	*appsv1.ReplicaSet
	replicas    int32
	minReady    int32
	annotations map[string]string // a copy of its own once it differs
}

func (s *set) changed() bool {
	return s.replicas != count(s.Spec.Replicas) || s.minReady != s.Spec.MinReadySeconds || !maps.Equal(s.annotations, s.Annotations)
}

func (s *set) annotate(key, value string) {
	if old, ok := s.annotations[key]; ok && old == value {
		return
	}
	s.annotations = maps.Clone(s.annotations)
	if s.annotations == nil {
		s.annotations = map[string]string{}
	}
	s.annotations[key] = value
}

// rollout is a pass at work.
type rollout struct {
	observed
	d       *appsv1.Deployment
	current *set   // has the Deployment's template; nil if there is none yet
	old     []*set // all others, oldest first
	created bool   // current does not exist yet
	status  appsv1.DeploymentStatus
	plan    plan
}

// decide is one pass over a Deployment.
func decide(o observed) plan {
	r := newRollout(o)
	d := r.d
	if d.DeletionTimestamp != nil {
		return r.finish(false)
	}
	r.notePause()
	switch {
	case d.Spec.Paused:
		r.adoptRevision()
		r.scale()
		r.cleanUp()
		return r.finish(false)
	case r.resized():
		r.adoptRevision()
		r.scale()
		return r.finish(false)
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		r.recreate()
	default:
		r.ensureCurrent()
		r.growCurrent()
		r.shrinkOld()
	}
	r.plan.status = r.counts()
	if complete(d, &r.plan.status) {
		r.cleanUp()
	}
	return r.finish(true)
}

func newRollout(o observed) *rollout {
	r := &rollout{observed: o, d: o.deployment, status: *o.deployment.Status.DeepCopy()}
	sorted := slices.SortedFunc(slices.Values(o.sets), func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, rs := range sorted {
		s := &set{ReplicaSet: rs, replicas: count(rs.Spec.Replicas), minReady: rs.Spec.MinReadySeconds, annotations: rs.Annotations}
		if r.current == nil && sameTemplate(&rs.Spec.Template, &r.d.Spec.Template) {
			r.current = s
			continue
		}
		r.old = append(r.old, s)
	}
	return r
}

// recreate lets every old pod go before the first new one is made.
func (r *rollout) recreate() {
	r.adoptRevision()
	shrunk := false
	for _, s := range r.old {
		if s.replicas > 0 {
			r.resize(s, 0)
			shrunk = true
		}
	}
	if shrunk || r.oldPodsRun() {
		return
	}
	r.ensureCurrent()
	r.resize(r.current, r.wanted())
}

func (r *rollout) oldPodsRun() bool {
	for _, s := range r.old {
		if s.Status.Replicas > 0 || r.running[s.UID] > 0 {
			return true
		}
	}
	return false
}

// finish collects what the pass wants. rollingOut says that progress is to be judged.
func (r *rollout) finish(rollingOut bool) plan {
	if r.created {
		rs := r.current.ReplicaSet
		rs.Spec.Replicas, rs.Annotations = &r.current.replicas, r.current.annotations
		r.plan.create = rs
	}
	for _, s := range r.all() {
		if s.changed() && !(r.created && s == r.current) {
			r.plan.changes = append(r.plan.changes, s)
		}
	}
	r.plan.status = r.counts()
	if rollingOut {
		r.judgeProgress()
	}
	return r.plan
}

// all lists the new ReplicaSet, if any, and the old ones after it.
func (r *rollout) all() []*set {
	if r.current == nil {
		return r.old
	}
	return append([]*set{r.current}, r.old...)
}

func (r *rollout) wanted() int32 { return count(r.d.Spec.Replicas) }

// resize sets a ReplicaSet's size, and beside it the size the Deployment had when that was decided, from which proportions are computed.
func (r *rollout) resize(s *set, replicas int32) {
	s.replicas = replicas
	s.annotate(desiredAnnotation, decimal(r.wanted()))
	s.annotate(maxAnnotation, decimal(r.wanted()+maxSurge(r.d)))
}

// cleanUp removes old, empty ReplicaSets beyond the history limit, the lowest revision first.
func (r *rollout) cleanUp() {
	limit := r.d.Spec.RevisionHistoryLimit
	if limit == nil {
		return
	}
	var alive []*set
	for _, s := range r.old {
		if s.DeletionTimestamp == nil {
			alive = append(alive, s)
		}
	}
	slices.SortStableFunc(alive, func(a, b *set) int { return cmp.Compare(revisionOf(a.annotations), revisionOf(b.annotations)) })
	for _, s := range alive[:max(0, len(alive)-int(*limit))] {
		if s.Status.Replicas == 0 && s.replicas == 0 && s.Generation <= s.Status.ObservedGeneration {
			r.plan.remove = append(r.plan.remove, s.ReplicaSet)
		}
	}
}

func count(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
