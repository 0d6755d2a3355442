package api

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func defaultService(s *corev1.Service) {
	fill(&s.Spec.SessionAffinity, corev1.ServiceAffinityNone)
	if s.Spec.SessionAffinity == corev1.ServiceAffinityNone {
		s.Spec.SessionAffinityConfig = nil
	} else if c := s.Spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: pointer(corev1.DefaultClientIPServiceAffinitySeconds)}}
	}
	fill(&s.Spec.Type, corev1.ServiceTypeClusterIP)
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		fill(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	external := s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if external {
		fill(&s.Spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if s.Spec.Type != corev1.ServiceTypeExternalName {
		fillNil(&s.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		fillNil(&s.Spec.AllocateLoadBalancerNodePorts, true)
	}
}

func defaultNode(n *corev1.Node) {
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
}

func defaultNamespace(n *corev1.Namespace) {
	fill(&n.Status.Phase, corev1.NamespaceActive)
	if n.Name != "" && n.Labels[corev1.LabelMetadataName] != n.Name {
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[corev1.LabelMetadataName] = n.Name
	}
}

// prepareNamespace gives a new namespace the finalizer that keeps it until it is empty.
func prepareNamespace(o Object) {
	n := o.(*corev1.Namespace)
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	for _, f := range n.Spec.Finalizers {
		if f == corev1.FinalizerKubernetes {
			return
		}
	}
	n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
}

func defaultSecret(s *corev1.Secret) { fill(&s.Type, corev1.SecretTypeOpaque) }

// foldStringData moves what was written in the clear to where it is kept.
func foldStringData(s *corev1.Secret) {
	for k, v := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

func defaultEndpoints(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			fill(&e.Subsets[i].Ports[j].Protocol, corev1.ProtocolTCP)
		}
	}
}

func defaultEndpointSlice(e *discoveryv1.EndpointSlice) {
	for i := range e.Ports {
		fillNil(&e.Ports[i].Name, "")
		fillNil(&e.Ports[i].Protocol, corev1.ProtocolTCP)
	}
}

func defaultReplicationController(rc *corev1.ReplicationController) {
	fillNil(&rc.Spec.Replicas, 1)
	if rc.Spec.Template == nil {
		return
	}
	defaultPodSpec(&rc.Spec.Template.Spec)
	if len(rc.Spec.Selector) == 0 {
		rc.Spec.Selector = rc.Spec.Template.Labels
	}
	if len(rc.Labels) == 0 {
		rc.Labels = rc.Spec.Template.Labels
	}
}

func defaultPersistentVolume(v *corev1.PersistentVolume) {
	fill(&v.Status.Phase, corev1.VolumePending)
	fill(&v.Spec.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	fillNil(&v.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
}

func defaultPersistentVolumeClaim(c *corev1.PersistentVolumeClaim) {
	fill(&c.Status.Phase, corev1.ClaimPending)
	fillNil(&c.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
}

func defaultDeployment(d *appsv1.Deployment) {
	fillNil(&d.Spec.Replicas, 1)
	fillNil(&d.Spec.RevisionHistoryLimit, 10)
	fillNil(&d.Spec.ProgressDeadlineSeconds, 600)
	fill(&d.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		fillNil(&d.Spec.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		fillNil(&d.Spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		fillNil(&d.Spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	defaultPodSpec(&d.Spec.Template.Spec)
}

func defaultReplicaSet(r *appsv1.ReplicaSet) {
	fillNil(&r.Spec.Replicas, 1)
	defaultPodSpec(&r.Spec.Template.Spec)
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	fillNil(&s.Spec.Replicas, 1)
	fillNil(&s.Spec.RevisionHistoryLimit, 10)
	fill(&s.Spec.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	fill(&s.Spec.UpdateStrategy.Type, appsv1.RollingUpdateStatefulSetStrategyType)
	if s.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		fillNil(&s.Spec.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
		fillNil(&s.Spec.UpdateStrategy.RollingUpdate.Partition, 0)
	}
	fillNil(&s.Spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	fill(&s.Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	fill(&s.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	for i := range s.Spec.VolumeClaimTemplates {
		defaultPersistentVolumeClaim(&s.Spec.VolumeClaimTemplates[i])
	}
	defaultPodSpec(&s.Spec.Template.Spec)
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	fillNil(&d.Spec.RevisionHistoryLimit, 10)
	fill(&d.Spec.UpdateStrategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if d.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		fillNil(&d.Spec.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		fillNil(&d.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		fillNil(&d.Spec.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	defaultPodSpec(&d.Spec.Template.Spec)
}

func defaultJob(j *batchv1.Job) {
	defaultJobSpec(&j.Spec)
	if len(j.Labels) == 0 {
		j.Labels = j.Spec.Template.Labels
	}
}

func defaultJobSpec(s *batchv1.JobSpec) {
	if s.Completions == nil && s.Parallelism == nil {
		s.Completions = pointer(int32(1))
	}
	fillNil(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex == nil {
		fillNil(&s.BackoffLimit, 6)
	} else {
		fillNil(&s.BackoffLimit, 1<<31-1)
	}
	fillNil(&s.CompletionMode, batchv1.NonIndexedCompletion)
	fillNil(&s.Suspend, false)
	if s.PodFailurePolicy == nil {
		fillNil(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	} else {
		fillNil(&s.PodReplacementPolicy, batchv1.Failed)
		for _, rule := range s.PodFailurePolicy.Rules {
			for i := range rule.OnPodConditions {
				fill(&rule.OnPodConditions[i].Status, corev1.ConditionTrue)
			}
		}
	}
	fillNil(&s.ManualSelector, false)
	defaultPodSpec(&s.Template.Spec)
}

// The names that a job's labels had before they had a domain; its pods carry both.
const (
	legacyJobName       = "job-name"
	legacyControllerUID = "controller-uid"
)

// prepareJob gives a job the selector and labels made from its uid, unless the user takes care of them. A label that is there already stays: one that
// contradicts is refused.
func prepareJob(o Object) {
	j := o.(*batchv1.Job)
	if value(j.Spec.ManualSelector) || j.UID == "" {
		return
	}
	labels, uid := &j.Spec.Template.Labels, string(j.UID)
	for key, v := range map[string]string{legacyJobName: j.Name, batchv1.JobNameLabel: j.Name, legacyControllerUID: uid, batchv1.ControllerUidLabel: uid} {
		fillKey(labels, key, v)
	}
	fillNil(&j.Spec.Selector, metav1.LabelSelector{})
	fillKey(&j.Spec.Selector.MatchLabels, batchv1.ControllerUidLabel, uid)
}

func defaultCronJob(c *batchv1.CronJob) {
	fill(&c.Spec.ConcurrencyPolicy, batchv1.AllowConcurrent)
	fillNil(&c.Spec.Suspend, false)
	fillNil(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	fillNil(&c.Spec.FailedJobsHistoryLimit, 1)
	defaultJobSpec(&c.Spec.JobTemplate.Spec)
}

// defaultBinding fills the API groups of a role binding's reference and subjects.
func defaultBinding(o Object) {
	var ref *rbacv1.RoleRef
	var subjects []rbacv1.Subject
	switch b := o.(type) {
	case *rbacv1.RoleBinding:
		ref, subjects = &b.RoleRef, b.Subjects
	case *rbacv1.ClusterRoleBinding:
		ref, subjects = &b.RoleRef, b.Subjects
	}
	fill(&ref.APIGroup, rbacv1.GroupName)
	for i := range subjects {
		if s := &subjects[i]; s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind {
			fill(&s.APIGroup, rbacv1.GroupName)
		}
	}
}

func defaultNetworkPolicy(n *networkingv1.NetworkPolicy) {
	ports := func(list []networkingv1.NetworkPolicyPort) {
		for i := range list {
			fillNil(&list[i].Protocol, corev1.ProtocolTCP)
		}
	}
	for i := range n.Spec.Ingress {
		ports(n.Spec.Ingress[i].Ports)
	}
	for i := range n.Spec.Egress {
		ports(n.Spec.Egress[i].Ports)
	}
	if len(n.Spec.PolicyTypes) == 0 {
		n.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(n.Spec.Egress) > 0 {
			n.Spec.PolicyTypes = append(n.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

func defaultPriorityClass(p *schedulingv1.PriorityClass) {
	fillNil(&p.PreemptionPolicy, corev1.PreemptLowerPriority)
}

func defaultIngressClass(c *networkingv1.IngressClass) {
	if p := c.Spec.Parameters; p != nil {
		fillNil(&p.Scope, networkingv1.IngressClassParametersReferenceScopeCluster)
	}
}
