package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// When a job counts as failed (KEP-3329) and when as done (KEP-3998).

var (
	failureActions = []batchv1.PodFailurePolicyAction{batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
		batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore}
	exitCodeOperators = []batchv1.PodFailurePolicyOnExitCodesOperator{batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn}
	conditionStatuses = []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
)

// listed is oneOf that names the values to whoever gave none.
func listed[T ~string](v T, p *field.Path, allowed []T) field.ErrorList {
	switch {
	case v == "":
		return field.ErrorList{field.Required(p, fmt.Sprintf("valid values: %q", allowed))}
	case !slices.Contains(allowed, v):
		return field.ErrorList{field.NotSupported(p, v, allowed)}
	}
	return nil
}

func validatePodFailurePolicy(s *batchv1.JobSpec, p *field.Path) (errs field.ErrorList) {
	if s.PodFailurePolicy == nil {
		return nil
	}
	errs = atMost(len(s.PodFailurePolicy.Rules), mostPolicyRules, p.Child("rules"))
	for i := range s.PodFailurePolicy.Rules {
		errs = append(errs, validateFailureRule(&s.PodFailurePolicy.Rules[i], s, p.Child("rules").Index(i))...)
	}
	return errs
}

func validateFailureRule(r *batchv1.PodFailurePolicyRule, s *batchv1.JobSpec, p *field.Path) field.ErrorList {
	errs := listed(r.Action, p.Child("action"), failureActions)
	if r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(p.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
	}
	if r.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(r.OnExitCodes, &s.Template.Spec, p.Child("onExitCodes"))...)
	}
	at := p.Child("onPodConditions")
	errs = append(errs, atMost(len(r.OnPodConditions), mostPolicyConditions, at)...)
	for i, c := range r.OnPodConditions {
		errs = append(errs, qualifiedName(string(c.Type), at.Index(i).Child("type"))...)
		errs = append(errs, listed(c.Status, at.Index(i).Child("status"), conditionStatuses)...)
	}
	switch codes, conditions := r.OnExitCodes != nil, len(r.OnPodConditions) > 0; {
	case codes && conditions:
		errs = append(errs, field.Invalid(p, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case !codes && !conditions:
		errs = append(errs, field.Invalid(p, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

func validateExitCodes(c *batchv1.PodFailurePolicyOnExitCodesRequirement, pod *corev1.PodSpec, p *field.Path) field.ErrorList {
	errs := listed(c.Operator, p.Child("operator"), exitCodeOperators)
	named := func(k corev1.Container) bool { return k.Name == *c.ContainerName }
	if c.ContainerName != nil && !slices.ContainsFunc(pod.Containers, named) && !slices.ContainsFunc(pod.InitContainers, named) {
		errs = append(errs, field.Invalid(p.Child("containerName"), *c.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	at := p.Child("values")
	if len(c.Values) == 0 {
		errs = append(errs, field.Invalid(at, c.Values, "at least one value is required"))
	}
	errs = append(errs, atMost(len(c.Values), mostExitCodes, at)...)
	for i, n := range c.Values {
		if n == 0 && c.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
			errs = append(errs, field.Invalid(at.Index(i), n, "must not be 0 for the In operator"))
		}
		if slices.Contains(c.Values[:i], n) {
			errs = append(errs, field.Duplicate(at.Index(i), n))
		}
	}
	if !slices.IsSorted(c.Values) {
		errs = append(errs, field.Invalid(at, c.Values, "must be ordered"))
	}
	return errs
}

func validateSuccessPolicy(s *batchv1.JobSpec, p *field.Path) (errs field.ErrorList) {
	switch {
	case s.SuccessPolicy == nil:
		return nil
	case !indexedJob(s):
		return field.ErrorList{field.Invalid(p, *s.SuccessPolicy, "requires indexed completion mode")}
	}
	rules := p.Child("rules")
	if len(s.SuccessPolicy.Rules) == 0 {
		errs = append(errs, field.Required(rules, "at least one rules must be specified when the successPolicy is specified"))
	}
	errs = append(errs, atMost(len(s.SuccessPolicy.Rules), mostPolicyRules, rules)...)
	for i := range s.SuccessPolicy.Rules {
		errs = append(errs, validateSuccessRule(&s.SuccessPolicy.Rules[i], value(s.Completions), rules.Index(i))...)
	}
	return errs
}

func validateSuccessRule(r *batchv1.SuccessPolicyRule, completions int32, p *field.Path) (errs field.ErrorList) {
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		errs = append(errs, field.Required(p, "at least one of succeededCount or succeededIndexes must be specified"))
	}
	total := 0
	if text := r.SucceededIndexes; text != nil {
		at := p.Child("succeededIndexes")
		if len(*text) > longestIndexes {
			errs = append(errs, field.TooLong(at, "", longestIndexes))
		}
		ranges, err := parseIndexes(*text, completions)
		if err != nil {
			errs = append(errs, field.Invalid(at, *text, "error parsing succeededIndexes: "+err.Error()))
		}
		for _, r := range ranges {
			total += r[1] - r[0] + 1
		}
	}
	n, at := r.SucceededCount, p.Child("succeededCount")
	if n == nil {
		return errs
	}
	errs = append(errs, nonNegative(int64(*n), at)...)
	if *n > completions {
		errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions)))
	}
	if r.SucceededIndexes != nil && int(*n) > total {
		errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
	}
	return errs
}

// parseIndexes reads "1,3-5,7": ranges of indexes, first and last, that rise and stay below limit.
func parseIndexes(text string, limit int32) (ranges [][2]int, err error) {
	if text == "" {
		return nil, nil
	}
	before := -1
	for part := range strings.SplitSeq(text, ",") {
		ends := strings.Split(part, "-")
		if len(ends) > 2 {
			return nil, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", part)
		}
		var r [2]int
		for i := range r {
			end := ends[min(i, len(ends)-1)]
			if r[i], err = strconv.Atoi(end); err != nil {
				return nil, fmt.Errorf("cannot convert string to integer for index: %q", end)
			}
			if r[i] >= int(limit) {
				return nil, fmt.Errorf("too large index: %q", end)
			}
		}
		switch {
		case len(ends) == 2 && r[0] >= r[1]:
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", r[0], r[1])
		case before >= r[0]:
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", before, r[0])
		}
		ranges, before = append(ranges, r), r[1]
	}
	return ranges, nil
}

// overlap is the first index that both lists of ranges have.
func overlap(a, b [][2]int) (index int, found bool) {
	for len(a) > 0 && len(b) > 0 {
		if a[0][0] <= b[0][1] && b[0][0] <= a[0][1] {
			return max(a[0][0], b[0][0]), true
		}
		if a[0][0] <= b[0][0] {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return 0, false
}
