package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api/cron"
)

const (
	mostParallel    = 100_000 // of an indexed job: an index a pod, all in one status field
	longestCronJob  = 52      // leaves room for the time in a job's name
	mostPolicyRules = 20
	mostExitCodes   = 255
)

func validateJob(o Object) field.ErrorList {
	j, p := o.(*batchv1.Job), field.NewPath("spec")
	errs := validateJobSpec(&j.Spec, p)
	if j.Spec.Selector == nil {
		errs = append(errs, field.Required(p.Child("selector"), ""))
	}
	if indexedJob(&j.Spec) && value(j.Spec.Completions) > 0 {
		last := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
		for _, message := range validation.IsDNS1123Label(last) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), j.Name,
				fmt.Sprintf("will not be able to create pod with invalid DNS label %s: %s", last, message)))
		}
	}
	return errs
}

func indexedJob(s *batchv1.JobSpec) bool { return value(s.CompletionMode) == batchv1.IndexedCompletion }

func validateJobSpec(s *batchv1.JobSpec, p *field.Path) (errs field.ErrorList) {
	for _, n := range []struct {
		name  string
		value *int32
	}{
		{"parallelism", s.Parallelism}, {"completions", s.Completions}, {"backoffLimit", s.BackoffLimit}, {"ttlSecondsAfterFinished", s.TTLSecondsAfterFinished},
		{"backoffLimitPerIndex", s.BackoffLimitPerIndex}, {"maxFailedIndexes", s.MaxFailedIndexes},
	} {
		if n.value != nil {
			errs = append(errs, nonNegative(int64(*n.value), p.Child(n.name))...)
		}
	}
	if s.ActiveDeadlineSeconds != nil {
		errs = append(errs, nonNegative(*s.ActiveDeadlineSeconds, p.Child("activeDeadlineSeconds"))...)
	}
	if s.CompletionMode != nil {
		errs = append(errs, oneOf(*s.CompletionMode, p.Child("completionMode"), batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)...)
	}
	errs = append(errs, validateIndexes(s, p)...)
	errs = append(errs, validatePodFailurePolicy(s, p.Child("podFailurePolicy"))...)
	errs = append(errs, validateSuccessPolicy(s, p.Child("successPolicy"))...)
	if r := s.PodReplacementPolicy; r != nil {
		at := p.Child("podReplacementPolicy")
		allowed := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
		if s.PodFailurePolicy != nil {
			allowed = allowed[:1]
		}
		if !slices.Contains(allowed, *r) {
			errs = append(errs, field.NotSupported(at, *r, allowed))
		}
	}
	errs = append(errs, validateTemplate(&s.Template, p.Child("template"))...)
	if r := s.Template.Spec.RestartPolicy; r != corev1.RestartPolicyNever && r != corev1.RestartPolicyOnFailure {
		errs = append(errs, field.Required(p.Child("template", "spec", "restartPolicy"), "valid values: \"OnFailure\", \"Never\""))
	}
	return errs
}

// validateIndexes checks what only makes sense together with indexes.
func validateIndexes(s *batchv1.JobSpec, p *field.Path) (errs field.ErrorList) {
	if !indexedJob(s) {
		for name, set := range map[string]bool{"backoffLimitPerIndex": s.BackoffLimitPerIndex != nil, "successPolicy": s.SuccessPolicy != nil} {
			if set {
				errs = append(errs, field.Invalid(p.Child(name), value(s.BackoffLimitPerIndex), "requires indexed completion mode"))
			}
		}
	} else {
		if s.Completions == nil {
			errs = append(errs, field.Required(p.Child("completions"), "when completion mode is Indexed"))
		}
		if value(s.Parallelism) > mostParallel {
			errs = append(errs, field.Invalid(p.Child("parallelism"), *s.Parallelism, "must be less than or equal to 100000 when completion mode is Indexed"))
		}
	}
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(p.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if s.MaxFailedIndexes != nil && s.Completions != nil && *s.MaxFailedIndexes > *s.Completions {
		errs = append(errs, field.Invalid(p.Child("maxFailedIndexes"), *s.MaxFailedIndexes, "must be less than or equal to completions"))
	}
	return errs
}

func validatePodFailurePolicy(s *batchv1.JobSpec, p *field.Path) (errs field.ErrorList) {
	if s.PodFailurePolicy == nil {
		return nil
	}
	if s.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		errs = append(errs, field.Invalid(p, s.Template.Spec.RestartPolicy, "only \"Never\" is supported for the restart policy of a job with a pod failure policy"))
	}
	if n := len(s.PodFailurePolicy.Rules); n > mostPolicyRules {
		errs = append(errs, field.TooMany(p.Child("rules"), n, mostPolicyRules))
	}
	for i := range s.PodFailurePolicy.Rules {
		r, at := &s.PodFailurePolicy.Rules[i], p.Child("rules").Index(i)
		errs = append(errs, oneOf(r.Action, at.Child("action"), batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
			batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)...)
		if r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Invalid(at.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
		}
		if (r.OnExitCodes == nil) == (len(r.OnPodConditions) == 0) {
			errs = append(errs, field.Invalid(at, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required, and both is not supported"))
		}
		if c := r.OnExitCodes; c != nil {
			errs = append(errs, validateExitCodes(c, &s.Template.Spec, at.Child("onExitCodes"))...)
		}
		for k, c := range r.OnPodConditions {
			errs = append(errs, required(string(c.Type), at.Child("onPodConditions").Index(k).Child("type"))...)
			errs = append(errs, oneOf(c.Status, at.Child("onPodConditions").Index(k).Child("status"),
				corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown)...)
		}
	}
	return errs
}

func validateExitCodes(c *batchv1.PodFailurePolicyOnExitCodesRequirement, pod *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	errs = oneOf(c.Operator, p.Child("operator"), batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	named := func(k corev1.Container) bool { return k.Name == *c.ContainerName }
	if c.ContainerName != nil && !slices.ContainsFunc(pod.Containers, named) && !slices.ContainsFunc(pod.InitContainers, named) {
		errs = append(errs, field.Invalid(p.Child("containerName"), *c.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	at := p.Child("values")
	switch {
	case len(c.Values) == 0:
		errs = append(errs, field.Invalid(at, c.Values, "at least one value is required"))
	case len(c.Values) > mostExitCodes:
		errs = append(errs, field.TooMany(at, len(c.Values), mostExitCodes))
	case !slices.IsSorted(c.Values):
		errs = append(errs, field.Invalid(at, c.Values, "must be ordered"))
	}
	for i, n := range c.Values {
		if i > 0 && n == c.Values[i-1] {
			errs = append(errs, field.Duplicate(at.Index(i), n))
		}
		if n == 0 && c.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
			errs = append(errs, field.Invalid(at.Index(i), n, "must not be 0 for the In operator"))
		}
	}
	return errs
}

func validateSuccessPolicy(s *batchv1.JobSpec, p *field.Path) (errs field.ErrorList) {
	if s.SuccessPolicy == nil {
		return nil
	}
	switch n := len(s.SuccessPolicy.Rules); {
	case n == 0:
		errs = append(errs, field.Required(p.Child("rules"), "at least one rules must be specified when the successPolicy is specified"))
	case n > mostPolicyRules:
		errs = append(errs, field.TooMany(p.Child("rules"), n, mostPolicyRules))
	}
	for i := range s.SuccessPolicy.Rules {
		r, at := &s.SuccessPolicy.Rules[i], p.Child("rules").Index(i)
		if r.SucceededCount == nil && r.SucceededIndexes == nil {
			errs = append(errs, field.Required(at, "at least one of succeededCount or succeededIndexes must be specified"))
		}
		total := int(value(s.Completions))
		if r.SucceededIndexes != nil {
			var err error
			if total, err = countIndexes(*r.SucceededIndexes, total); err != nil {
				errs = append(errs, field.Invalid(at.Child("succeededIndexes"), *r.SucceededIndexes, "error parsing succeededIndexes: "+err.Error()))
				continue
			}
		}
		if n := r.SucceededCount; n != nil {
			if *n <= 0 || int(*n) > total {
				errs = append(errs, field.Invalid(at.Child("succeededCount"), *n,
					fmt.Sprintf("must be positive and less than or equal to %d, the number of indexes it is about", total)))
			}
		}
	}
	return errs
}

// countIndexes counts the indexes in "1,3-5,7", which must rise and stay below limit.
func countIndexes(text string, limit int) (n int, err error) {
	before := -1
	for part := range strings.SplitSeq(text, ",") {
		first, last := 0, 0
		if _, err := fmt.Sscanf(part, "%d-%d", &first, &last); err != nil {
			if _, err := fmt.Sscanf(part, "%d", &first); err != nil || strings.Contains(part, "-") {
				return 0, fmt.Errorf("cannot convert string to integer for index: %q", part)
			}
			last = first
		}
		if first <= before || last < first || last >= limit {
			return 0, fmt.Errorf("indexes must rise and be below %d: %q", limit, part)
		}
		n, before = n+last-first+1, last
	}
	return n, nil
}

func validateJobUpdate(o, old Object) field.ErrorList {
	j, was, p := o.(*batchv1.Job), old.(*batchv1.Job), field.NewPath("spec")
	errs := validateJob(o)
	errs = append(errs, immutableSelector(j.Spec.Selector, was.Spec.Selector)...)
	errs = append(errs, immutable(j.Spec.CompletionMode, was.Spec.CompletionMode, p.Child("completionMode"))...)
	errs = append(errs, immutable(j.Spec.PodFailurePolicy, was.Spec.PodFailurePolicy, p.Child("podFailurePolicy"))...)
	errs = append(errs, immutable(j.Spec.BackoffLimitPerIndex, was.Spec.BackoffLimitPerIndex, p.Child("backoffLimitPerIndex"))...)
	errs = append(errs, immutable(j.Spec.ManagedBy, was.Spec.ManagedBy, p.Child("managedBy"))...)
	errs = append(errs, immutable(j.Spec.SuccessPolicy, was.Spec.SuccessPolicy, p.Child("successPolicy"))...)
	if !elastic(&j.Spec, &was.Spec) {
		errs = append(errs, immutable(j.Spec.Completions, was.Spec.Completions, p.Child("completions"))...)
	}
	if !value(was.Spec.Suspend) || was.Status.StartTime != nil {
		errs = append(errs, immutable(j.Spec.Template, was.Spec.Template, p.Child("template"))...)
	}
	return errs
}

// elastic says that an indexed job changes its size as it may: completions and parallelism together.
func elastic(s, was *batchv1.JobSpec) bool {
	return indexedJob(s) && s.Completions != nil && was.Completions != nil && equal(s.Completions, s.Parallelism) && equal(was.Completions, was.Parallelism)
}

func validateCronJob(o Object) field.ErrorList { return validateCronJobSince(o, nil) }

// validateCronJobUpdate lets a schedule and a zone be that a former version took.
func validateCronJobUpdate(o, old Object) field.ErrorList {
	return validateCronJobSince(o, old.(*batchv1.CronJob))
}

func validateCronJobSince(o Object, was *batchv1.CronJob) field.ErrorList {
	c, spec := o.(*batchv1.CronJob), field.NewPath("spec")
	errs := required(c.Spec.Schedule, spec.Child("schedule"))
	if c.Spec.Schedule != "" && (was == nil || was.Spec.Schedule != c.Spec.Schedule) {
		if _, err := cron.Parse(c.Spec.Schedule); err != nil {
			errs = append(errs, field.Invalid(spec.Child("schedule"), c.Spec.Schedule, err.Error()))
		}
	}
	if z := c.Spec.TimeZone; z != nil && (was == nil || !equal(was.Spec.TimeZone, z)) {
		switch _, err := time.LoadLocation(*z); {
		case *z == "":
			errs = append(errs, field.Invalid(spec.Child("timeZone"), *z, "must be nil or non-empty string"))
		case strings.EqualFold(*z, "Local"):
			errs = append(errs, field.Invalid(spec.Child("timeZone"), *z,
				"timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
		case err != nil:
			errs = append(errs, field.Invalid(spec.Child("timeZone"), *z, err.Error()))
		}
	}
	if n := c.Spec.StartingDeadlineSeconds; n != nil {
		errs = append(errs, nonNegative(*n, spec.Child("startingDeadlineSeconds"))...)
	}
	errs = append(errs, nonNegative(int64(value(c.Spec.SuccessfulJobsHistoryLimit)), spec.Child("successfulJobsHistoryLimit"))...)
	errs = append(errs, nonNegative(int64(value(c.Spec.FailedJobsHistoryLimit)), spec.Child("failedJobsHistoryLimit"))...)
	errs = append(errs, oneOf(c.Spec.ConcurrencyPolicy, spec.Child("concurrencyPolicy"), batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	if len(c.Name) > longestCronJob {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters"))
	}
	at := spec.Child("jobTemplate", "spec")
	if value(c.Spec.JobTemplate.Spec.ManualSelector) {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), true, []string{"nil", "false"}))
	}
	return append(errs, validateJobSpec(&c.Spec.JobTemplate.Spec, at)...)
}

// withClaims is a template as its pods will have it: a volume for each claim.
func withClaims(t *corev1.PodTemplateSpec, claims []corev1.PersistentVolumeClaim) *corev1.PodTemplateSpec {
	if len(claims) == 0 {
		return t
	}
	out := *t
	out.Spec.Volumes = slices.Clone(t.Spec.Volumes)
	for i := range claims {
		name := claims[i].Name
		if !slices.ContainsFunc(t.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name }) {
			out.Spec.Volumes = append(out.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
		}
	}
	return &out
}

func validateStatefulSet(o Object) field.ErrorList {
	s, p := &o.(*appsv1.StatefulSet).Spec, field.NewPath("spec")
	errs := validateWorkload(s.Replicas, s.Selector, withClaims(&s.Template, s.VolumeClaimTemplates), true)
	errs = append(errs, nonNegative(int64(s.MinReadySeconds), p.Child("minReadySeconds"))...)
	errs = append(errs, nonNegative(int64(value(s.RevisionHistoryLimit)), p.Child("revisionHistoryLimit"))...)
	errs = append(errs, oneOf(s.PodManagementPolicy, p.Child("podManagementPolicy"), appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)...)
	if s.Ordinals != nil {
		errs = append(errs, nonNegative(int64(s.Ordinals.Start), p.Child("ordinals", "start"))...)
	}
	if r := s.PersistentVolumeClaimRetentionPolicy; r != nil {
		at := p.Child("persistentVolumeClaimRetentionPolicy")
		const retain, remove = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		errs = append(errs, oneOf(r.WhenDeleted, at.Child("whenDeleted"), retain, remove)...)
		errs = append(errs, oneOf(r.WhenScaled, at.Child("whenScaled"), retain, remove)...)
	}
	at := p.Child("updateStrategy")
	errs = append(errs, oneOf(s.UpdateStrategy.Type, at.Child("type"), appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType)...)
	r := s.UpdateStrategy.RollingUpdate
	if r == nil {
		return errs
	}
	if at = at.Child("rollingUpdate"); s.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return append(errs, field.Invalid(at, r, "only allowed for updateStrategy 'RollingUpdate'"))
	}
	errs = append(errs, nonNegative(int64(value(r.Partition)), at.Child("partition"))...)
	return append(errs, positiveCount(r.MaxUnavailable, at.Child("maxUnavailable"))...)
}

// positiveCount is a count or percentage that must not be nothing, nor more than all.
func positiveCount(v *intstr.IntOrString, p *field.Path) field.ErrorList {
	errs := countOrPercent(v, p)
	if v == nil || len(errs) > 0 {
		return errs
	}
	percent, is := percentOf(v)
	switch {
	case is && percent > 100:
		errs = append(errs, field.Invalid(p, v, "must not be greater than 100%"))
	case is && percent == 0 || !is && v.IntVal == 0:
		errs = append(errs, field.Invalid(p, v, "cannot be 0"))
	}
	return errs
}

func validateDaemonSet(o Object) field.ErrorList {
	d, p := &o.(*appsv1.DaemonSet).Spec, field.NewPath("spec")
	errs := validateWorkload(nil, d.Selector, &d.Template, true)
	errs = append(errs, nonNegative(int64(d.MinReadySeconds), p.Child("minReadySeconds"))...)
	errs = append(errs, nonNegative(int64(value(d.RevisionHistoryLimit)), p.Child("revisionHistoryLimit"))...)
	at := p.Child("updateStrategy")
	errs = append(errs, oneOf(d.UpdateStrategy.Type, at.Child("type"), appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType)...)
	r := d.UpdateStrategy.RollingUpdate
	if r == nil || d.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return errs
	}
	at = at.Child("rollingUpdate")
	errs = append(errs, countOrPercent(r.MaxUnavailable, at.Child("maxUnavailable"))...)
	errs = append(errs, countOrPercent(r.MaxSurge, at.Child("maxSurge"))...)
	surges, lacks := something(r.MaxSurge), something(r.MaxUnavailable)
	switch {
	case surges && lacks:
		errs = append(errs, field.Invalid(at.Child("maxSurge"), r.MaxSurge, "may not be set when maxUnavailable is non-zero"))
	case !surges && !lacks:
		errs = append(errs, field.Required(at.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func something(v *intstr.IntOrString) bool {
	percent, is := percentOf(v)
	return v != nil && (is && percent > 0 || !is && v.IntVal > 0)
}

func validateRevisionUpdate(o, old Object) field.ErrorList {
	r, was := o.(*appsv1.ControllerRevision), old.(*appsv1.ControllerRevision)
	return append(nonNegative(r.Revision, field.NewPath("revision")), immutable(string(r.Data.Raw), string(was.Data.Raw), field.NewPath("data"))...)
}
