package statefulset

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skiff.dev/skiff/internal/controller/history"
	"skiff.dev/skiff/internal/controller/podstate"
)

// observed is all that a decision depends on.
type observed struct {
	set             *appsv1.StatefulSet
	pods            []*corev1.Pod              // the set's, in no order
	current, update *appsv1.ControllerRevision // what the rollout started from, and what the template is now
	collisions      int32                      // of the revisions' names
	claims          map[string]*corev1.PersistentVolumeClaim
	now             time.Time
}

// plan is what one pass changes, in this order. Under OrderedReady it makes or removes one pod at most.
type plan struct {
	recreate  []*corev1.Pod // ended: to be removed, so that a later pass makes them anew
	complete  []*corev1.Pod // pending, and perhaps lacking claims
	create    []*corev1.Pod
	relabel   []*corev1.Pod                   // changed copies
	claims    []*corev1.PersistentVolumeClaim // changed copies: the retention policy is in their owner references
	remove    []*corev1.Pod
	conflicts []string // claims that another controller has
	status    appsv1.StatefulSetStatus
	after     time.Duration // when to look again though nothing happened
}

// pass is a decision in the making.
type pass struct {
	observed
	ordered   bool
	replicas  []*corev1.Pod // by ordinal, from the first; those still to be made are but names
	condemned []*corev1.Pod // beyond the wanted ordinals, highest first
	unhealthy *corev1.Pod   // the first that is not available, condemned ones after all others
	plan      plan
}

// decide is one pass over a StatefulSet.
func decide(o observed) (plan, error) {
	p := newPass(o)
	p.count()
	if o.set.DeletionTimestamp != nil {
		return p.plan, nil
	}
	if err := p.act(); err != nil {
		return plan{}, err
	}
	return p.plan, p.fill()
}

// act goes through scaling up, scaling down and updating; under OrderedReady it ends where something must be waited for.
func (p *pass) act() error {
	for _, pod := range p.replicas {
		if p.keep(pod) && p.ordered {
			return nil
		}
	}
	for _, pod := range p.condemned {
		p.retain(pod, true)
	}
	for _, pod := range p.condemned {
		if p.condemn(pod) && p.ordered {
			return nil
		}
	}
	return p.roll()
}

func newPass(o observed) *pass {
	p := &pass{observed: o, ordered: o.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement, replicas: make([]*corev1.Pod, replicas(o.set))}
	first := start(o.set)
	for _, pod := range o.pods {
		ordinal := ordinalOf(o.set, pod)
		switch {
		case ordinal < 0:
		case ordinal >= first && ordinal < first+len(p.replicas):
			p.replicas[ordinal-first] = pod
		default:
			p.condemned = append(p.condemned, pod)
		}
	}
	slices.SortFunc(p.condemned, func(a, b *corev1.Pod) int { return cmp.Compare(ordinalOf(o.set, b), ordinalOf(o.set, a)) })
	for i := range p.replicas {
		if p.replicas[i] == nil {
			p.replicas[i] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: o.set.Namespace, Name: podName(o.set, first+i)}}
		}
	}
	for _, pod := range p.replicas {
		p.note(pod)
	}
	for _, pod := range slices.Backward(p.condemned) {
		p.note(pod)
	}
	return p
}

// fill makes whole pods of those that are to be created, which are but names until then.
func (p *pass) fill() error {
	templates := map[string]*corev1.PodTemplateSpec{}
	for i, pod := range p.plan.create {
		ordinal := ordinalOf(p.set, pod)
		revision := p.revisionFor(ordinal)
		if templates[revision.Name] == nil {
			template, err := history.Template(revision)
			if err != nil {
				return err
			}
			templates[revision.Name] = template
		}
		p.plan.create[i] = newPod(p.set, templates[revision.Name].DeepCopy(), revision.Name, ordinal)
	}
	return nil
}

func (p *pass) note(pod *corev1.Pod) {
	if p.unhealthy == nil && p.unavailable(pod) {
		p.unhealthy = pod
	}
}

// revisionFor is what a pod that is to be made now is made of: below the partition the old template lives on.
func (p *pass) revisionFor(ordinal int) *appsv1.ControllerRevision {
	if rolling(p.set) && ordinal < start(p.set)+partition(p.set) {
		return p.current
	}
	return p.update
}

// keep brings one wanted pod closer to what it should be. It says whether those after it must wait.
func (p *pass) keep(pod *corev1.Pod) (wait bool) {
	switch {
	case !created(pod):
		if p.stale(pod) {
			return true
		}
		p.plan.create = append(p.plan.create, pod)
		return true
	case podstate.Terminal(pod):
		if pod.DeletionTimestamp == nil {
			p.plan.recreate = append(p.plan.recreate, pod)
		}
		return true
	}
	if pod.Status.Phase == corev1.PodPending {
		p.plan.complete = append(p.plan.complete, pod)
	}
	if p.unavailable(pod) && p.ordered {
		return true
	}
	if changed := relabelled(p.set, pod); changed != nil {
		p.plan.relabel = append(p.plan.relabel, changed)
	}
	p.retain(pod, false)
	return false
}

// condemn removes one pod that is too many. Under OrderedReady it goes only if nothing before it is broken but itself.
func (p *pass) condemn(pod *corev1.Pod) (wait bool) {
	if pod.DeletionTimestamp != nil {
		return true
	}
	if p.ordered && p.unavailable(pod) && pod != p.unhealthy {
		return true
	}
	p.plan.remove = append(p.plan.remove, pod)
	return true
}

// roll removes pods of other templates, from the top down to the partition, as many as may be unavailable at once. Under Parallel an old pod
// that is broken already costs nothing to replace: a rollout heals what the one before it broke.
func (p *pass) roll() error {
	if !rolling(p.set) {
		return nil
	}
	budget, err := maxUnavailable(p.set)
	if err != nil {
		return err
	}
	for _, pod := range p.replicas {
		if p.unavailable(pod) && (p.ordered || !p.outdated(pod)) {
			budget--
		}
	}
	for i := len(p.replicas) - 1; i >= partition(p.set) && budget > 0; i-- {
		if p.outdated(p.replicas[i]) {
			p.plan.remove = append(p.plan.remove, p.replicas[i])
			budget--
		}
	}
	return nil
}

// outdated pods are of another template, and nothing has been done about it yet.
func (p *pass) outdated(pod *corev1.Pod) bool {
	return created(pod) && pod.DeletionTimestamp == nil && !podstate.Terminal(pod) && revisionOf(pod) != p.update.Name
}

func (p *pass) unavailable(pod *corev1.Pod) bool {
	available, _ := p.available(pod)
	return pod.DeletionTimestamp != nil || !available
}

func (p *pass) available(pod *corev1.Pod) (bool, time.Duration) {
	if pod.Status.Phase != corev1.PodRunning {
		return false, 0
	}
	return podstate.Available(pod, time.Duration(p.set.Spec.MinReadySeconds)*time.Second, p.now)
}

// count makes the status of what is there.
func (p *pass) count() {
	collisions := p.collisions
	s := appsv1.StatefulSetStatus{
		ObservedGeneration: p.set.Generation, CurrentRevision: p.current.Name, UpdateRevision: p.update.Name,
		CollisionCount: &collisions, Conditions: p.set.Status.Conditions,
	}
	for _, pod := range slices.Concat(p.replicas, p.condemned) {
		if !created(pod) {
			continue
		}
		s.Replicas++
		if pod.Status.Phase == corev1.PodRunning && podstate.Ready(pod) {
			s.ReadyReplicas++
			available, after := p.available(pod)
			if available {
				s.AvailableReplicas++
			} else if after > 0 && (p.plan.after == 0 || after < p.plan.after) {
				p.plan.after = after
			}
		}
		if pod.DeletionTimestamp != nil {
			continue
		}
		if revisionOf(pod) == p.current.Name {
			s.CurrentReplicas++
		}
		if revisionOf(pod) == p.update.Name {
			s.UpdatedReplicas++
		}
	}
	if rolling(p.set) && s.UpdatedReplicas == s.Replicas && s.ReadyReplicas == s.Replicas {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
	p.plan.status = s
}

func created(pod *corev1.Pod) bool { return pod.UID != "" }

func revisionOf(pod *corev1.Pod) string { return pod.Labels[appsv1.StatefulSetRevisionLabel] }

func rolling(s *appsv1.StatefulSet) bool {
	return s.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType
}

func replicas(s *appsv1.StatefulSet) int {
	if s.Spec.Replicas == nil {
		return 1
	}
	return int(*s.Spec.Replicas)
}

func start(s *appsv1.StatefulSet) int {
	if s.Spec.Ordinals == nil {
		return 0
	}
	return int(s.Spec.Ordinals.Start)
}

// partition is how many pods from the bottom an update leaves alone.
func partition(s *appsv1.StatefulSet) int {
	if r := s.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return int(*r.Partition)
	}
	return 0
}

func maxUnavailable(s *appsv1.StatefulSet) (int, error) {
	r := s.Spec.UpdateStrategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil {
		return 1, nil
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, replicas(s), true)
	if err != nil {
		return 0, fmt.Errorf("read maxUnavailable of StatefulSet %s: %w", s.Name, err)
	}
	return max(n, 1), nil
}
