package filter

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var affinityRefusal = &Refusal{[]string{"node(s) didn't match Pod's node affinity/selector"}, true}

// Unasked is the refusal of nodes that were not looked at, because the pod's node affinity names others.
var Unasked = &Refusal{[]string{"node(s) didn't satisfy plugin(s) [NodeAffinity]"}, true}

// nodeAffinity holds a pod to its nodeSelector and its required node affinity.
func nodeAffinity(p *cluster.Pod, n *cluster.Nodes) Check {
	if len(p.Spec.NodeSelector) == 0 && required(p) == nil {
		return nil
	}
	affinity := nodeaffinity.GetRequiredNodeAffinity(p.Pod)
	return func(i int) *Refusal {
		if match, err := affinity.Match(n.Node[i]); err != nil || !match {
			return affinityRefusal
		}
		return nil
	}
}

var enforcedRefusal = &Refusal{[]string{"node(s) didn't match scheduler-enforced node affinity"}, true}

// enforcedAffinity holds a pod to the affinity that its profile adds.
func enforcedAffinity(p *cluster.Pod, n *cluster.Nodes) Check {
	if p.Profile == nil || p.Profile.Enforced == nil {
		return nil
	}
	return func(i int) *Refusal {
		if !p.Profile.Enforced.Match(n.Node[i]) {
			return enforcedRefusal
		}
		return nil
	}
}

func required(p *cluster.Pod) *corev1.NodeSelector {
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil {
		return nil
	}
	return p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

// Conflict is upstream's reason for pods whose affinity asks for nodes of several names at once, which no node has.
const Conflict = "pod affinity terms conflict"

// Named returns the names of the nodes to which a pod's affinity binds it, as a DaemonSet's pods are; false if it is not bound by name. None are left where its
// fields contradict one another.
func Named(p *cluster.Pod) (names []string, bound bool) {
	affinity := required(p)
	if affinity == nil || len(affinity.NodeSelectorTerms) == 0 {
		return nil, false
	}
	for _, term := range affinity.NodeSelectorTerms {
		named, only := false, []string(nil)
		for _, field := range term.MatchFields {
			switch {
			case field.Key != "metadata.name" || field.Operator != corev1.NodeSelectorOpIn:
			case !named:
				named, only = true, slices.Clone(field.Values)
			default: // all fields of a term must hold
				only = slices.DeleteFunc(only, func(name string) bool { return !slices.Contains(field.Values, name) })
			}
		}
		if !named {
			return nil, false
		}
		names = append(names, only...)
	}
	return names, true
}
