package filter

import "skiff.dev/skiff/internal/scheduler/cluster"

var nodeNameReason = []string{"node(s) didn't match the requested node name"}

// nodeName admits only the node a pod names.
func nodeName(p *cluster.Pod, n *cluster.Nodes) Check {
	if p.Spec.NodeName == "" {
		return nil
	}
	return func(i int) []string {
		if n.Node[i].Name != p.Spec.NodeName {
			return nodeNameReason
		}
		return nil
	}
}
