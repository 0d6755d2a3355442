package job

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	indexVariable = "JOB_COMPLETION_INDEX"
	longestPrefix = 58 // of a generated name
)

// newPod is a pod of the job; index is unknown for a job without them, before the last failed pod of the index, if that still matters.
func newPod(j *batchv1.Job, index int, before *corev1.Pod) *corev1.Pod {
	t := j.Spec.Template.DeepCopy()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: j.Namespace, GenerateName: j.Name + "-", Labels: maps.Clone(t.Labels), Annotations: maps.Clone(t.Annotations), Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(j, gvk)},
		},
		Spec: t.Spec,
	}
	if !slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) {
		p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	}
	if index == unknown {
		return p
	}
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	number := strconv.Itoa(index)
	p.Annotations[batchv1.JobCompletionIndexAnnotation], p.Labels[batchv1.JobCompletionIndexAnnotation] = number, number
	p.Spec.Hostname = j.Name + "-" + number
	p.GenerateName = j.Name[:min(len(j.Name), longestPrefix-len(number)-2)] + "-" + number + "-"
	tellIndex(p.Spec.InitContainers)
	tellIndex(p.Spec.Containers)
	if j.Spec.BackoffLimitPerIndex != nil {
		noteFailures(j, p, before)
	}
	return p
}

func tellIndex(containers []corev1.Container) {
	for i := range containers {
		c := &containers[i]
		if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == indexVariable }) {
			c.Env = append(c.Env, corev1.EnvVar{Name: indexVariable, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{
				APIVersion: "v1", FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation),
			}}})
		}
	}
}

// noteFailures writes on a pod how often its index has failed before it.
func noteFailures(j *batchv1.Job, p, before *corev1.Pod) {
	n, ignored := 0, 0
	if before != nil {
		n, ignored = failuresBefore(before, batchv1.JobIndexFailureCountAnnotation), failuresBefore(before, batchv1.JobIndexIgnoredFailureCountAnnotation)
		if judge(j.Spec.PodFailurePolicy, before).counted() {
			n++
		} else {
			ignored++
		}
	}
	p.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(n)
	if ignored > 0 {
		p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(ignored)
	}
}

func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }
