package api

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A job's status is written by whoever manages it (KEP-4368), so it is held to what readers rely on. A status that was wrong before may stay so: most
// rules look only at what a write changes.

// jobIs says that a condition of a job is true.
func jobIs(s *batchv1.JobStatus, kind batchv1.JobConditionType) bool {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return s.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

func jobEnded(s *batchv1.JobStatus) bool {
	return jobIs(s, batchv1.JobComplete) || jobIs(s, batchv1.JobFailed)
}

func validateJobStatus(o, old Object) field.ErrorList {
	j, was, p := o.(*batchv1.Job), old.(*batchv1.Job), field.NewPath("status")
	errs := jobCounts(&j.Status, &j.Spec, &was.Status, p)
	errs = append(errs, uncounted(j.Status.UncountedTerminatedPods, p.Child("uncountedTerminatedPods"))...)
	errs = append(errs, jobConditions(j, was, p.Child("conditions"))...)
	errs = append(errs, jobTimes(j, was, p)...)
	errs = append(errs, endedJob(&j.Status, &was.Status, p)...)
	return append(errs, jobIndexes(j, was, p)...)
}

func jobCounts(s *batchv1.JobStatus, spec *batchv1.JobSpec, was *batchv1.JobStatus, p *field.Path) (errs field.ErrorList) {
	for _, n := range [...]struct {
		name  string
		value *int32
	}{{"active", &s.Active}, {"succeeded", &s.Succeeded}, {"failed", &s.Failed}, {"ready", s.Ready}, {"terminating", s.Terminating}} {
		if n.value != nil {
			errs = append(errs, nonNegative(int64(*n.value), p.Child(n.name))...)
		}
	}
	if s.Ready != nil && *s.Ready > s.Active && (!equal(s.Ready, was.Ready) || s.Active != was.Active) {
		errs = append(errs, field.Invalid(p.Child("ready"), *s.Ready, "cannot set more ready pods than active"))
	}
	if s.Failed < was.Failed {
		errs = append(errs, field.Invalid(p.Child("failed"), s.Failed, "cannot decrease the failed counter"))
	}
	if s.Succeeded < was.Succeeded && !equal(spec.Completions, spec.Parallelism) { // one that can be scaled down may
		errs = append(errs, field.Invalid(p.Child("succeeded"), s.Succeeded, "cannot decrease the succeeded counter"))
	}
	return errs
}

// uncounted pods are each in one list, once.
func uncounted(u *batchv1.UncountedTerminatedPods, p *field.Path) (errs field.ErrorList) {
	if u == nil {
		return nil
	}
	seen := map[types.UID]bool{}
	for _, list := range [...]struct {
		name string
		uids []types.UID
	}{{"succeeded", u.Succeeded}, {"failed", u.Failed}} {
		for i, uid := range list.uids {
			switch at := p.Child(list.name).Index(i); {
			case uid == "":
				errs = append(errs, field.Invalid(at, uid, "must not be empty"))
			case seen[uid]:
				errs = append(errs, field.Duplicate(at, uid))
			}
			seen[uid] = true
		}
	}
	return errs
}

// jobConditions: a job ends once, one way, and says beforehand which.
func jobConditions(j, was *batchv1.Job, p *field.Path) (errs field.ErrorList) {
	const complete, failed, target, met = batchv1.JobComplete, batchv1.JobFailed, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet
	is := func(kind batchv1.JobConditionType) bool { return jobIs(&j.Status, kind) }
	before := func(kind batchv1.JobConditionType) bool { return jobIs(&was.Status, kind) }
	changed := func(a, b batchv1.JobConditionType) bool { return is(a) != before(a) || is(b) != before(b) }
	for _, r := range [...]struct {
		broken bool
		why    string
	}{
		{is(complete) && is(failed) && changed(complete, failed), "cannot set Complete=True and Failed=true conditions"},
		{is(complete) && is(target) && changed(complete, target), "cannot set Complete=True and FailureTarget=true conditions"},
		{is(failed) && !is(target) && changed(failed, target), "cannot set Failed=True condition without the FailureTarget=true condition"},
		{is(complete) && !is(met) && changed(complete, met), "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"},
		{is(met) && is(failed), "cannot set SuccessCriteriaMet=True and Failed=true conditions"},
		{is(met) && is(target), "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"},
		{j.Spec.SuccessPolicy != nil && is(complete) && !is(met), "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"},
		{before(failed) && !is(failed), "cannot disable the terminal Failed=True condition"},
		{before(complete) && !is(complete), "cannot disable the terminal Complete=True condition"},
		{before(target) && !is(target), "cannot disable the terminal FailureTarget=True condition"},
		{before(met) && !is(met), "cannot disable the SuccessCriteriaMet=True condition"},
		{before(complete) && !before(met) && is(met), "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"},
	} {
		if r.broken {
			errs = append(errs, field.Invalid(p, field.OmitValueType{}, r.why))
		}
	}
	return errs
}

func jobTimes(j, was *batchv1.Job, p *field.Path) (errs field.ErrorList) {
	s, complete := &j.Status, jobIs(&j.Status, batchv1.JobComplete)
	started, ended := !s.StartTime.Equal(was.Status.StartTime), !s.CompletionTime.Equal(was.Status.CompletionTime)
	turned, at := complete != jobIs(&was.Status, batchv1.JobComplete), p.Child("completionTime")
	if turned || ended {
		switch {
		case s.CompletionTime != nil && !complete:
			errs = append(errs, field.Invalid(at, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
		case s.CompletionTime == nil && complete:
			errs = append(errs, field.Required(at, "completionTime is required for Complete jobs"))
		}
	}
	if (started || ended) && s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		errs = append(errs, field.Invalid(at, s.CompletionTime, "completionTime cannot be set before startTime"))
	}
	if ended && s.CompletionTime != nil && was.Status.CompletionTime != nil {
		errs = append(errs, field.Invalid(at, s.CompletionTime, "completionTime cannot be mutated"))
	}
	if started && was.Status.StartTime != nil && !value(j.Spec.Suspend) {
		errs = append(errs, field.Required(p.Child("startTime"), "startTime cannot be removed for unsuspended job"))
	}
	return errs
}

// endedJob has nothing left to do.
func endedJob(s, was *batchv1.JobStatus, p *field.Path) (errs field.ErrorList) {
	if !jobEnded(s) {
		return nil
	}
	turned := !jobEnded(was)
	if s.Active > 0 && (turned || s.Active != was.Active) {
		errs = append(errs, field.Invalid(p.Child("active"), s.Active, "active>0 is invalid for finished job"))
	}
	if s.StartTime == nil && (turned || was.StartTime != nil) {
		errs = append(errs, field.Required(p.Child("startTime"), "startTime is required for finished job"))
	}
	if u := s.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 && (turned || !equal(u, was.UncountedTerminatedPods)) {
		errs = append(errs, field.Invalid(p.Child("uncountedTerminatedPods"), u, "uncountedTerminatedPods needs to be empty for finished job"))
	}
	if value(s.Terminating) > 0 && (turned || !equal(s.Terminating, was.Terminating)) {
		errs = append(errs, field.Invalid(p.Child("terminating"), *s.Terminating, "terminating>0 is invalid for finished job"))
	}
	return errs
}

// jobIndexes: which indexes succeeded and failed. Whatever did not change is not looked at again.
func jobIndexes(j, was *batchv1.Job, p *field.Path) (errs field.ErrorList) {
	s, limit := &j.Status, value(j.Spec.Completions)
	done, failed := s.CompletedIndexes != was.Status.CompletedIndexes, !equal(s.FailedIndexes, was.Status.FailedIndexes)
	at, failedAt := p.Child("completedIndexes"), p.Child("failedIndexes")
	completed, err := parseIndexes(s.CompletedIndexes, limit)
	if done && j.Spec.Completions != nil && err != nil {
		errs = append(errs, field.Invalid(at, s.CompletedIndexes, "error parsing completedIndexes: "+err.Error()))
	}
	if done && s.CompletedIndexes != "" && !indexedJob(&j.Spec) {
		errs = append(errs, field.Invalid(at, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
	}
	if s.FailedIndexes == nil {
		return errs
	}
	without, err := parseIndexes(*s.FailedIndexes, limit)
	if failed && j.Spec.Completions != nil && j.Spec.BackoffLimitPerIndex != nil && err != nil {
		errs = append(errs, field.Invalid(failedAt, *s.FailedIndexes, "error parsing failedIndexes: "+err.Error()))
	}
	if failed && j.Spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(failedAt, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
	}
	if index, both := overlap(completed, without); both && (done || failed) && j.Spec.Completions != nil {
		errs = append(errs, field.Invalid(failedAt, *s.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", index)))
	}
	return errs
}
