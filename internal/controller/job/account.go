package job

import (
	"cmp"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// atOnce is how many pods' UIDs a status may hold.
const atOnce = 500

// account enters what ended into the status: by index, or by UID among the uncounted until the pod's finalizer is off. So a pod is never
// counted twice, wherever a crash falls.
func (p *pass) account() {
	u := p.status.UncountedTerminatedPods
	inFailed := map[types.UID]bool{}
	for _, uid := range u.Failed {
		inFailed[uid] = true
	}
	failing := p.verdict != nil && p.verdict.Type != batchv1.JobSuccessCriteriaMet
	var done []int
	for _, pod := range p.ordered() {
		if !p.fresh(pod) || !p.mayCount(pod) {
			continue
		}
		p.plan.count = append(p.plan.count, pod)
		switch {
		case pod.Status.Phase == corev1.PodSucceeded && !inFailed[pod.UID]:
			if indexed(p.job) {
				if counts(p.job, pod) && !p.before.has(indexOf(pod)) {
					done = append(done, indexOf(pod))
				}
			} else if !p.uncounted[pod.UID] {
				u.Succeeded = append(u.Succeeded, pod.UID)
			}
		case (failed(p.job, pod) || failing) && !p.uncounted[pod.UID] && counts(p.job, pod) && judge(p.job.Spec.PodFailurePolicy, pod).counted():
			u.Failed = append(u.Failed, pod.UID)
		}
		if len(done)+len(u.Succeeded)+len(u.Failed) >= atOnce {
			p.plan.full = true
			break
		}
	}
	if indexed(p.job) {
		completed := p.before.with(done)
		p.status.Succeeded, p.status.CompletedIndexes = int32(completed.total()), completed.String()
		p.status.FailedIndexes = nil
		if p.job.Spec.BackoffLimitPerIndex != nil {
			text := p.lost.String()
			p.status.FailedIndexes = &text
		}
	}
	p.conclude()
}

// ordered puts pods in the order of their indexes, so that status.completedIndexes grows from below.
func (p *pass) ordered() []*corev1.Pod {
	if !indexed(p.job) {
		return p.pods
	}
	return slices.SortedStableFunc(slices.Values(p.pods), func(a, b *corev1.Pod) int { return cmp.Compare(indexOf(a), indexOf(b)) })
}

// mayCount says whether a pod can be let go. A failed pod that its index's next pod is to follow stays until that is made: it knows how often
// the index has failed.
func (p *pass) mayCount(pod *corev1.Pod) bool {
	if p.job.DeletionTimestamp != nil || p.verdict != nil || pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return failed(p.job, pod) && p.waiting[indexOf(pod)] != pod
}

// conclude turns a verdict into the interim condition that is written before finalizers come off, and the final one for when all is counted.
func (p *pass) conclude() {
	if p.verdict == nil {
		return
	}
	final := batchv1.JobFailed
	switch p.verdict.Type {
	case batchv1.JobFailureTarget:
		p.status.Conditions = append(p.status.Conditions, *p.verdict)
	case batchv1.JobSuccessCriteriaMet:
		final = batchv1.JobComplete
		if find(p.status, batchv1.JobSuccessCriteriaMet) == nil {
			p.status.Conditions = append(p.status.Conditions, *p.verdict)
		}
	}
	p.plan.final = p.condition(final, p.verdict.Reason, p.verdict.Message)
}

// settle moves the uncounted whose finalizer is off (held says whose is not) into the counters, and adds the final condition once nothing is
// left to be counted or to end. It returns the status to write, and what to say about the job if it has finished.
func settle(j *batchv1.Job, p *plan, held func(uid types.UID) bool) (batchv1.JobStatus, []event) {
	s := *p.status.DeepCopy()
	u := s.UncountedTerminatedPods
	before := len(u.Succeeded)
	u.Succeeded = slices.DeleteFunc(u.Succeeded, func(uid types.UID) bool { return !held(uid) })
	s.Succeeded += int32(before - len(u.Succeeded))
	before = len(u.Failed)
	u.Failed = slices.DeleteFunc(u.Failed, func(uid types.UID) bool { return !held(uid) })
	s.Failed += int32(before - len(u.Failed))
	if len(u.Succeeded) == 0 {
		u.Succeeded = nil
	}
	if len(u.Failed) == 0 {
		u.Failed = nil
	}
	if p.final == nil || p.full || len(u.Succeeded)+len(u.Failed) > 0 || s.Active > 0 || s.Terminating != nil && *s.Terminating > 0 {
		return s, nil
	}
	s.Conditions = append(s.Conditions, *p.final)
	if p.final.Type == batchv1.JobFailed {
		return s, []event{{corev1.EventTypeWarning, p.final.Reason, p.final.Message}}
	}
	s.CompletionTime = &metav1.Time{Time: p.final.LastTransitionTime.Time}
	var events []event
	if j.Spec.Completions != nil && s.Succeeded > *j.Spec.Completions {
		events = append(events, event{corev1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached"})
	}
	return s, append(events, event{corev1.EventTypeNormal, "Completed", "Job completed"})
}
