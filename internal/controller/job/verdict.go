package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// judge finds out whether the job is decided though pods may be at work. A job once decided stays so: for success, then for failure.
func (p *pass) judge() {
	if c := find(p.status, batchv1.JobSuccessCriteriaMet); c != nil {
		p.verdict = c.DeepCopy()
		return
	}
	if c := find(p.status, batchv1.JobFailureTarget); c != nil {
		p.verdict = p.condition(batchv1.JobFailed, c.Reason, c.Message)
		return
	}
	if p.failure(); p.verdict == nil && indexed(p.job) {
		p.judgeIndexes()
	}
}

func (p *pass) failure() {
	if p.job.Spec.PodFailurePolicy != nil {
		for _, pod := range p.pods {
			if !failed(p.job, pod) {
				continue
			}
			if v := judge(p.job.Spec.PodFailurePolicy, pod); v.action == batchv1.PodFailurePolicyActionFailJob {
				p.fail(batchv1.JobReasonPodFailurePolicy, v.message)
				return
			}
		}
	}
	switch left, limited := p.timeLeft(); {
	case p.failed > int(*p.job.Spec.BackoffLimit) || p.restartedTooOften():
		p.fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	case limited && left <= 0:
		p.fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
	case limited:
		p.wake(left)
	}
}

func (p *pass) judgeIndexes() {
	completions := int(*p.job.Spec.Completions)
	if p.job.Spec.BackoffLimitPerIndex != nil {
		switch limit := p.job.Spec.MaxFailedIndexes; {
		case limit != nil && p.lost.total() > int(*limit):
			p.fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
			return
		case p.lost.total() > 0 && p.lost.total()+p.done.total() >= completions:
			p.fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
			return
		}
	}
	if message, met := succeededBy(p.job.Spec.SuccessPolicy, completions, p.done); met {
		p.verdict = p.condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message)
	}
}

func (p *pass) fail(reason, message string) {
	p.verdict = p.condition(batchv1.JobFailureTarget, reason, message)
}

// timeLeft is how long the job may still be active.
func (p *pass) timeLeft() (left time.Duration, limited bool) {
	if p.job.Spec.ActiveDeadlineSeconds == nil || p.status.StartTime == nil || suspended(p.job) {
		return 0, false
	}
	return p.status.StartTime.Add(time.Duration(*p.job.Spec.ActiveDeadlineSeconds) * time.Second).Sub(p.now), true
}

// restartedTooOften is about pods whose containers are restarted in place: then restarts are failures.
func (p *pass) restartedTooOften() bool {
	if p.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	n := int32(0)
	for _, pod := range p.pods {
		if pod.Status.Phase != corev1.PodRunning && pod.Status.Phase != corev1.PodPending {
			continue
		}
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for i := range list {
				n += list[i].RestartCount
			}
		}
	}
	return n > 0 && n >= *p.job.Spec.BackoffLimit
}

func (p *pass) condition(kind batchv1.JobConditionType, reason, message string) *batchv1.JobCondition {
	at := metav1.NewTime(p.now)
	return &batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastProbeTime: at, LastTransitionTime: at}
}

// find returns a condition that is true.
func find(s *batchv1.JobStatus, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.Type == kind && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// Finished says that a job has ended, and how: its condition Complete or Failed, nil if it has not.
func Finished(j *batchv1.Job) *batchv1.JobCondition {
	if c := find(&j.Status, batchv1.JobComplete); c != nil {
		return c
	}
	return find(&j.Status, batchv1.JobFailed)
}

// suspend keeps the condition Suspended. A job that never was suspended has none.
func (p *pass) suspend() {
	status, reason, message := corev1.ConditionFalse, "JobResumed", "Job resumed"
	if suspended(p.job) {
		status, reason, message = corev1.ConditionTrue, "JobSuspended", "Job suspended"
	}
	changed := *p.condition(batchv1.JobSuspended, reason, message)
	changed.Status = status
	for i := range p.status.Conditions {
		c := &p.status.Conditions[i]
		if c.Type != batchv1.JobSuspended {
			continue
		}
		if c.Status != status {
			*c = changed
			p.switched(reason, message)
		}
		return
	}
	if suspended(p.job) {
		p.status.Conditions = append(p.status.Conditions, changed)
		p.switched(reason, message)
	}
}

// switched restarts the clock: the time that a job was suspended is none that it was active.
func (p *pass) switched(reason, message string) {
	p.say(corev1.EventTypeNormal, map[string]string{"JobSuspended": "Suspended", "JobResumed": "Resumed"}[reason], message)
	p.status.StartTime = nil
	if !suspended(p.job) {
		p.status.StartTime = &metav1.Time{Time: p.now}
	}
}
