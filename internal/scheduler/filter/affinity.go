package filter

import (
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var affinityReason = []string{"node(s) didn't match Pod's node affinity/selector"}

// nodeAffinity holds a pod to its nodeSelector and its required node affinity.
func nodeAffinity(p *cluster.Pod, n *cluster.Nodes) Check {
	required := p.Spec.Affinity != nil && p.Spec.Affinity.NodeAffinity != nil &&
		p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
	if len(p.Spec.NodeSelector) == 0 && !required {
		return nil
	}
	affinity := nodeaffinity.GetRequiredNodeAffinity(p.Pod)
	return func(i int) []string {
		if match, err := affinity.Match(n.Node[i]); err != nil || !match {
			return affinityReason
		}
		return nil
	}
}
