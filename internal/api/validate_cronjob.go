package api

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api/cron"
)

// longestCronJob leaves room for the time in a job's name.
const longestCronJob = 52

func validateCronJob(o Object) field.ErrorList { return validateCronJobSince(o, nil) }

// validateCronJobUpdate lets a schedule and a zone be that a former version took.
func validateCronJobUpdate(o, old Object) field.ErrorList {
	return validateCronJobSince(o, old.(*batchv1.CronJob))
}

func validateCronJobSince(o Object, was *batchv1.CronJob) field.ErrorList {
	c, spec := o.(*batchv1.CronJob), field.NewPath("spec")
	errs := validateSchedule(c, was, spec.Child("schedule"))
	if z := c.Spec.TimeZone; z != nil && (was == nil || !equal(was.Spec.TimeZone, z)) {
		errs = append(errs, validateZone(*z, spec.Child("timeZone"))...)
	}
	errs = append(errs, counts(spec, counted[int64]{"startingDeadlineSeconds", c.Spec.StartingDeadlineSeconds})...)
	errs = append(errs, counts(spec, counted[int32]{"successfulJobsHistoryLimit", c.Spec.SuccessfulJobsHistoryLimit},
		counted[int32]{"failedJobsHistoryLimit", c.Spec.FailedJobsHistoryLimit})...)
	errs = append(errs, oneOf(c.Spec.ConcurrencyPolicy, spec.Child("concurrencyPolicy"), batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	if was == nil && len(c.Name) > longestCronJob {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, fmt.Sprintf("must be no more than %d characters", longestCronJob)))
	}
	at := spec.Child("jobTemplate", "spec")
	errs = append(errs, validateJobSpec(&c.Spec.JobTemplate.Spec, at)...)
	if c.Spec.JobTemplate.Spec.Selector != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), c.Spec.JobTemplate.Spec.Selector, "`selector` will be auto-generated"))
	}
	if value(c.Spec.JobTemplate.Spec.ManualSelector) {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), true, []string{"nil", "false"}))
	}
	return errs
}

// validateSchedule: a zone goes into its own field. A schedule that has one from before may keep it.
func validateSchedule(c, was *batchv1.CronJob, p *field.Path) field.ErrorList {
	s := c.Spec.Schedule
	switch zoned := strings.Contains(s, "TZ"); {
	case s == "":
		return field.ErrorList{field.Required(p, "")}
	case zoned && (was == nil || !strings.Contains(was.Spec.Schedule, "TZ")):
		return field.ErrorList{field.Invalid(p, s, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")}
	case zoned && c.Spec.TimeZone != nil:
		return field.ErrorList{field.Invalid(p, s, "cannot use both timeZone field and TZ or CRON_TZ in schedule")}
	case zoned:
		return nil
	}
	if _, err := cron.Parse(s); err != nil {
		return field.ErrorList{field.Invalid(p, s, err.Error())}
	}
	return nil
}

// zonePart is what stands between the slashes of a zone's name.
var zonePart = regexp.MustCompile(`^[A-Za-z._+0-9-]{1,14}$`)

func validateZone(z string, p *field.Path) field.ErrorList {
	if z == "" {
		return field.ErrorList{field.Invalid(p, z, "timeZone must be nil or non-empty string")}
	}
	for part := range strings.SplitSeq(z, "/") {
		if part == "." || part == ".." || strings.HasPrefix(part, "-") || !zonePart.MatchString(part) {
			return field.ErrorList{field.Invalid(p, z, "unknown time zone "+z)}
		}
	}
	if strings.EqualFold(z, "Local") {
		return field.ErrorList{field.Invalid(p, z, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")}
	}
	if _, err := time.LoadLocation(z); err != nil {
		return field.ErrorList{field.Invalid(p, z, err.Error())}
	}
	return nil
}
