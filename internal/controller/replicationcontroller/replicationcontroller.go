// Package replicationcontroller is the ReplicationController's face: everything it does is package replicaset's, over a view of it as the
// newer kind. Nothing is decided here.
package replicationcontroller

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/replicaset"
)

// New returns the controller.
func New(c client.Client) harness.Controller {
	return replicaset.Of(c, replicaset.Kind{
		GVK: corev1.SchemeGroupVersion.WithKind("ReplicationController"), Component: "replication-controller",
		New:  func() crclient.Object { return &corev1.ReplicationController{} },
		List: list, View: view, SetStatus: setStatus,
		Status: func(s appsv1.ReplicaSetStatus) appsv1.ReplicaSetStatus {
			s.TerminatingReplicas = nil
			return s
		},
	})
}

func list(r crclient.Reader, namespace string) []crclient.Object {
	var list corev1.ReplicationControllerList
	if r.List(context.Background(), &list, crclient.InNamespace(namespace), crclient.UnsafeDisableDeepCopy) != nil {
		return nil
	}
	all := make([]crclient.Object, len(list.Items))
	for i := range list.Items {
		all[i] = &list.Items[i]
	}
	return all
}

// view shares what it can with the original: neither is to be changed.
func view(o crclient.Object) *appsv1.ReplicaSet {
	rc := o.(*corev1.ReplicationController)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: appsv1.ReplicaSetSpec{
			Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds, Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector},
		},
		Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas, ReadyReplicas: rc.Status.ReadyReplicas,
			AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration,
		},
	}
	if rc.Spec.Template != nil {
		rs.Spec.Template = *rc.Spec.Template
	}
	for _, c := range rc.Status.Conditions {
		rs.Status.Conditions = append(rs.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return rs
}

func setStatus(o crclient.Object, s appsv1.ReplicaSetStatus) {
	status := corev1.ReplicationControllerStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	for _, c := range s.Conditions {
		status.Conditions = append(status.Conditions, corev1.ReplicationControllerCondition{
			Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	o.(*corev1.ReplicationController).Status = status
}
