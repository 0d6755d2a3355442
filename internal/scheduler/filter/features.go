package filter

import (
	"slices"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Featureless is Last's refusal.
var Featureless = &Refusal{[]string{"node(s) didn't match Pod's required features"}, true}

// nodeDeclaredFeatures keeps pods off nodes that don't declare a feature which the pod needs (KEP-5328), such as those of an older version.
func nodeDeclaredFeatures(p *cluster.Pod, n *cluster.Nodes) Check {
	if len(p.Features) == 0 {
		return nil
	}
	return func(i int) *Refusal {
		if len(Undeclared(p, n.Node[i].Status.DeclaredFeatures)) > 0 {
			return Featureless
		}
		return nil
	}
}

// Undeclared are the features which a pod needs that are not among those declared.
func Undeclared(p *cluster.Pod, declared []string) (list []string) {
	for _, name := range p.Features {
		if !slices.Contains(declared, name) {
			list = append(list, name)
		}
	}
	return list
}
