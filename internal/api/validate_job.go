package api

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Upstream's limits of a job.
const (
	mostParallel         = 100_000 // of an indexed job: an index a pod, all in one status field
	mostFailedIndexes    = 100_000
	manyCompletions      = 100_000 // above these, failing indexes are counted out more strictly
	mostParallelOfMany   = 10_000
	mostFailedOfMany     = 10_000
	longestManagedBy     = 63
	mostPolicyRules      = 20
	mostPolicyConditions = 20
	mostExitCodes        = 255
	longestIndexes       = 64 << 10
)

func validateJob(o Object) field.ErrorList {
	j, p := o.(*batchv1.Job), field.NewPath("spec")
	errs := generatedLabels(j, p)
	errs = append(errs, validateJobSpec(&j.Spec, p)...)
	switch selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); {
	case j.Spec.Selector == nil:
		errs = append(errs, field.Required(p.Child("selector"), ""))
	case err != nil:
		errs = append(errs, labelSelector(j.Spec.Selector, p.Child("selector"))...)
	case !selector.Matches(labels.Set(j.Spec.Template.Labels)):
		errs = append(errs, field.Invalid(p.Child("template", "metadata", "labels"), j.Spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	if indexedJob(&j.Spec) && value(j.Spec.Completions) > 0 {
		last := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
		if len(validation.IsDNS1123Label(last)) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), j.Name, "will not able to create pod with invalid DNS label: "+last))
		}
	}
	return errs
}

// generatedLabels: unless its user takes care of them, a job's pods carry its name and uid, and its selector asks for no more.
func generatedLabels(j *batchv1.Job, spec *field.Path) (errs field.ErrorList) {
	if value(j.Spec.ManualSelector) || j.UID == "" || j.Spec.Selector == nil { // a selector that is missing is told of for itself
		return nil
	}
	name, uid, at := j.Name, string(j.UID), spec.Child("template", "metadata", "labels")
	given := labels.Set{}
	for _, l := range [...][2]string{{legacyControllerUID, uid}, {legacyJobName, name}, {batchv1.ControllerUidLabel, uid}, {batchv1.JobNameLabel, name}} {
		given[l[0]] = l[1]
		switch is, found := j.Spec.Template.Labels[l[0]]; {
		case !found:
			errs = append(errs, field.Required(at.Key(l[0]), fmt.Sprintf("must be '%s'", l[1])))
		case is != l[1]:
			errs = append(errs, field.Invalid(at.Key(l[0]), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", l[1])))
		}
	}
	if selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !selector.Matches(given) {
		errs = append(errs, field.Invalid(spec.Child("selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

func indexedJob(s *batchv1.JobSpec) bool { return value(s.CompletionMode) == batchv1.IndexedCompletion }

func validateJobSpec(s *batchv1.JobSpec, p *field.Path) (errs field.ErrorList) {
	for _, n := range [...]struct {
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
	if m := s.ManagedBy; m != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(p.Child("managedBy"), *m)...)
		if len(*m) > longestManagedBy {
			errs = append(errs, field.TooLong(p.Child("managedBy"), "", longestManagedBy))
		}
	}
	modes := []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion}
	if s.CompletionMode != nil && !slices.Contains(modes, *s.CompletionMode) {
		errs = append(errs, field.NotSupported(p.Child("completionMode"), *s.CompletionMode, modes))
	}
	errs = append(errs, validateIndexes(s, p)...)
	errs = append(errs, validatePodFailurePolicy(s, p.Child("podFailurePolicy"))...)
	errs = append(errs, validateSuccessPolicy(s, p.Child("successPolicy"))...)
	errs = append(errs, validateReplacementPolicy(s, p.Child("podReplacementPolicy"))...)
	errs = append(errs, validateTemplate(&s.Template, p.Child("template"))...)
	return append(errs, jobRestarts(s, p.Child("template", "spec", "restartPolicy"))...)
}

func validateReplacementPolicy(s *batchv1.JobSpec, p *field.Path) field.ErrorList {
	allowed := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
	if s.PodFailurePolicy != nil {
		allowed = allowed[:1]
	}
	if r := s.PodReplacementPolicy; r != nil && !slices.Contains(allowed, *r) {
		return field.ErrorList{field.NotSupported(p, *r, allowed)}
	}
	return nil
}

// jobRestarts: a job's pods end. Whoever says nothing gets Always by default, so that counts as nothing said.
func jobRestarts(s *batchv1.JobSpec, p *field.Path) field.ErrorList {
	switch r := s.Template.Spec.RestartPolicy; {
	case r == "" || r == corev1.RestartPolicyAlways:
		return field.ErrorList{field.Required(p, `valid values: "OnFailure", "Never"`)}
	case r != corev1.RestartPolicyNever && r != corev1.RestartPolicyOnFailure:
		return field.ErrorList{field.NotSupported(p, r, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})}
	case r != corev1.RestartPolicyNever && s.PodFailurePolicy != nil:
		return field.ErrorList{field.Invalid(p, r, `only "Never" is supported when podFailurePolicy is specified`)}
	}
	return nil
}

// validateIndexes checks what only makes sense together with indexes.
func validateIndexes(s *batchv1.JobSpec, p *field.Path) (errs field.ErrorList) {
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(p.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if !indexedJob(s) {
		for _, n := range [...]struct {
			name  string
			value *int32
		}{{"backoffLimitPerIndex", s.BackoffLimitPerIndex}, {"maxFailedIndexes", s.MaxFailedIndexes}} {
			if n.value != nil {
				errs = append(errs, field.Invalid(p.Child(n.name), *n.value, "requires indexed completion mode"))
			}
		}
		return errs
	}
	most := func(name string, n *int32, limit int32, detail string) {
		if n != nil && *n > limit {
			errs = append(errs, field.Invalid(p.Child(name), *n, detail))
		}
	}
	if s.Completions == nil {
		errs = append(errs, field.Required(p.Child("completions"), "when completion mode is Indexed"))
	} else {
		most("maxFailedIndexes", s.MaxFailedIndexes, *s.Completions, "must be less than or equal to completions")
	}
	most("parallelism", s.Parallelism, mostParallel, fmt.Sprintf("must be less than or equal to %d when completion mode is Indexed", mostParallel))
	most("maxFailedIndexes", s.MaxFailedIndexes, mostFailedIndexes, fmt.Sprintf("must be less than or equal to %d", mostFailedIndexes))
	if value(s.Completions) <= manyCompletions || s.BackoffLimitPerIndex == nil {
		return errs
	}
	const ofMany = "must be less than or equal to %d when completions are above %d and used with backoff limit per index"
	if s.MaxFailedIndexes == nil {
		errs = append(errs, field.Required(p.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", manyCompletions)))
	}
	most("parallelism", s.Parallelism, mostParallelOfMany, fmt.Sprintf(ofMany, mostParallelOfMany, manyCompletions))
	most("maxFailedIndexes", s.MaxFailedIndexes, mostFailedOfMany, fmt.Sprintf(ofMany, mostFailedOfMany, manyCompletions))
	return errs
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
	errs = append(errs, completionsUpdate(&j.Spec, &was.Spec, p.Child("completions"))...)
	return append(errs, immutable(&j.Spec.Template, mutableTemplate(j, was), p.Child("template"))...)
}

// completionsUpdate lets an indexed job change its size, with as many pods at once as there are indexes (KEP-3715).
func completionsUpdate(s, was *batchv1.JobSpec, p *field.Path) field.ErrorList {
	switch {
	case !indexedJob(s):
		return immutable(s.Completions, was.Completions, p)
	case equal(s.Completions, was.Completions) || s.Completions == nil || *s.Completions == value(s.Parallelism):
		return nil
	}
	return field.ErrorList{field.Invalid(p, *s.Completions, "can only be modified in tandem with spec.parallelism")}
}

// mutableTemplate is the old job's template with what a job that is at rest may change taken from the new one: where its pods may
// go (KEP-2926) and what they ask for (KEP-5440).
func mutableTemplate(j, was *batchv1.Job) *corev1.PodTemplateSpec {
	if !atRest(was) {
		return &was.Spec.Template
	}
	left, now := was.Spec.Template.DeepCopy(), &j.Spec.Template
	left.Labels, left.Annotations = now.Labels, now.Annotations
	left.Spec.NodeSelector, left.Spec.Tolerations, left.Spec.SchedulingGates = now.Spec.NodeSelector, now.Spec.Tolerations, now.Spec.SchedulingGates
	left.Spec.Affinity = withNodeAffinity(left.Spec.Affinity, now.Spec.Affinity)
	TakeResources(left.Spec.Containers, now.Spec.Containers)
	TakeResources(left.Spec.InitContainers, now.Spec.InitContainers)
	return left
}

// atRest says that a job is suspended and none of its pods is left.
func atRest(j *batchv1.Job) bool {
	return value(j.Spec.Suspend) && j.Status.Active == 0 && (j.Status.StartTime == nil || jobIs(&j.Status, batchv1.JobSuspended))
}

// TakeResources gives containers the resources of those of the same place and name.
func TakeResources(to, from []corev1.Container) {
	for i := range min(len(to), len(from)) {
		if to[i].Name == from[i].Name {
			to[i].Resources = from[i].Resources
		}
	}
}
