package job

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/controller/podrank"
	"skiff.dev/skiff/internal/controller/podstate"
)

// burst is the most pods one pass creates or deletes.
const burst = 500

// stop ends what still works for a job that is decided. The verdict is not acted on further while pods may be about that nobody sees yet.
func (p *pass) stop() {
	p.plan.end = p.active
	p.ending += len(p.active)
	p.running = 0
	if !p.mayAct {
		p.verdict = nil
	}
}

// work brings the number of active pods to what is wanted, and notices when all is done.
func (p *pass) work() {
	acted := p.mayAct && p.job.DeletionTimestamp == nil
	if acted {
		p.manage()
	}
	done := p.job.Spec.Completions == nil && p.succeeded > 0 || p.job.Spec.Completions != nil && p.succeeded >= int(*p.job.Spec.Completions)
	switch {
	case done && p.running == 0:
		p.verdict = p.condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	case acted:
		p.suspend()
	}
}

func (p *pass) manage() {
	if suspended(p.job) {
		p.drop(p.active)
		return
	}
	wanted := p.wanted()
	if excess := p.excess(len(p.active) - wanted); len(excess) > 0 {
		p.drop(excess[:min(len(excess), burst)])
		return // what is to be made can be made when these are gone
	}
	missing := wanted - p.running
	if onlyFailed(p.job) {
		missing -= p.ending
	}
	if missing = min(missing, burst); missing > 0 {
		p.create(missing)
	}
}

// wanted is how many pods should be active. Once one has succeeded where no number was asked for, the others are but waited for.
func (p *pass) wanted() int {
	parallelism := int(*p.job.Spec.Parallelism)
	if p.job.Spec.Completions == nil {
		if p.succeeded > 0 {
			return p.running
		}
		return parallelism
	}
	return max(0, min(int(*p.job.Spec.Completions)-p.succeeded, parallelism))
}

// excess picks at least n active pods that should go: first those that double an index or have none, then the least valuable.
func (p *pass) excess(n int) []*corev1.Pod {
	var out, rest []*corev1.Pod
	if !indexed(p.job) {
		rest = p.active
	} else {
		byIndex := map[int][]*corev1.Pod{}
		for _, pod := range p.active {
			if !counts(p.job, pod) || p.done.has(indexOf(pod)) || p.lost.has(indexOf(pod)) {
				out = append(out, pod)
				continue
			}
			byIndex[indexOf(pod)] = append(byIndex[indexOf(pod)], pod)
		}
		for _, same := range byIndex {
			doubles := podrank.First(same, nil, len(same)-1)
			out = append(out, doubles...)
			for _, pod := range same {
				if !slices.Contains(doubles, pod) {
					rest = append(rest, pod)
				}
			}
		}
	}
	if n > len(out) {
		out = append(out, podrank.First(rest, nil, min(n-len(out), len(rest)))...)
	}
	return out
}

func (p *pass) drop(pods []*corev1.Pod) {
	p.plan.remove = append(p.plan.remove, pods...)
	p.running -= len(pods)
	p.ending += len(pods)
}

func (p *pass) create(n int) {
	if p.job.Spec.BackoffLimitPerIndex == nil {
		if wait := p.plan.record.wait(p.now); wait > 0 {
			p.wake(wait)
			return
		}
	}
	if !indexed(p.job) {
		for range n {
			p.plan.create = append(p.plan.create, newPod(p.job, unknown, nil))
		}
		p.running += n
		return
	}
	for _, i := range p.pending(n) {
		p.plan.create = append(p.plan.create, newPod(p.job, i, p.waiting[i]))
		p.running++
	}
}

// pending picks up to n indexes to make pods for, from the lowest; an index that failed lately is passed over and comes later.
func (p *pass) pending(n int) []int {
	taken := p.indexesOf(p.active)
	if onlyFailed(p.job) {
		for _, pod := range p.pods {
			if pod.DeletionTimestamp != nil && !podstate.Terminal(pod) {
				taken[indexOf(pod)] = true
			}
		}
	}
	var picked []int
	for i := 0; i < int(*p.job.Spec.Completions) && len(picked) < n; i++ {
		if taken[i] || p.done.has(i) || p.lost.has(i) {
			continue
		}
		if wait := p.delay(p.waiting[i]); wait > 0 {
			p.wake(wait)
			continue
		}
		picked = append(picked, i)
	}
	return picked
}

// delay is how long an index's last failed pod holds up its next.
func (p *pass) delay(last *corev1.Pod) time.Duration {
	if last == nil {
		return 0
	}
	return streak{failures: failuresOf(last) + 1, last: endedAt(last)}.wait(p.now)
}
