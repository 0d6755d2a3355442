package api

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func appsRows() []*Resource {
	return []*Resource{
		of[appsv1.Deployment, appsv1.DeploymentList](Resource{
			Warn:  warnTemplate(func(o Object) *corev1.PodTemplateSpec { return &o.(*appsv1.Deployment).Spec.Template }, "spec", "template"),
			Group: "apps", Version: "v1", Kind: "Deployment", Plural: "deployments", Short: []string{"deploy"}, Categories: all, Key: "deployments", Namespaced: true,
			Status: true, StatusMeta: statusMetaOfDeployment, Generation: true, Subresources: []Subresource{scaleSubresource},
			Scale: &Scale{
				Get: func(o Object) (int32, int32, string) {
					d := o.(*appsv1.Deployment)
					return value(d.Spec.Replicas), d.Status.Replicas, metav1.FormatLabelSelector(d.Spec.Selector)
				},
				Set: func(o Object, n int32) { o.(*appsv1.Deployment).Spec.Replicas = &n },
			},
			Counts:   func(o, old Object) bool { return !maps.Equal(o.GetAnnotations(), old.GetAnnotations()) }, // its ReplicaSets get them
			Default:  func(o Object) { defaultDeployment(o.(*appsv1.Deployment)) },
			Validate: validateDeployment, ValidateUpdate: validateDeploymentUpdate, ValidateStatus: validateDeploymentStatus, Columns: deploymentColumns,
		}),
		of[appsv1.ReplicaSet, appsv1.ReplicaSetList](Resource{
			Warn:  warnTemplate(func(o Object) *corev1.PodTemplateSpec { return &o.(*appsv1.ReplicaSet).Spec.Template }, "spec", "template"),
			Group: "apps", Version: "v1", Kind: "ReplicaSet", Plural: "replicasets", Short: []string{"rs"}, Categories: all, Key: "replicasets", Namespaced: true,
			Status: true, Generation: true, Subresources: []Subresource{scaleSubresource},
			Scale: &Scale{
				Get: func(o Object) (int32, int32, string) {
					r := o.(*appsv1.ReplicaSet)
					return value(r.Spec.Replicas), r.Status.Replicas, metav1.FormatLabelSelector(r.Spec.Selector)
				},
				Set: func(o Object, n int32) { o.(*appsv1.ReplicaSet).Spec.Replicas = &n },
			},
			Fields: func(o Object) fields.Set {
				return fields.Set{"status.replicas": number(o.(*appsv1.ReplicaSet).Status.Replicas)}
			},
			Indexes:  ownerIndex,
			Default:  func(o Object) { defaultReplicaSet(o.(*appsv1.ReplicaSet)) },
			Validate: validateReplicaSet, ValidateUpdate: validateReplicaSetUpdate, ValidateStatus: validateReplicaSetStatus, Columns: replicaSetColumns,
		}),
		of[appsv1.StatefulSet, appsv1.StatefulSetList](Resource{
			Warn:  warnTemplate(func(o Object) *corev1.PodTemplateSpec { return &o.(*appsv1.StatefulSet).Spec.Template }, "spec", "template"),
			Group: "apps", Version: "v1", Kind: "StatefulSet", Plural: "statefulsets", Short: []string{"sts"}, Categories: all, Key: "statefulsets", Namespaced: true,
			Status: true, Generation: true, Subresources: []Subresource{scaleSubresource},
			Scale: &Scale{
				Get: func(o Object) (int32, int32, string) {
					s := o.(*appsv1.StatefulSet)
					return value(s.Spec.Replicas), s.Status.Replicas, metav1.FormatLabelSelector(s.Spec.Selector)
				},
				Set: func(o Object, n int32) { o.(*appsv1.StatefulSet).Spec.Replicas = &n },
			},
			Default: func(o Object) { defaultStatefulSet(o.(*appsv1.StatefulSet)) }, Columns: statefulSetColumns,
			ValidateName: labelName, Validate: validateStatefulSet, ValidateUpdate: validateStatefulSetUpdate, ValidateStatus: validateStatefulSetStatus,
		}),
		of[appsv1.DaemonSet, appsv1.DaemonSetList](Resource{
			Warn:  warnTemplate(func(o Object) *corev1.PodTemplateSpec { return &o.(*appsv1.DaemonSet).Spec.Template }, "spec", "template"),
			Group: "apps", Version: "v1", Kind: "DaemonSet", Plural: "daemonsets", Short: []string{"ds"}, Categories: all, Key: "daemonsets", Namespaced: true,
			Status: true, Generation: true,
			Default: func(o Object) { defaultDaemonSet(o.(*appsv1.DaemonSet)) }, Columns: daemonSetColumns,
			Validate: validateDaemonSet,
			ValidateUpdate: func(o, old Object) field.ErrorList {
				return append(validateDaemonSet(o), immutableSelector(o.(*appsv1.DaemonSet).Spec.Selector, old.(*appsv1.DaemonSet).Spec.Selector)...)
			},
			ValidateStatus: validateDaemonSetStatus,
		}),
		of[appsv1.ControllerRevision, appsv1.ControllerRevisionList](Resource{
			Group: "apps", Version: "v1", Kind: "ControllerRevision", Plural: "controllerrevisions", Key: "controllerrevisions", Namespaced: true, Cold: true,
			Indexes: revisionOwnerIndex, Validate: validateRevision, ValidateUpdate: validateRevisionUpdate, Columns: controllerRevisionColumns,
		}),
	}
}

func batchRows() []*Resource {
	return []*Resource{
		of[batchv1.Job, batchv1.JobList](Resource{
			Warn:  warnTemplate(func(o Object) *corev1.PodTemplateSpec { return &o.(*batchv1.Job).Spec.Template }, "spec", "template"),
			Group: "batch", Version: "v1", Kind: "Job", Plural: "jobs", Categories: all, Key: "jobs", Namespaced: true, Status: true, Generation: true,
			Fields: func(o Object) fields.Set {
				return fields.Set{"status.successful": number(o.(*batchv1.Job).Status.Succeeded)}
			},
			Indexes:       ownerIndex,
			Default:       func(o Object) { defaultJob(o.(*batchv1.Job)) },
			PrepareCreate: prepareJob,
			Validate:      validateJob, ValidateUpdate: validateJobUpdate, ValidateStatus: validateJobStatus, Columns: jobColumns,
			DefaultPropagation: metav1.DeletePropagationBackground,
		}),
		of[batchv1.CronJob, batchv1.CronJobList](Resource{
			Warn: warnTemplate(func(o Object) *corev1.PodTemplateSpec { return &o.(*batchv1.CronJob).Spec.JobTemplate.Spec.Template },
				"spec", "jobTemplate", "spec", "template"),
			Group: "batch", Version: "v1", Kind: "CronJob", Plural: "cronjobs", Short: []string{"cj"}, Categories: all, Key: "cronjobs", Namespaced: true, Status: true, Generation: true,
			Default: func(o Object) { defaultCronJob(o.(*batchv1.CronJob)) }, Validate: validateCronJob, ValidateUpdate: validateCronJobUpdate, Columns: cronJobColumns,
		}),
	}
}

var ownerIndex = map[string]func(Object) []string{"owner.uid": ownerUIDs}

// revisionOwnerIndex also finds, under "", the revisions of nobody: whoever wants to adopt them would have to decode them all.
var revisionOwnerIndex = map[string]func(Object) []string{"owner.uid": func(o Object) []string {
	if uids := ownerUIDs(o); len(uids) > 0 {
		return uids
	}
	return []string{""}
}}

// ownerUIDs are those of an object's owners.
func ownerUIDs(o Object) []string {
	refs := o.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	out := make([]string, len(refs))
	for i := range refs {
		out[i] = string(refs[i].UID)
	}
	return out
}
