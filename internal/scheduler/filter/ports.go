package filter

import "skiff.dev/skiff/internal/scheduler/cluster"

var portsReason = []string{"node(s) didn't have free ports for the requested pod ports"}

// nodePorts keeps apart pods that want the same host port. A port on every address collides with the same port on any.
func nodePorts(p *cluster.Pod, n *cluster.Nodes) Check {
	if len(p.Ports) == 0 {
		return nil
	}
	return func(i int) []string {
		for used := range n.Ports[i] {
			for _, wanted := range p.Ports {
				if used.Number == wanted.Number && used.Protocol == wanted.Protocol && (used.IP == wanted.IP || used.IP == "" || wanted.IP == "") {
					return portsReason
				}
			}
		}
		return nil
	}
}
