package filter

import "skiff.dev/skiff/internal/scheduler/cluster"

var nodeNameRefusal = &Refusal{[]string{"node(s) didn't match the requested node name"}, true}

// nodeName admits only the node a pod names.
func nodeName(p *cluster.Pod, n *cluster.Nodes) Check {
	name := p.Spec.NodeName
	if name == "" {
		return nil
	}
	return func(i int) *Refusal {
		if n.Node[i].Name != name {
			return nodeNameRefusal
		}
		return nil
	}
}
