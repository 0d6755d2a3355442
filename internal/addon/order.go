package addon

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// stages is the order in which kinds are applied: what others need comes first. Kinds that are not here come after those that are, and webhooks last,
// because they may stand in the way of everything.
var stages = map[string]int{
	"CustomResourceDefinition": 0, "Namespace": 1, "PriorityClass": 2, "StorageClass": 2, "RuntimeClass": 2, "IngressClass": 2, "ResourceQuota": 3, "LimitRange": 3,
	"ServiceAccount": 4, "Secret": 4, "ConfigMap": 4, "ClusterRole": 5, "Role": 5, "ClusterRoleBinding": 6, "RoleBinding": 6,
	"PersistentVolume": 7, "PersistentVolumeClaim": 8, "Service": 9,
}

const (
	stageRest     = 10
	stageWebhooks = 11
)

func stage(kind string) int {
	switch kind {
	case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService", "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicyBinding":
		return stageWebhooks
	}
	if s, known := stages[kind]; known {
		return s
	}
	return stageRest
}

// sortObjects puts objects into the order they are applied in; those of one stage stay as they are.
func sortObjects(objects []*unstructured.Unstructured) {
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return stage(a.GetKind()) - stage(b.GetKind()) })
}

// Removal puts what is to be deleted into order: the other way round.
func Removal(gone []Applied) []Applied {
	out := slices.Clone(gone)
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b Applied) int { return stage(b.Kind) - stage(a.Kind) })
	return out
}

// Left is what of before is not in now.
func Left(before, now []Applied) (out []Applied) {
	there := map[Key]bool{}
	for _, a := range now {
		there[a.Key()] = true
	}
	for _, a := range before {
		if !there[a.Key()] {
			out = append(out, a)
		}
	}
	return out
}

// Cycle finds add-ons that wait for one another, beginning and ending with name; nil if name is in none.
func Cycle(name string, after map[string][]string) []string {
	seen := map[string]bool{}
	var walk func(at string) []string
	walk = func(at string) []string {
		for _, next := range after[at] {
			if next == name {
				return []string{at, name}
			}
			if seen[next] {
				continue
			}
			seen[next] = true
			if rest := walk(next); rest != nil {
				return append([]string{at}, rest...)
			}
		}
		return nil
	}
	return walk(name)
}
