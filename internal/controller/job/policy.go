package job

import (
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// verdict is what a pod failure policy says about one failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction // "" if no rule is about it
	message string                         // for FailJob
}

// counted says whether the failure counts towards a back-off limit.
func (v verdict) counted() bool { return v.action != batchv1.PodFailurePolicyActionIgnore }

// judge finds the first rule that is about a failed pod.
func judge(policy *batchv1.PodFailurePolicy, p *corev1.Pod) verdict {
	if policy == nil {
		return verdict{}
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		if rule.OnExitCodes != nil {
			if c := exited(rule.OnExitCodes, p); c != nil {
				return verdict{rule.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d",
					c.Name, p.Namespace, p.Name, c.State.Terminated.ExitCode, rule.Action, i)}
			}
			continue
		}
		if c := conditioned(rule.OnPodConditions, p); c != nil {
			return verdict{rule.Action, fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d", p.Namespace, p.Name, c.Type, rule.Action, i)}
		}
	}
	return verdict{}
}

// exited finds a container that ended with one of the codes. Success (0) is never looked at.
func exited(r *batchv1.PodFailurePolicyOnExitCodesRequirement, p *corev1.Pod) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			c := &list[i]
			if c.State.Terminated == nil || c.State.Terminated.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != c.Name {
				continue
			}
			if slices.Contains(r.Values, c.State.Terminated.ExitCode) == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return c
			}
		}
	}
	return nil
}

func conditioned(patterns []batchv1.PodFailurePolicyOnPodConditionsPattern, p *corev1.Pod) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		for _, pattern := range patterns {
			status := pattern.Status
			if status == "" {
				status = corev1.ConditionTrue
			}
			if c.Type == pattern.Type && c.Status == status {
				return c
			}
		}
	}
	return nil
}

// succeededBy finds the first rule of a success policy that the succeeded indexes meet.
func succeededBy(policy *batchv1.SuccessPolicy, completions int, succeeded indexes) (message string, met bool) {
	if policy == nil {
		return "", false
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		have, want := succeeded.total(), 0
		if rule.SucceededIndexes != nil {
			required := parseIndexes(*rule.SucceededIndexes, completions)
			have, want = required.common(succeeded), required.total()
		}
		if rule.SucceededCount != nil {
			want = int(*rule.SucceededCount)
		}
		if want > 0 && have >= want {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}

// onlyFailed says whether a pod is replaced only once it has ended, rather than as soon as it is being deleted.
func onlyFailed(j *batchv1.Job) bool {
	return j.Spec.PodReplacementPolicy != nil && *j.Spec.PodReplacementPolicy == batchv1.Failed
}

// failed says whether a pod has failed. Where replacements don't wait, a pod that is being deleted has: it may never get to say so itself.
func failed(j *batchv1.Job, p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || !onlyFailed(j) && p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded
}

// indexFailed says whether a failed pod was its index's last chance.
func indexFailed(j *batchv1.Job, p *corev1.Pod) bool {
	if !failed(j, p) {
		return false
	}
	v := judge(j.Spec.PodFailurePolicy, p)
	return v.action == batchv1.PodFailurePolicyActionFailIndex ||
		v.counted() && failuresBefore(p, batchv1.JobIndexFailureCountAnnotation) >= int(*j.Spec.BackoffLimitPerIndex)
}

// failuresBefore reads how often a pod's index had failed when the pod was made.
func failuresBefore(p *corev1.Pod, annotation string) int {
	n, err := strconv.Atoi(p.Annotations[annotation])
	if err != nil {
		return 0
	}
	return n
}
