package filter

import "skiff.dev/skiff/internal/scheduler/cluster"

var portsRefusal = &Refusal{[]string{"node(s) didn't have free ports for the requested pod ports"}, false}

// nodePorts keeps apart pods that want the same host port.
func nodePorts(p *cluster.Pod, n *cluster.Nodes) Check {
	if len(p.Ports) == 0 {
		return nil
	}
	return func(i int) *Refusal {
		for used := range n.Ports[i] {
			if Collides(p.Ports, used) {
				return portsRefusal
			}
		}
		return nil
	}
}

// Collides says whether a port that is in use is wanted. A port on every address collides with the same port on any.
func Collides(wanted []cluster.Port, used cluster.Port) bool {
	for _, w := range wanted {
		if used.Number == w.Number && used.Protocol == w.Protocol && (used.IP == w.IP || used.IP == "" || w.IP == "") {
			return true
		}
	}
	return false
}
