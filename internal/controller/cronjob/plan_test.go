package cronjob

import (
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func hourly(changes ...func(c *batchv1.CronJob)) *batchv1.CronJob {
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tick", UID: "cron", CreationTimestamp: metav1.NewTime(noon.Add(-10 * time.Minute))},
		Spec: batchv1.CronJobSpec{Schedule: "0 * * * *", TimeZone: new(string), ConcurrencyPolicy: batchv1.AllowConcurrent}}
	*c.Spec.TimeZone = "Etc/UTC"
	for _, change := range changes {
		change(c)
	}
	return c
}

func policy(p batchv1.ConcurrencyPolicy) func(c *batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = p }
}

func last(ago time.Duration) func(c *batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Status.LastScheduleTime = &metav1.Time{Time: noon.Add(-ago)} }
}

func deadline(seconds int64) func(c *batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Spec.StartingDeadlineSeconds = &seconds }
}

func active(names ...string) func(c *batchv1.CronJob) {
	return func(c *batchv1.CronJob) {
		for _, n := range names {
			c.Status.Active = append(c.Status.Active, corev1.ObjectReference{Name: n, UID: types.UID(n)})
		}
	}
}

// run is a job that ended some minutes ago, or still runs.
func run(name string, end batchv1.JobConditionType, minutes int) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	j.Status.StartTime = &metav1.Time{Time: noon.Add(-time.Duration(minutes) * time.Minute)}
	if end != "" {
		j.Status.Conditions = []batchv1.JobCondition{{Type: end, Status: corev1.ConditionTrue}}
		j.Status.CompletionTime = j.Status.StartTime
	}
	return j
}

func describe(p plan) string {
	var parts []string
	for _, ref := range p.remove {
		parts = append(parts, "remove "+ref.Name)
	}
	slices.Sort(parts)
	if p.start != nil {
		parts = append(parts, "start "+p.start.Name)
	}
	for _, ref := range p.status.Active {
		parts = append(parts, "active "+ref.Name)
	}
	for _, e := range p.events {
		parts = append(parts, e.reason)
	}
	return strings.Join(parts, ", ")
}

func TestDecide(t *testing.T) {
	now := "tick-29454480" // noon, in minutes since 1970
	limits := func(succeeded, failed int32) func(c *batchv1.CronJob) {
		return func(c *batchv1.CronJob) {
			c.Spec.SuccessfulJobsHistoryLimit, c.Spec.FailedJobsHistoryLimit = &succeeded, &failed
		}
	}
	for _, tt := range []struct {
		name, want string
		cron       *batchv1.CronJob
		jobs       []*batchv1.Job
		gone       []types.UID
		at, after  time.Duration
	}{
		{name: "not due yet", cron: hourly(), at: -time.Minute, after: time.Minute},
		{name: "due", cron: hourly(), after: time.Hour, want: "start " + now},
		{name: "due for a while", cron: hourly(), at: 20 * time.Minute, after: 40 * time.Minute, want: "start " + now},
		{name: "done", cron: hourly(last(0)), at: time.Minute, after: 59 * time.Minute},
		{name: "started, but the status was lost", cron: hourly(), jobs: []*batchv1.Job{run(now, "", 0)}, after: time.Hour, want: "active " + now + ", UnexpectedJob"},
		{name: "three missed: the latest is made up for", cron: hourly(last(3 * time.Hour)), after: time.Hour, want: "start " + now},
		{name: "many missed", cron: hourly(last(200 * time.Hour)), after: time.Hour, want: "start " + now + ", TooManyMissedTimes"},
		{name: "many missed, but most too long ago", cron: hourly(last(200*time.Hour), deadline(7200)), after: time.Hour, want: "start " + now},
		{name: "too late", cron: hourly(deadline(60)), at: 2 * time.Minute, after: 58 * time.Minute, want: "MissSchedule"},
		{name: "the clock went back", cron: hourly(last(-2 * time.Hour)), after: 3 * time.Hour},
		{name: "suspended", cron: hourly(func(c *batchv1.CronJob) { c.Spec.Suspend = new(bool); *c.Spec.Suspend = true })},
		{name: "being deleted", cron: hourly(func(c *batchv1.CronJob) { c.DeletionTimestamp = &metav1.Time{Time: noon} })},
		{name: "no such zone", cron: hourly(func(c *batchv1.CronJob) { *c.Spec.TimeZone = "Atlantis" }), want: "UnknownTimeZone"},
		{name: "no such schedule", cron: hourly(func(c *batchv1.CronJob) { c.Spec.Schedule = "soon" }), want: "UnparseableSchedule"},
		{name: "another zone", cron: hourly(func(c *batchv1.CronJob) { c.Spec.Schedule, *c.Spec.TimeZone = "30 17 * * *", "Asia/Kolkata" }), after: 24 * time.Hour, want: "start " + now},
		{name: "side by side", cron: hourly(last(time.Hour), active("a")), jobs: []*batchv1.Job{run("a", "", 60)}, after: time.Hour, want: "start " + now + ", active a"},
		{name: "forbidden", cron: hourly(last(time.Hour), active("a"), policy(batchv1.ForbidConcurrent)), jobs: []*batchv1.Job{run("a", "", 60)}, after: time.Hour, want: "active a, JobAlreadyActive"},
		{name: "forbidden, but over", cron: hourly(last(time.Hour), active("a"), policy(batchv1.ForbidConcurrent)), jobs: []*batchv1.Job{run("a", batchv1.JobComplete, 60)}, after: time.Hour, want: "start " + now + ", SawCompletedJob"},
		{name: "replaced", cron: hourly(last(time.Hour), active("a"), policy(batchv1.ReplaceConcurrent)), jobs: []*batchv1.Job{run("a", "", 60)}, after: time.Hour, want: "remove a, start " + now},
		{name: "an active one went", cron: hourly(last(0), active("a")), gone: []types.UID{"a"}, after: time.Hour, want: "MissingJob"},
		{name: "an active one is not known yet", cron: hourly(last(0), active("a")), after: time.Hour, want: "active a"},
		{name: "history", cron: hourly(last(0), limits(1, 0)), after: time.Hour, want: "remove b, remove d",
			jobs: []*batchv1.Job{run("a", batchv1.JobComplete, 1), run("b", batchv1.JobComplete, 2), run("c", "", 3), run("d", batchv1.JobFailed, 4)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			missing := map[types.UID]bool{}
			for _, uid := range tt.gone {
				missing[uid] = true
			}
			p := decide(observed{cron: tt.cron, jobs: tt.jobs, missing: missing, now: noon.Add(tt.at)})
			got := strings.TrimPrefix(strings.TrimSuffix(describe(p), ", UnexpectedJob"), "UnexpectedJob")
			want := strings.TrimSuffix(tt.want, ", UnexpectedJob")
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if p.after != tt.after {
				t.Errorf("again after %s, want %s", p.after, tt.after)
			}
		})
	}
}

func TestStart(t *testing.T) {
	c := hourly()
	*c.Spec.TimeZone = "Asia/Kolkata"
	c.Spec.Schedule = "30 * * * *"
	c.Spec.JobTemplate.Labels = map[string]string{"a": "b"}
	p := decide(observed{cron: c, now: noon})
	if p.start == nil || p.start.Annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"] != "2026-01-01T17:30:00+05:30" || p.start.Labels["a"] != "b" || p.start.OwnerReferences[0].UID != "cron" {
		t.Fatalf("job %+v", p.start)
	}
	p.start.UID = "made"
	p.enter(p.start)
	if len(p.status.Active) != 1 || p.status.Active[0].UID != "made" || !p.status.LastScheduleTime.Equal(&metav1.Time{Time: noon}) {
		t.Errorf("status %+v", p.status)
	}
	ended := run("x", batchv1.JobComplete, 5)
	if p = decide(observed{cron: c, jobs: []*batchv1.Job{ended}, now: noon}); !p.status.LastSuccessfulTime.Equal(ended.Status.CompletionTime) {
		t.Errorf("last success %v", p.status.LastSuccessfulTime)
	}
}
