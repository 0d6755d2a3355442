package namespace

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// conditions say why a namespace is still there, in upstream's types, reasons and messages.
func conditions(seen remaining, failure error) []corev1.NamespaceCondition {
	list := []corev1.NamespaceCondition{
		{Type: corev1.NamespaceDeletionDiscoveryFailure, Status: corev1.ConditionFalse, Reason: "ResourcesDiscovered",
			Message: "All resources successfully discovered"},
		{Type: corev1.NamespaceDeletionGVParsingFailure, Status: corev1.ConditionFalse, Reason: "ParsedGroupVersions",
			Message: "All legacy kube types successfully parsed"},
		{Type: corev1.NamespaceDeletionContentFailure, Status: corev1.ConditionFalse, Reason: "ContentDeleted",
			Message: "All content successfully deleted, may be waiting on finalization"},
		{Type: corev1.NamespaceContentRemaining, Status: corev1.ConditionFalse, Reason: "ContentRemoved",
			Message: "All content successfully removed"},
		{Type: corev1.NamespaceFinalizersRemaining, Status: corev1.ConditionFalse, Reason: "ContentHasNoFinalizers",
			Message: "All content-preserving finalizers finished"},
	}
	if failure != nil {
		list[2].Status, list[2].Reason, list[2].Message = corev1.ConditionTrue, "ContentDeletionFailed", "Failed to delete all resource types: "+failure.Error()
	}
	if len(seen.kinds) > 0 {
		var parts []string
		for _, k := range seen.kinds {
			parts = append(parts, fmt.Sprintf("%s.%s has %d resource instances", k.kind.Resource, k.kind.Group, k.n))
		}
		slices.Sort(parts)
		list[3].Status, list[3].Reason = corev1.ConditionTrue, "SomeResourcesRemain"
		list[3].Message = "Some resources are remaining: " + strings.Join(parts, ", ")
	}
	if len(seen.finalizers) > 0 {
		var parts []string
		for _, f := range slices.Sorted(maps.Keys(seen.finalizers)) {
			parts = append(parts, fmt.Sprintf("%s in %d resource instances", f, seen.finalizers[f]))
		}
		list[4].Status, list[4].Reason = corev1.ConditionTrue, "SomeFinalizersRemain"
		list[4].Message = "Some content in the namespace has finalizers remaining: " + strings.Join(parts, ", ")
	}
	return list
}

// setCondition moves the transition time only when the status or what is said about it changes.
func setCondition(status *corev1.NamespaceStatus, c corev1.NamespaceCondition, now time.Time) {
	c.LastTransitionTime = metav1.NewTime(now)
	for i, old := range status.Conditions {
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		status.Conditions[i] = c
		return
	}
	status.Conditions = append(status.Conditions, c)
}
