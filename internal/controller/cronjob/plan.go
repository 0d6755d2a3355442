package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/api/cron"
	"skiff.dev/skiff/internal/controller/job"
)

const (
	// manyMissed is from where on missed starts are told about: rather a wrong clock than a long night.
	manyMissed = 100
	// byHand is the annotation on what kubectl create job --from makes.
	byHand = "cronjob.kubernetes.io/instantiate"
)

// observed is all that a decision depends on.
type observed struct {
	cron    *batchv1.CronJob
	jobs    []*batchv1.Job     // that it controls
	missing map[types.UID]bool // active ones that are gone
	now     time.Time
}

// plan is what one pass does.
type plan struct {
	remove []corev1.ObjectReference
	start  *batchv1.Job
	due    time.Time // what start is for
	status batchv1.CronJobStatus
	events []event
	after  time.Duration // until the schedule is due next; zero if it never is
}

type event struct{ kind, reason, message string }

// pass is a decision in the making.
type pass struct {
	observed
	plan plan
}

// decide is one pass over a CronJob.
func decide(o observed) plan {
	p := &pass{observed: o, plan: plan{status: *o.cron.Status.DeepCopy()}}
	p.review()
	if o.cron.DeletionTimestamp == nil {
		p.trim()
		p.schedule()
	}
	if len(p.plan.status.Active) == 0 {
		p.plan.status.Active = nil
	}
	return p.plan
}

// review brings the list of active jobs and the time of the last success up to date.
func (p *pass) review() {
	s := &p.plan.status
	for _, j := range p.jobs {
		listed := slices.ContainsFunc(s.Active, func(ref corev1.ObjectReference) bool { return ref.UID == j.UID })
		end := job.Finished(j)
		switch {
		case end == nil && !listed:
			if j.Annotations[byHand] == "" && !p.named(j) {
				p.say(corev1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
			}
		case end != nil && listed:
			p.drop(j.UID)
			p.say(corev1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %s", j.Name, end.Type)
		}
		if end != nil && end.Type == batchv1.JobComplete && j.Status.CompletionTime != nil &&
			(s.LastSuccessfulTime == nil || j.Status.CompletionTime.After(s.LastSuccessfulTime.Time)) {
			s.LastSuccessfulTime = j.Status.CompletionTime
		}
	}
	for _, ref := range slices.Clone(s.Active) {
		if p.missing[ref.UID] {
			p.drop(ref.UID)
			p.say(corev1.EventTypeNormal, "MissingJob", "Active job went missing: %s", ref.Name)
		}
	}
}

// named says whether a job was made for a scheduled time, by its name.
func (p *pass) named(j *batchv1.Job) bool {
	at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	return err == nil && j.Name == nameFor(p.cron, at)
}

func (p *pass) drop(uid types.UID) {
	p.plan.status.Active = slices.DeleteFunc(p.plan.status.Active, func(ref corev1.ObjectReference) bool { return ref.UID == uid })
}

func (p *pass) say(kind, reason, format string, args ...any) {
	p.plan.events = append(p.plan.events, event{kind, reason, fmt.Sprintf(format, args...)})
}

// trim removes the oldest ended jobs beyond the history limits.
func (p *pass) trim() {
	for kind, limit := range map[batchv1.JobConditionType]*int32{
		batchv1.JobComplete: p.cron.Spec.SuccessfulJobsHistoryLimit, batchv1.JobFailed: p.cron.Spec.FailedJobsHistoryLimit,
	} {
		if limit == nil {
			continue
		}
		var ended []*batchv1.Job
		for _, j := range p.jobs {
			if end := job.Finished(j); end != nil && end.Type == kind && j.DeletionTimestamp == nil {
				ended = append(ended, j)
			}
		}
		slices.SortFunc(ended, func(a, b *batchv1.Job) int {
			return cmp.Or(started(a).Compare(started(b)), cmp.Compare(a.Name, b.Name))
		})
		for _, j := range ended[:max(0, len(ended)-int(*limit))] {
			p.plan.remove = append(p.plan.remove, referTo(j))
		}
	}
}

func started(j *batchv1.Job) time.Time {
	if j.Status.StartTime == nil {
		return j.CreationTimestamp.Time
	}
	return j.Status.StartTime.Time
}

// schedule finds out whether the schedule is due and what is to be done about it.
func (p *pass) schedule() {
	c := p.cron
	zone := time.Local
	if c.Spec.TimeZone != nil {
		var err error
		if zone, err = time.LoadLocation(*c.Spec.TimeZone); err != nil {
			p.say(corev1.EventTypeWarning, "UnknownTimeZone", "invalid timeZone: %q: %s", *c.Spec.TimeZone, err)
			return
		}
	}
	if c.Spec.Suspend != nil && *c.Spec.Suspend {
		return
	}
	s, err := cron.Parse(c.Spec.Schedule)
	if err != nil {
		p.say(corev1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule: %q : %s", c.Spec.Schedule, err)
		return
	}
	now := p.now.In(zone)
	base := c.CreationTimestamp.In(zone)
	if c.Status.LastScheduleTime != nil {
		base = c.Status.LastScheduleTime.In(zone)
	}
	due := s.Last(base, now)
	next := s.Next(base)
	if !due.IsZero() {
		next = s.Next(due)
		if p.begin(s, base, due, now) {
			p.create(due)
		}
	}
	if !next.IsZero() {
		p.plan.after = max(next.Sub(now), time.Millisecond)
	}
}

// begin says whether a job is to be made for the time that is due.
func (p *pass) begin(s *cron.Schedule, base, due, now time.Time) bool {
	c := p.cron
	earliest := base
	if deadline := c.Spec.StartingDeadlineSeconds; deadline != nil {
		limit := time.Duration(*deadline) * time.Second
		if from := now.Add(-limit); from.After(earliest) {
			earliest = from
		}
		if due.Add(limit).Before(now) {
			p.say(corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z))
			return false
		}
	}
	if s.Missed(earliest, now, manyMissed+1) > manyMissed {
		p.say(corev1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	for _, ref := range p.plan.status.Active {
		if ref.Name == nameFor(c, due) {
			return false
		}
	}
	switch {
	case c.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent && len(p.plan.status.Active) > 0:
		p.say(corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
		return false
	case c.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent:
		p.plan.remove = append(p.plan.remove, p.plan.status.Active...)
		p.plan.status.Active = nil
	}
	return true
}

// create makes the job for a time, unless it is there already: then only the status lacks it.
func (p *pass) create(due time.Time) {
	p.plan.due = due
	name := nameFor(p.cron, due)
	for _, j := range p.jobs {
		if j.Name == name {
			p.plan.enter(j)
			return
		}
	}
	template := p.cron.Spec.JobTemplate.DeepCopy()
	annotations := maps.Clone(template.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = due.Format(time.RFC3339)
	p.plan.start = &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.cron.Namespace, Name: name, Labels: maps.Clone(template.Labels), Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p.cron, gvk)},
		},
		Spec: template.Spec,
	}
}

// enter notes a started job in the status.
func (p *plan) enter(j *batchv1.Job) {
	if job.Finished(j) == nil {
		p.status.Active = append(p.status.Active, referTo(j))
	}
	p.status.LastScheduleTime = &metav1.Time{Time: p.due}
}

// nameFor is the name of the job for a scheduled time: the same however often it is asked for.
func nameFor(c *batchv1.CronJob, due time.Time) string {
	return c.Name + "-" + strconv.FormatInt(due.Unix()/60, 10)
}

func referTo(j *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job", Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion,
	}
}
