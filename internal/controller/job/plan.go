package job

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/controller/podstate"
)

// observed is all that a decision depends on.
type observed struct {
	job    *batchv1.Job
	pods   []*corev1.Pod
	letGo  map[types.UID]bool // pods whose finalizer was taken off, though the cache may not show it
	record streak             // of failures, before what is found now
	mayAct bool               // own creations and deletions have all been seen
	now    time.Time
}

// plan is what one pass does, in this order.
type plan struct {
	create []*corev1.Pod
	remove []*corev1.Pod // too many: their finalizer comes off first, for they count as nothing
	end    []*corev1.Pod // still at work for a job that is decided: they are counted

	status batchv1.JobStatus  // to be written before the finalizers come off
	count  []*corev1.Pod      // accounted for in status: their finalizers may come off
	held   map[types.UID]bool // all whose finalizer is on
	final  *batchv1.JobCondition
	full   bool // more is to be counted than one pass takes

	events []event
	record streak
	after  time.Duration // when to look again though nothing happened
}

type event struct{ kind, reason, message string }

// pass is a decision in the making.
type pass struct {
	observed
	plan      plan
	status    *batchv1.JobStatus
	uncounted map[types.UID]bool
	active    []*corev1.Pod
	running   int // active ones after the plan
	ending    int // pods that are being deleted and have not ended, after the plan
	succeeded int
	failed    int

	before, done indexes               // succeeded: by the status, and by the pods too
	lost         indexes               // failed; of a job with a limit per index
	waiting      map[int]*corev1.Pod   // the last failed pod of an index that is to be tried again
	verdict      *batchv1.JobCondition // why no pod is to work any more
}

// decide is one pass over a job that is not finished.
func decide(o observed) plan {
	p := newPass(o)
	p.judge()
	if p.verdict != nil {
		p.stop()
	} else {
		p.work()
	}
	p.status.Active = int32(p.running)
	ready := int32(0)
	for _, pod := range p.active {
		if podstate.Ready(pod) && !slices.Contains(p.plan.remove, pod) && !slices.Contains(p.plan.end, pod) {
			ready++
		}
	}
	ending := int32(p.ending)
	p.status.Ready, p.status.Terminating = &ready, &ending
	p.account()
	p.plan.status = *p.status
	return p.plan
}

func newPass(o observed) *pass {
	p := &pass{observed: o, status: o.job.Status.DeepCopy(), uncounted: map[types.UID]bool{}}
	if p.status.UncountedTerminatedPods == nil {
		p.status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	p.plan.held = map[types.UID]bool{}
	u := p.status.UncountedTerminatedPods
	for _, uid := range slices.Concat(u.Succeeded, u.Failed) {
		p.uncounted[uid] = true
	}
	p.succeeded = int(p.status.Succeeded) + len(u.Succeeded)
	p.failed = int(p.status.Failed) + len(u.Failed)
	var succeeded, failures []*corev1.Pod
	for _, pod := range o.pods {
		if podstate.Active(pod) {
			p.active = append(p.active, pod)
		} else if !podstate.Terminal(pod) {
			p.ending++
		}
		if !p.fresh(pod) {
			continue
		}
		p.plan.held[pod.UID] = true
		if p.uncounted[pod.UID] || !counts(o.job, pod) {
			continue
		}
		switch {
		case pod.Status.Phase == corev1.PodSucceeded:
			p.succeeded++
			succeeded = append(succeeded, pod)
		case failed(o.job, pod):
			if judge(o.job.Spec.PodFailurePolicy, pod).counted() {
				p.failed++
			}
			failures = append(failures, pod)
		}
	}
	p.running = len(p.active)
	p.plan.record = o.record.next(succeeded, failures)
	if indexed(o.job) {
		p.index()
	}
	if p.status.StartTime == nil && !suspended(o.job) {
		p.status.StartTime = &metav1.Time{Time: o.now}
	}
	return p
}

// fresh pods bear the finalizer still: nobody has counted them, or at least nobody has finished doing so.
func (p *pass) fresh(pod *corev1.Pod) bool { return tracked(pod) && !p.letGo[pod.UID] }

// index works out which indexes have succeeded, which are lost, and which are to be tried again.
func (p *pass) index() {
	limit := int(*p.job.Spec.Completions)
	p.before = parseIndexes(p.status.CompletedIndexes, limit)
	var done []int
	for _, pod := range p.pods {
		if p.fresh(pod) && pod.Status.Phase == corev1.PodSucceeded && counts(p.job, pod) {
			done = append(done, indexOf(pod))
		}
	}
	p.done = p.before.with(done)
	p.succeeded = p.done.total()
	if p.job.Spec.BackoffLimitPerIndex == nil {
		return
	}
	text := ""
	if p.status.FailedIndexes != nil {
		text = *p.status.FailedIndexes
	}
	var lost []int
	for _, pod := range p.pods {
		if p.fresh(pod) && counts(p.job, pod) && indexFailed(p.job, pod) && !p.done.has(indexOf(pod)) {
			lost = append(lost, indexOf(pod))
		}
	}
	p.lost = parseIndexes(text, limit).with(lost)
	p.waiting = map[int]*corev1.Pod{}
	tried := p.indexesOf(p.active)
	for _, pod := range p.pods {
		i := indexOf(pod)
		if !p.fresh(pod) || !counts(p.job, pod) || !failed(p.job, pod) || tried[i] || p.done.has(i) || p.lost.has(i) {
			continue
		}
		if was := p.waiting[i]; was == nil || failuresOf(was) <= failuresOf(pod) {
			p.waiting[i] = pod
		}
	}
}

// failuresOf counts all failures of a pod's index before the pod.
func failuresOf(p *corev1.Pod) int {
	return failuresBefore(p, batchv1.JobIndexFailureCountAnnotation) + failuresBefore(p, batchv1.JobIndexIgnoredFailureCountAnnotation)
}

func (p *pass) indexesOf(pods []*corev1.Pod) map[int]bool {
	set := map[int]bool{}
	for _, pod := range pods {
		set[indexOf(pod)] = true
	}
	return set
}

func (p *pass) wake(after time.Duration) {
	if after > 0 && (p.plan.after == 0 || after < p.plan.after) {
		p.plan.after = after
	}
}

func (p *pass) say(kind, reason, message string) {
	p.plan.events = append(p.plan.events, event{kind, reason, message})
}

func suspended(j *batchv1.Job) bool { return j.Spec.Suspend != nil && *j.Spec.Suspend }
